"""The steps without a window: what they ask for, what they make of an answer, what comes next."""

import inspect
import json
import re
import shlex
import shutil
import socket
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path

import pytest

from quietscope.acquisition.preview.model import Grade
from quietscope.calibration import checks
from quietscope.calibration.fingerprint import CameraFingerprint
from quietscope.calibration.noise_files import load_noise_model, save_noise_model
from quietscope.gui.job import ABOUT
from quietscope.gui.remembered import MicroscopeChoice, Remembered, recall, remember
from quietscope.gui.session import ORDER, Session
from quietscope.gui.steps.calibrate import CHECKS, Calibrate
from quietscope.gui.steps.connect import Connect, camera_readings
from quietscope.gui.steps.live import Live
from quietscope.gui.steps.overnight import Overnight
from quietscope.gui.steps.record import Record, report_left_by
from quietscope.gui.steps.step import StepState
from quietscope.gui.steps.train import Train
from quietscope.training.retraining.night_record import NightRecord, write_record

BEFORE = Path(__file__).parents[1] / "data" / "written_before"
COUNTS = {
    "frames_delivered": 80,
    "frames_recorded": 80,
    "frames_denoised": 0,
    "frames_skipped_live": 0,
    "frames_missing": 0,
    "frame_rate_hz": 19.5,
}


def ended(step, speaking, result, words=None, **event):
    """Let a job of `step` come to its end."""
    job, tell = speaking(step.name, words or (step.name,))
    step.adopt(job)
    tell("ended", status=0, result=result, **event)
    return step.tick()


def test_nothing_can_be_done_before_a_microscope_is_connected(facts):
    for kind in (Calibrate, Record, Live):
        step = kind(facts)
        assert step.missing() == "connect a microscope first"
        assert step.state() is StepState.WAITING
        assert not step.start()


def test_connecting_says_what_was_found_and_what_is_missing(facts, speaking, camera):
    step = Connect(facts)
    assert ended(step, speaking, camera)
    assert step.state() is StepState.DONE
    assert step.line() == "Demo camera, 256×256"
    found = {reading.name: reading for reading in step.snapshot().found}
    assert found["Pixel size"].grade is Grade.CARE
    assert "Pixel Size Calibration" in found["Pixel size"].sentence
    assert found["Channels"].sentence == "DAPI, FITC"


def test_eight_bits_of_a_real_camera_are_pointed_out(camera):
    readings = camera_readings({**camera, "bit_depth": 8, "simulated": False})
    depth = next(reading for reading in readings if reading.name == "Grey levels")
    assert depth.grade is Grade.CARE


def test_another_choice_has_to_be_connected_anew(facts, camera):
    step = Connect(facts)
    facts.connect(camera)
    step.choose(kind="attach")
    assert facts.microscope is None
    assert "--attach" in step.words()
    step.choose(kind="config")
    assert "configuration file" in step.missing()


def test_a_micro_manager_that_answers_is_suggested_first(facts):
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        facts.suggested = MicroscopeChoice(port=server.getsockname()[1])
        step = Connect(facts)
        step.tick()
        assert step.snapshot().server_answers
        assert facts.choice.kind == "attach"
    chosen = MicroscopeChoice(kind="demo")
    facts.remember(microscope=chosen)
    Connect(facts).tick()
    assert facts.choice == chosen


def test_a_job_that_cannot_be_written_down_is_said_and_does_not_run(facts, camera):
    facts.connect(camera)
    facts.jobs.parent.mkdir(parents=True, exist_ok=True)
    facts.jobs.touch()  # a file where the folder should be
    step = Record(facts)
    assert not step.start()
    assert "free some space and try again" in step.snapshot().error
    assert facts.at_microscope == ""


def test_one_camera_serves_one_step_at_a_time(facts, speaking, camera):
    facts.connect(camera)
    record, calibrate = Record(facts), Calibrate(facts)
    job, _ = speaking("record", ("record",))
    record.adopt(job)
    assert "in use by “record”" in calibrate.why_not()
    assert not calibrate.start()


def test_a_red_check_stays_and_a_green_calibration_goes_on(facts, speaking, camera):
    facts.connect(camera)
    step = Calibrate(facts)
    levels = [{"mean_adu": 110.0, "variance_adu2": 20.0, "model_variance_adu2": 19.0}]
    check = {"name": "motion", "sentence": "It moved.", "advice": "Hold it.", "colour": "red"}
    path = facts.workspace.cameras / "c.npz"
    result = {"out": str(path), "checks": [check], "levels": levels}
    assert not ended(step, speaking, result)
    assert step.state() is StepState.LOOK
    assert step.snapshot().checks[0].sentence == "It moved. Hold it."
    assert step.snapshot().model_levels == ((110.0, 19.0),)
    assert ended(step, speaking, {**result, "checks": [{**check, "colour": "green"}]})
    assert step.state() is StepState.DONE


