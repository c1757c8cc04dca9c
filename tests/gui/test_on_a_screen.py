"""The program itself on a virtual screen, with the mouse and the keys of that screen.

Skipped where there is no Xvfb, no xdotool, or Qt cannot be loaded for X11.
"""

import json
import os
import shutil
import subprocess
import sys
import time

import pytest

from quietscope.gui.job import Job, JobState

SCREEN = ":93"


@pytest.fixture
def screen(tmp_path):
    """Give the environment of a new virtual screen and an empty home."""
    for program in ("Xvfb", "xdotool"):
        if shutil.which(program) is None:
            pytest.skip(f"no {program} here")
    environment = {**os.environ, "DISPLAY": SCREEN, "QT_QPA_PLATFORM": "xcb"}
    environment |= {"HOME": str(tmp_path), "XDG_STATE_HOME": str(tmp_path / "state")}
    asked = "from quietscope.acquisition.preview.qt_platform import obstacle; print(obstacle())"
    found = subprocess.run(
        [sys.executable, "-c", asked], env=environment, capture_output=True, text=True
    )
    if found.stdout.strip():
        pytest.skip(found.stdout.strip())
    command = ["Xvfb", SCREEN, "-screen", "0", "1400x900x24", "-nolisten", "tcp"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as x:
        yield environment
        x.terminate()


def until(what, patience_s=60.0):
    end = time.monotonic() + patience_s
    while not (found := what()):
        assert time.monotonic() < end
        time.sleep(0.1)
    return found


@pytest.mark.long
def test_keys_and_mouse_of_a_screen_reach_the_steps(screen, tmp_path):
    def tool(*words):
        done = subprocess.run(["xdotool", *words], env=screen, capture_output=True, text=True)
        return done.stdout.split()

    def jobs(step):
        folders = sorted((tmp_path / "state").rglob(f"*-{step}-*/job.json"))
        return [job for job in map(Job.found, (f.parent for f in folders)) if job is not None]

    with subprocess.Popen([sys.executable, "-m", "quietscope.cli"], env=screen) as window:
        (shown, *_) = until(lambda: tool("search", "--onlyvisible", "--name", "^quietscope$"))
        tool("windowfocus", shown)
        # The list on the left: with the mouse to the last step, with the keys back to the first.
        tool("mousemove", "--window", shown, "100", "370", "click", "1")
        tool("key", "ctrl+1")
        until(lambda: jobs("connect") or (tool("key", "ctrl+Return"), time.sleep(1))[0:0])
        (job,) = jobs("connect")
        until(lambda: not job.read().running)
        assert job.read().state is JobState.DONE
        assert job.read().result["simulated"]
        kept = until(lambda: next((tmp_path / "state").rglob("window.json"), None))
        window.kill()
    assert json.loads(kept.read_text(encoding="utf-8"))["microscope"]["kind"] == "demo"
