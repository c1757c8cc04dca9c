"""The night's process stands still while a session is live, and never outlasts its night."""

from __future__ import annotations

import subprocess
import sys
import threading
import time

import psutil
import pytest

from quietscope.training.retraining import supervision
from quietscope.training.retraining.supervision import supervise

BUSY = "import sys\nprint('begun', flush=True)\nwhile True: pass"


class Microscope:
    """Somebody who is live, or not."""

    def __init__(self):
        self.live = False

    def __call__(self):
        return "a session" if self.live else None


def used_s(process):
    times = process.cpu_times()
    return times.user + times.system


def test_it_gives_the_cores_back_within_two_seconds_whatever_it_does():
    microscope, watched, found = Microscope(), [], []

    def look():
        while not watched:
            time.sleep(0.01)
        process = psutil.Process(watched[0])
        time.sleep(0.5)
        microscope.live = True
        time.sleep(2.0)
        before = used_s(process)
        time.sleep(0.6)
        found.append(used_s(process) - before)
        microscope.live = False
        time.sleep(1.2)
        found.append(used_s(process) - before)
        process.kill()

    looking = threading.Thread(target=look)
    looking.start()
    ended = supervise(
        [sys.executable, "-c", BUSY],
        until=None,
        live=microscope,
        on_start=watched.append,
        settled_s=0.3,
    )
    looking.join()
    assert found[0] == 0.0, "it computed on while the session was live"
    assert found[1] > 0.1, "it did not go on afterwards"
    assert 2.0 < ended.waited_s < 6.0
    assert ended.lines == ["begun"]


CLOCK = """
import time
from quietscope.training.working_clock import watch_for_halts, working_s
watch_for_halts()
began, worked = time.monotonic(), working_s()
print("begun", flush=True)
while time.monotonic() - began < 4.5:
    time.sleep(0.1)
print(working_s() - worked, flush=True)
"""


def test_the_budget_does_not_count_what_the_process_was_halted_for():
    child = subprocess.Popen([sys.executable, "-c", CLOCK], stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdout.readline() == "begun\n"
        psutil.Process(child.pid).suspend()
        time.sleep(4.0)
        psutil.Process(child.pid).resume()
        assert float(child.stdout.readline()) < 1.5
    finally:
        child.kill()
        child.wait()
        child.stdout.close()


def test_it_is_ended_when_the_night_is(monkeypatch):
    monkeypatch.setattr(supervision, "OVERTIME_S", 0.2)
    ended = supervise([sys.executable, "-c", BUSY], until=time.time(), live=lambda: None)
    assert ended.overran
    assert ended.status != 0


def test_what_slept_over_the_end_of_the_night_may_still_write_its_checkpoint():
    """The clock jumped by hours while the computer slept: no reason to kill it on waking."""
    code = "import time; time.sleep(0.3); print('checkpoint written')"
    command = [sys.executable, "-c", code]
    ended = supervise(command, until=time.time() - 6 * 3600, live=lambda: None)
    assert not ended.overran
    assert ended.lines == ["checkpoint written"]


def test_what_it_said_and_how_it_ended_is_known():
    code = "import sys; print('{}'); print('it broke', file=sys.stderr); sys.exit(7)"
    said = []
    ended = supervise(
        [sys.executable, "-c", code], until=None, live=lambda: None, on_line=said.append
    )
    assert (ended.status, ended.lines, ended.last_words) == (7, ["{}"], ["it broke"])
    assert said == ["it broke"]


def test_nothing_is_left_when_the_service_is_interrupted():
    left = []

    def interrupt():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        supervise([sys.executable, "-c", BUSY], until=None, live=interrupt, on_start=left.append)
    assert not psutil.pid_exists(left[0])
