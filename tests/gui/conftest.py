"""Jobs that are there without a program: the command's own voice writes what the window reads."""

import json
import os
import time

import psutil
import pytest

from quietscope.gui.job import ABOUT, Job
from quietscope.gui.steps.facts import Facts
from quietscope.reporting import told

CAMERA = {
    "camera": "Cam",
    "model": "DemoCamera-MultiMode",
    "simulated": True,
    "version": "MMCore",
    "frame_shape": [256, 256],
    "pixel_type": "uint16",
    "bit_depth": 16,
    "binning": 1,
    "roi": [128, 128, 256, 256],
    "exposure_ms": 50.0,
    "pixel_size_um": None,
    "channel_group": "Channel",
    "channels": ["DAPI", "FITC"],
    "focus_um": 0.0,
    "has_stage": True,
    "shutter": "",
    "fingerprint": {"camera": "DemoCamera-MultiMode", "pixel_type": "uint16"},
}


@pytest.fixture
def camera():
    return dict(CAMERA)


@pytest.fixture
def facts(tmp_path):
    made = Facts(tmp_path / "state")
    made.remember(workspace=tmp_path / "her folder")
    return made


@pytest.fixture
def speaking(tmp_path, monkeypatch):
    """Return a job of this very process, and the function by which a command speaks to it."""

    made = []

    def make(step="calibrate", words=("calibrate",), pid=None):
        folder = tmp_path / "state" / "jobs" / f"20260101-000000-{step}-{len(made)}"
        folder.mkdir(parents=True)
        made.append(folder)
        process = psutil.Process(pid or os.getpid())
        about = {
            "step": step,
            "words": list(words),
            "about": {},
            "began": time.time(),
            "pid": process.pid,
            "created": process.create_time(),
        }
        (folder / ABOUT).write_text(json.dumps(about), encoding="utf-8")
        # This process goes on, when its job has said its last word.
        monkeypatch.setattr("quietscope.gui.job.PATIENCE_S", -1.0)
        monkeypatch.setattr(told, "_folder", folder)
        monkeypatch.setattr(told, "_last", {})
        return Job.found(folder), told.tell

    return make
