"""What goes wrong in mid-work, seen from the window: said in words with a way out, nothing lost.

The commands run as the window runs them; what breaks is the real thing: a core whose camera is
unloaded, a Micro-Manager that is killed, a disk that takes no more, a process that is killed.
"""

import json
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
from typer.testing import CliRunner

from quietscope.acquisition.microscope.core import close_core, running_core
from quietscope.cli import app
from quietscope.gui.job import ABOUT, Job, JobState
from quietscope.gui.remembered import MicroscopeChoice
from quietscope.gui.session import Session
from quietscope.gui.steps.live import Live
from quietscope.gui.steps.record import Record
from quietscope.gui.steps.step import StepState
from quietscope.gui.steps.train import Train
from quietscope.storage.open_stack import open_stack
from quietscope.storage.written_frames import written_frames

ROI = "0,0,64,64"


def until(condition, patience_s=60.0):
    end = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def is_over(step):
    step.tick()
    return not step.busy


def recorded(step):
    return step.seen.counts.get("frames_recorded", 0)


def in_this_process(step, job):
    """Run the step's command here, where the core can be reached; it speaks to `job`."""
    step.adopt(job)
    CliRunner().invoke(app, [*job.words, "--json"])
    until(lambda: is_over(step))


def frames_of(run):
    log = run / "frames.jsonl"
    return log.read_text(encoding="utf-8").count("\n") if log.exists() else 0


@pytest.mark.parametrize("pace", [[], ["--interval-s", "0.02"]], ids=["a burst", "a time lapse"])
def test_a_camera_that_is_unplugged_is_said_and_its_frames_are_kept(
    facts, camera, speaking, tmp_path, pace, capfd
):
    facts.connect(camera)
    step, run = Record(facts), tmp_path / "run"
    words = ["record", "--out", str(run), "--demo", "--no-specimen", "--roi", ROI]
    job, _ = speaking("record", [*words, "--frames", "2000", *pace])

    def unplug():
        until(lambda: frames_of(run) > 5)
        core = running_core()
        if core.is_sequence_running():
            core.stop_sequence_acquisition()
        core.unload_device("Camera")

    pulled = threading.Thread(target=unplug)
    pulled.start()
    try:
        in_this_process(step, job)
    finally:
        pulled.join()
        close_core()
    assert step.state() is StepState.FAILED
    assert "look whether the camera is on and connected" in step.error.lower()
    kept = int(written_frames(run / "raw.ome.zarr").sum())
    assert 5 < kept < 2000
    assert f"{kept} of {kept}" in step.snapshot().readings[1].value
    assert facts.at_microscope == ""  # the next step may have the camera


def test_a_training_whose_process_is_killed_says_so_and_can_go_on(facts, camera, tmp_path):
    facts.connect(camera)
    step, out = Train(facts), tmp_path / "m"
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    folder = facts.jobs / "20260101-000000-train-killed"
    folder.mkdir(parents=True)
    about = {
        "step": "train",
        "words": ["train", "run", "--out", str(out)],
        "began": time.time(),
        "pid": process.pid,
        "created": psutil.Process(process.pid).create_time(),
    }
    (folder / ABOUT).write_text(json.dumps(about), encoding="utf-8")
    step.adopt(Job.found(folder))
    assert step.busy
    out.with_name("m.unfinished.pt").touch()  # what it had learned until then
    process.kill()
    process.wait()
    until(lambda: is_over(step))
    assert step.seen.state is JobState.LOST
    assert "ended from outside" in step.error
    assert "Go on with it" in step.error
    assert step.can_resume


def test_the_same_said_where_nothing_was_learned_yet(facts, camera, speaking):
    facts.connect(camera)
    step = Train(facts)
    job, tell = speaking("train", ("train", "run", "--out", "m"))
    step.adopt(job)
    tell("ended", status=1, error="no room in memory; take a smaller patch")
    step.tick()
    assert "Go on with it" not in step.error