def test_every_check_has_plain_words():
    source = inspect.getsource(checks)
    names = set(re.findall(r'(?:Check|_at_most)\(\s*"(\w+)"', source))
    assert len(names) > 15
    assert names == set(CHECKS)


def test_a_calibration_is_found_again_for_this_camera_only(facts, camera, tmp_path):
    model = load_noise_model(BEFORE / "bundle" / "noise_model.npz")
    facts.workspace.cameras.mkdir(parents=True)
    other = facts.workspace.cameras / "other.npz"
    save_noise_model(_of(model, CameraFingerprint(camera="Kinetix")), other)
    facts.connect(camera)
    assert facts.calibration is None
    assert [k.fits for k in facts.calibrations] == [False]
    mine = facts.workspace.cameras / "mine.npz"
    save_noise_model(_of(model, facts.camera), mine)
    facts.connect(camera)
    assert facts.calibration == mine
    snapshot = Calibrate(facts).snapshot()
    assert "belongs to this camera" in snapshot.belongs
    step = Calibrate(facts)
    step.do_without()
    assert step.state() is StepState.LOOK
    assert "--noise-model" not in Train(facts).words()
    step.reuse(mine)
    assert str(mine) in Train(facts).words()


def _of(model, fingerprint):
    return replace(model, fingerprint=fingerprint, maps=None)


def test_a_recording_that_does_not_fit_on_the_disk_is_not_begun(facts, camera, monkeypatch):
    facts.connect(camera)
    step = Record(facts)
    step.choose(frames=100, planes="-2, 2, 1")
    assert step.bytes_needed() == 100 * 5 * 256 * 256 * 2
    free = step.bytes_needed() - 1
    monkeypatch.setattr(type(facts.workspace), "free_bytes", lambda self: free)
    assert "the disk has only" in step.missing()
    assert not step.start()


def test_planes_are_asked_for_in_three_numbers(facts, camera):
    facts.connect(camera)
    step = Record(facts)
    step.choose(planes="-2,2")
    assert "start, end and step" in step.missing()
    for written in ("-2,2,0.5", "-2; 2; 0,5"):
        step.choose(planes=written)
        assert "--z=-2,2,0.5" in step.words()


def test_lost_frames_are_said_and_the_step_wants_a_look(facts, speaking, camera):
    facts.connect(camera)
    step = Record(facts)
    out = facts.workspace.recordings / "a"
    (out / "raw.ome.zarr").mkdir(parents=True)
    assert ended(step, speaking, {**COUNTS, "frames_missing": 3, "output": str(out)})
    assert facts.recording == out
    assert step.state() is StepState.LOOK
    lost = next(r for r in step.snapshot().readings if r.name == "Lost")
    assert (lost.value, lost.grade) == ("3", Grade.BAD)


def test_a_training_that_was_killed_can_go_on(facts, speaking, camera, tmp_path):
    facts.connect(camera)
    step = Train(facts)
    out = tmp_path / "m"
    words = ("train", "run", "--out", str(out), "--minutes", "1")
    job, tell = speaking("train", words)
    step.adopt(job)
    assert not step.can_resume
    tell("ended", status=1, error="the disk is full; free some space")
    assert not step.tick()
    assert step.state() is StepState.FAILED
    assert "free some space" in step.snapshot().error
    assert not step.can_resume  # it had not come far enough
    (tmp_path / "m.unfinished.pt").touch()
    assert step.can_resume
    another_day = Session(facts.folder).train
    started = []
    for train in (step, another_day):
        train.run = lambda words, **about: started.append(words) or True
        assert train.resume()
    assert started == [[*words, "--resume"]] * 2


def test_a_model_is_used_after_its_verdict_was_read(facts, speaking, camera, make_bundle):
    facts.connect(camera)
    step = Train(facts)
    facts.workspace.library.models_dir.mkdir(parents=True)
    bundle = make_bundle()
    result = {"out": str(bundle), "verdict": "3 dB better than a blur", "frames": 80}
    result |= {"seconds": 60.0, "better_than_trivial": True}
    assert not ended(step, speaking, result)  # a person reads it first
    assert step.snapshot().verdict.grade is Grade.GOOD
    assert Live(facts).missing() == "train a model for this camera first"
    assert step.use()
    assert step.in_use
    assert Live(facts).missing() == ""
    ended(step, speaking, {**result, "better_than_trivial": False})
    assert step.snapshot().verdict.headline == "No better than a blur so far"
    assert step.state() is StepState.LOOK


