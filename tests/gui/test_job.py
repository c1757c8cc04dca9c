"""A command in a program of its own: what it says is read, and it never waits for the reader."""

import base64
import errno
import json
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from quietscope.gui.job import (
    CANCEL,
    EVENTS,
    KEPT_JOBS,
    Job,
    JobState,
    clear_old_jobs,
    running_jobs,
)
from quietscope.reporting import told
from quietscope.reporting.console import progress
from quietscope.storage.open_stack import open_stack


def until(job, state, patience_s=60):
    end = time.monotonic() + patience_s
    while job.read().state is not state:
        assert time.monotonic() < end, (job.read(), (job.folder / "said.txt").read_text())
        time.sleep(0.05)
    return job.read()


def test_a_display_of_progress_is_told(speaking):
    job, _ = speaking()
    with progress() as bar:
        task = bar.add_task("recording", total=40, note="")
        bar.update(task, completed=10, note="level 2", total=40)
    seen = job.read()
    assert (seen.task, seen.share, seen.note) == ("recording", 0.25, "level 2")
    assert seen.running


def test_time_left_follows_the_pace_of_the_task(speaking):
    job, tell = speaking()
    tell("progress", task="reading", completed=9, total=10)
    tell("progress", task="recording", completed=0, total=100)
    job.read()
    events = job.folder / EVENTS
    lines = [json.loads(line) for line in events.read_text().splitlines()]
    later = {**lines[-1], "completed": 25, "time": lines[-1]["time"] + 10}
    with events.open("a") as file:
        file.write(json.dumps(later) + "\n")
    assert job.read().seconds_left == pytest.approx(30)


def test_a_crop_comes_as_it_was(speaking):
    job, tell = speaking()
    image = np.arange(12, dtype="<f4").reshape(3, 4)
    text = base64.b64encode(image.tobytes()).decode()
    tell("tile", step=7, shape=image.shape, raw=text, denoised=text)
    np.testing.assert_array_equal(job.read().tile.denoised, image)


def test_half_a_line_and_a_strange_event_cost_nothing(speaking):
    job, tell = speaking()
    tell("level", name="dark", mean_adu=100.0, variance_adu2=6.0)
    tell("of tomorrow", colour="blue")
    with (job.folder / EVENTS).open("a") as file:
        file.write('{"event": "level", "ti\n{"event": "level", "time": 1}\n{"event": "lev')
    assert job.read().levels == ((100.0, 6.0),)
    with (job.folder / EVENTS).open("a") as file:
        file.write('el", "time": 2, "mean_adu": 200.0, "variance_adu2": 50.0}\n')
    assert job.read().levels == ((100.0, 6.0), (200.0, 50.0))


def test_what_a_full_disk_cut_off_takes_no_later_event_with_it(speaking, monkeypatch):
    job, tell = speaking()

    class Full:
        def __init__(self, file):
            self.file = file

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self.file.close()

        def write(self, text):
            self.file.write(text[:20])
            raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as full:
        opened = Path.open
        full.setattr(Path, "open", lambda path, *a, **k: Full(opened(path, *a, **k)))
        tell("say", text="of which the end is missing")
    tell("say", text="there is room again")
    assert job.read().remarks == ("there is room again",)


def test_a_question_waits_for_its_answer(speaking):
    job, _ = speaking()
    asked = threading.Thread(target=told.ask, args=("Cover the camera",))
    asked.start()
    while not job.read().question:
        time.sleep(0.01)
    assert job.read().question == "Cover the camera"
    job.answer()
    asked.join(5)
    assert not asked.is_alive()
    assert job.read().question == ""


def test_a_folder_that_has_gone_is_no_matter_of_the_command(speaking):
    job, tell = speaking()
    (job.folder / "job.json").unlink()
    job.folder.rmdir()
    tell("say", text="nobody hears this")  # and the recording goes on


def test_commands_answer_fail_and_are_found_by_another_window(tmp_path):
    """The real programs, all at once because each takes a second to start."""
    jobs = tmp_path / "Jürgen Groß" / "jobs"
    (tmp_path / "lib").mkdir()
    answers = Job.start(jobs, "overnight", ["models", "list", "--library", str(tmp_path / "lib")])
    fails = Job.start(jobs, "live", ["models", "list", "--library", str(tmp_path / "no such")])
    misused = Job.start(jobs, "record", ["record", "--no-such-option"])
    killed = Job.start(jobs, "train", ["demo", "--out", str(tmp_path / "demo")])
    assert {job.step for job in running_jobs(jobs)} >= {"train"}
    killed.kill()
    assert until(answers, JobState.DONE).result["models"] == []
    failed = until(fails, JobState.FAILED)
    assert "no such folder; give the library" in failed.error
    assert "--no-such-option" in until(misused, JobState.FAILED).error
    assert "ended from outside" in until(killed, JobState.LOST).error
    assert running_jobs(jobs) == []


def test_a_command_is_stopped_as_ctrl_c_would(tmp_path):
    # Waits for images that never come.
    (tmp_path / "saved").mkdir()
    words = ["record", "--out", str(tmp_path / "run"), "--saved-in", str(tmp_path / "saved")]
    job = Job.start(tmp_path / "jobs", "record", words)
    end = time.monotonic() + 60
    while not any("waiting for images" in line for line in job.read().remarks):
        assert time.monotonic() < end
        assert job.read().running, job.read().error
        time.sleep(0.05)
    again = Job.found(job.folder)  # another window
    again.cancel()
    assert (job.folder / CANCEL).exists()
    until(again, JobState.CANCELLED)
    until(job, JobState.CANCELLED)


def test_old_jobs_are_cleared_away_and_running_ones_are_not(tmp_path, speaking):
    job, _ = speaking()
    jobs = job.folder.parent
    for number in range(KEPT_JOBS + 3):
        (jobs / f"2027{number:04d}-000000-record-x").mkdir()
    clear_old_jobs(jobs)
    assert job.folder.is_dir()
    assert len(list(jobs.iterdir())) == KEPT_JOBS + 1


WINDOW = """
import sys, time
from pathlib import Path
from quietscope.gui.job import Job

job = Job.start(Path(sys.argv[1]), "record", sys.argv[2:])
while not job.read().counts:
    time.sleep(0.05)
print(job.folder, flush=True)
time.sleep(600)
"""


@pytest.mark.long
def test_a_recording_does_not_notice_that_its_window_is_killed(tmp_path):
    run = tmp_path / "run"
    words = ["record", "--out", str(run), "--frames", "60", "--roi", "0,0,128,128", "--preview"]
    command = [sys.executable, "-c", WINDOW, str(tmp_path / "jobs"), *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as window:
        folder = Path(window.stdout.readline().strip())
        window.kill()
    (again,) = running_jobs(tmp_path / "jobs")  # the next window
    assert again.folder == folder
    assert until(again, JobState.DONE).result["frames_recorded"] == 60
    assert len(open_stack(run)) == 60