def test_a_folder_that_vanished_is_said_and_comes_back_with_its_disk(facts, camera, make_bundle):
    facts.workspace.path.mkdir(parents=True)
    facts.workspace.library.promote(make_bundle(), "for the test")
    facts.connect(camera)
    step, away = Live(facts), facts.workspace.path.with_name("unplugged disk")
    assert step.missing() == ""
    facts.workspace.path.rename(away)
    assert not step.start()
    assert "is not there any more; connect its disk again" in step.snapshot().error
    assert "choose another folder" in step.snapshot().missing
    away.rename(facts.workspace.path)
    assert step.why_not() == ""


# ------------------------------------------------------ the real programs, which take seconds


@pytest.mark.long
def test_a_micro_manager_that_is_closed_in_mid_run_is_said_and_connected_anew(tmp_path):
    server = Path(__file__).parents[1] / "acquisition" / "microscope" / "micro_manager_server.py"
    control = tmp_path / "theirs"
    control.mkdir()
    theirs = subprocess.Popen(
        [sys.executable, str(server), str(control)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    port = int(theirs.stdout.readline())
    session = Session(tmp_path / "state")
    choice = MicroscopeChoice(kind="attach", port=port, roi=ROI, exposure_ms=5)
    session.facts.remember(workspace=tmp_path / "her folder", microscope=choice)
    try:
        assert session.connect.start()
        until(lambda: is_over(session.connect))
        assert session.facts.microscope is not None, session.connect.error
        session.record.choose(frames=10_000)
        assert session.record.start()
        until(lambda: session.record.tick() or recorded(session.record) > 5)
    finally:
        theirs.kill()
        theirs.communicate()
    until(lambda: is_over(session.record))
    assert "has ended; what was recorded until then is kept" in session.record.error
    assert "Start Micro-Manager again" in session.record.error
    run = session.facts.recording
    assert (
        len(open_stack(run)) - open_stack(run).absent == written_frames(run / "raw.ome.zarr").sum()
    )
    assert session.facts.microscope is None  # it has to be connected anew
    assert session.record.why_not() == "connect a microscope first"


@pytest.mark.long
@pytest.mark.skipif(sys.platform != "linux", reason="no limit on a running program elsewhere")
def test_a_disk_that_takes_no_more_is_said_and_what_it_took_is_kept(tmp_path):
    import resource

    session = Session(tmp_path / "state")
    session.facts.remember(workspace=tmp_path / "her folder")
    assert session.connect.start()
    until(lambda: is_over(session.connect))
    session.record.choose(frames=3000)
    assert session.record.start()
    until(lambda: session.record.tick() or recorded(session.record))
    pid = json.loads((session.record.job.folder / ABOUT).read_text(encoding="utf-8"))["pid"]
    psutil.Process(pid).rlimit(resource.RLIMIT_FSIZE, (4096, 4096))
    until(lambda: is_over(session.record))
    assert "cannot be written" in session.record.error
    assert "check the disk" in session.record.error
    stack = open_stack(session.facts.recording)
    there = [stack.frame(int(i)) for i in stack.present_indices]
    assert len(there) >= 1
    assert all(frame.std() > 0 for frame in there)


@pytest.mark.long
def test_a_model_that_is_deleted_in_mid_run_costs_no_frame(tmp_path, make_bundle):
    session = Session(tmp_path / "state")
    session.facts.remember(workspace=tmp_path / "her folder", frames_live=60)
    assert session.connect.start()
    until(lambda: is_over(session.connect))
    facts = session.facts
    facts.workspace.path.mkdir(parents=True, exist_ok=True)
    bundle = make_bundle()
    facts.workspace.library.promote(bundle, "for the test")
    facts.find_models()
    assert session.live.start(), session.live.error
    until(lambda: session.live.tick() or recorded(session.live))
    shutil.rmtree(bundle)
    until(lambda: is_over(session.live), 120)
    run = session.live.run_path
    assert int(np.count_nonzero(written_frames(run / "raw.ome.zarr"))) == 60
    assert session.live.error == "" or "restore the bundle" in session.live.error
    assert not session.live.start()
    assert "is not there; restore the bundle" in session.live.snapshot().error