def test_a_model_that_was_deleted_is_said_in_words(facts, camera, make_bundle, tmp_path):
    facts.workspace.path.mkdir(parents=True)
    bundle = make_bundle()
    facts.workspace.library.promote(bundle, "for the test")
    facts.connect(camera)
    step = Live(facts)
    assert step.missing() == ""
    shutil.rmtree(bundle)
    assert not step.start()
    assert "is not there; restore the bundle" in step.snapshot().error
    assert step.job is None


def test_a_stopped_run_says_what_is_left_to_denoise(facts, speaking, camera):
    facts.connect(camera)
    step = Live(facts)
    out = facts.workspace.live / "a"
    out.mkdir(parents=True)
    report = {**COUNTS, "frames_denoised": 60, "verdict": None}
    (out / "report.json").write_text(json.dumps(report), encoding="utf-8")
    job, tell = speaking("live", ("live", "--out", str(out)))
    step.adopt(job)
    tell("counts", **COUNTS)
    step.cancel()
    tell("ended", status=1, cancelled=True)
    step.tick()
    assert step.error == ""  # a person wanted it so
    assert step.left_over == 20
    started = []
    step.export.run = lambda words, **about: started.append(words) or True
    assert step.denoise_the_rest()
    assert started[0][:2] == ["denoise", str(out)]


def test_the_night_says_what_it_needs_and_goes_back(facts, camera, make_bundle, speaking):
    facts.workspace.path.mkdir(parents=True)
    step = Overnight(facts)
    assert "record something first" in step.missing()
    step.choose(at="25:00")
    assert "write a time of day" in step.missing()
    library = facts.workspace.library
    for name in ("first", "second"):
        library.promote(make_bundle(name), "better")
    facts.connect(camera)
    snapshot = step.snapshot()
    assert [reading.grade for reading, _ in snapshot.history] == [Grade.GOOD, Grade.GOOD]
    ((channel, words, back),) = snapshot.in_use
    assert back.startswith("quietscope models rollback")
    assert "second" in words
    (library.path / "nights").mkdir()
    record = NightRecord(
        night=date(2027, 1, 2),
        started=datetime(2027, 1, 2, 23, tzinfo=UTC),
        state="failed",
        failure="the disk was full",
    )
    write_record(library.path, record)
    newest, _ = step.snapshot().history[0]
    assert (newest.name, newest.grade) == ("The night of 2027-01-02", Grade.BAD)
    assert "disk was full" in newest.sentence
    # The next morning it is seen in the list on the left, whatever page is open.
    assert step.line_now() == "last night failed"
    assert step.state() is StepState.LOOK
    asked = speaking("schedule", ("schedule", "status"))
    step.schedule.adopt(asked[0])
    told = {"problem": "systemd has no job x any more; install it again"}
    asked[1]("ended", status=1, result={**told, "next_night": "2027-01-03T23:00+00:00"})
    step.tick()
    problem, following = step.snapshot().status
    assert (problem.grade, following.name) == (Grade.BAD, "Next night")
    assert "install it again" in problem.sentence
    assert step.roll_back(channel)
    assert "first" in step.snapshot().in_use[0][1]
    assert not step.roll_back(channel)
    assert "no model was in use before" in step.snapshot().error


def test_a_record_of_a_night_opens_its_page_and_nothing_else(facts):
    library = facts.workspace.path
    (library / "nights").mkdir(parents=True)
    for place in ("tool.exe", "nights/tool.exe", "elsewhere.html", "nights/2027-01-02.html"):
        (library / place).touch()
    ours = "D:\\lab\\nights\\2027-01-02.html"  # as Windows writes it
    pages = {2: ours, 3: str(library / "tool.exe"), 4: "../elsewhere.html"}
    for day, page in {**pages, 5: "tool.exe"}.items():
        started = datetime(2027, 1, day, 23)  # of a clock without a zone
        write_record(library, NightRecord(night=started.date(), started=started, page=page))
    found = [page for _, page in Overnight(facts).snapshot().history]
    assert found == [None, None, None, library / "nights" / "2027-01-02.html"]


@pytest.mark.parametrize("name", ORDER)
def test_every_step_says_its_command(name, tmp_path, camera):
    session = Session(tmp_path / "state")
    session.facts.remember(workspace=tmp_path / "her folder")
    session.facts.connect(camera)
    words = shlex.split(session.steps[name].snapshot().command.replace("\\", "/"))
    assert words[0] == "quietscope"
    assert words[1:] == [word.replace("\\", "/") for word in session.steps[name].words()]


def test_what_is_there_already_is_passed_over(tmp_path, camera, make_bundle):
    session = Session(tmp_path / "state")
    session.facts.remember(workspace=tmp_path)
    assert session.after("connect") == "calibrate"
    session.facts.calibration = tmp_path / "c.npz"
    assert session.after("connect") == "record"
    session.facts.models = {"": tmp_path}
    assert session.after("connect") == "live"
    assert session.after("live") == "live"


def test_a_window_that_was_killed_finds_its_recording_again(tmp_path, speaking, camera):
    out = tmp_path / "her folder" / "live" / "a"
    _, tell = speaking("live", ("live", "--out", str(out)))
    tell("counts", **COUNTS)
    session = Session(tmp_path / "state")
    assert session.found_again == ["live"]
    assert session.current == "live"
    assert session.busy() == ["live"]
    assert session.live.run_path == out
    assert session.live.snapshot().readings[0].value == "80 of 80"


def test_two_windows_show_the_same_work_and_share_one_camera(tmp_path, speaking, camera):
    first, second = Session(tmp_path / "state"), Session(tmp_path / "state")
    second.facts.connect(camera)
    job, tell = speaking("record", ("record", "--out", str(tmp_path / "run")))
    first.record.adopt(job)
    second._next_look = 0.0
    second.tick()
    assert second.busy() == ["record"]
    assert "in use by “record”" in second.calibrate.why_not()
    tell("ended", status=0, result={**COUNTS, "output": str(tmp_path / "run")})
    first.tick()
    second.tick()
    assert first.busy() == second.busy() == []
    assert second.facts.recording == tmp_path / "run"


def test_a_job_that_another_window_is_just_beginning_is_seen_at_the_next_look(tmp_path, speaking):
    job, _ = speaking("record", ("record", "--out", str(tmp_path / "run")))
    about = job.folder / ABOUT
    about.rename(about.with_suffix(".later"))  # its folder is there before what it is about
    window = Session(tmp_path / "state")
    for there in (False, True):
        if there:
            about.with_suffix(".later").rename(about)
        window._next_look = 0.0
        window.tick()
        assert bool(window.busy()) == there


def test_a_report_without_an_end_is_not_read(tmp_path, speaking):
    run = tmp_path / "run"
    run.mkdir()
    job, _ = speaking("record", ("record", "--out", str(run)))
    report = {**COUNTS, "frames_recorded": 12}
    for text, expected in ((json.dumps(report), report), ("[" * 100_000, {}), ("[1]", {})):
        (run / "report.json").write_text(text, encoding="utf-8")
        assert report_left_by(run, job.read()) == expected
    with (run / "report.json").open("wb") as file:
        file.truncate(2**30)
    assert report_left_by(run, job.read()) == {}


def test_a_folder_with_spaces_and_umlauts_is_one_word_of_the_command(tmp_path, camera):
    session = Session(tmp_path / "state")
    folder = tmp_path / "Jürgen Groß" / "Zellen & Kerne"
    session.facts.remember(workspace=folder)
    session.facts.connect(camera)
    assert recall(tmp_path / "state").workspace == folder
    words = shlex.split(session.steps["record"].snapshot().command.replace("\\", "/"))
    assert str(folder / "recordings").replace("\\", "/") in words[words.index("--out") + 1]


def test_what_is_remembered_survives_and_damage_costs_only_that(tmp_path):
    kept = Remembered(microscope=MicroscopeChoice(kind="attach"), training_minutes=3)
    assert remember(tmp_path, kept) == ""
    assert recall(tmp_path) == kept
    (tmp_path / "window.json").write_text('{"microscope": 3', encoding="utf-8")
    assert recall(tmp_path).microscope is None
    file = tmp_path / "file"
    file.touch()
    assert remember(file, kept) != ""


@pytest.mark.parametrize(
    "damage",
    [
        {"geometry": "ä"},
        {"frames_live": 10**12},
        {"frames_to_record": -1},
        {"training_minutes": 1e300},
        {"microscope": {"kind": "demo", "of a newer version": 3}},
        {"microscope": {"kind": "attach", "port": 10**9}},
    ],
    ids=str,
)
def test_what_is_damaged_or_newer_costs_only_itself(tmp_path, damage):
    """The window did not open again before somebody had found the file and deleted it."""
    kept = Remembered(workspace=tmp_path, appearance="dark", frames_live=7, training_minutes=2)
    remember(tmp_path, kept)
    file = tmp_path / "window.json"
    written = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps({**written, **damage}), encoding="utf-8")
    (name,) = damage
    assert recall(tmp_path) == kept.model_copy(update={name: getattr(Remembered(), name)})


@pytest.mark.parametrize("folder", ["a\0b", "", "/x" * 4000])
def test_a_workspace_that_no_system_takes_is_forgotten(tmp_path, folder):
    (tmp_path / "window.json").write_text(json.dumps({"workspace": folder}), encoding="utf-8")
    assert recall(tmp_path).workspace == Remembered().workspace
