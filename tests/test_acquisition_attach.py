"""Following a camera that somebody else runs, and the bridge to Java as far as it goes without it.

The bridge hands images over as flat arrays with a dictionary of tags (recorded from the documented
behaviour of pycro-manager's Java core); everything behind that is the same code as elsewhere.
"""

from __future__ import annotations

import time
from types import SimpleNamespace

import numpy as np
import pytest

from quietscope.acquisition import LiveDenoiser
from quietscope.acquisition.follow import follow, is_running
from quietscope.acquisition.microscope import Microscope, MicroscopeSettings, open_microscope
from quietscope.stacks import open_stack


class BridgeCore:
    """Answers as pycro-manager's Java core does while the window's live mode is on."""

    def __init__(self, images):
        self.images = list(images)
        self.number = -1

    def is_sequence_running(self):
        return self.number < len(self.images) - 1

    def get_exposure(self):
        return 4.0

    def get_roi(self):
        return SimpleNamespace(x=4, y=8, width=24, height=16)

    def get_camera_device(self):
        return "Camera"

    def has_property(self, camera, name):
        return name == "Binning"

    def get_property(self, camera, name):
        return "2x2"

    def get_last_tagged_image(self):
        self.number += 1
        if self.number == 0:
            raise Exception("java.lang.Exception: Camera image buffer read failed")
        image = self.images[self.number]
        tags = {"Height": image.shape[0], "Width": image.shape[1], "Camera": "Camera"}
        return SimpleNamespace(pix=image.ravel(), tags={**tags, "ImageNumber": str(self.number)})


def test_images_come_over_the_bridge(tmp_path):
    images = np.random.default_rng(0).integers(0, 4096, (12, 16, 24)).astype("uint16")
    microscope = Microscope(BridgeCore(images), MicroscopeSettings(attach=True))
    assert microscope.roi == (8, 16, 48, 32)  # a java.awt.Rectangle, in sensor pixels
    with LiveDenoiser(output=tmp_path / "run", mode="sink", raise_on_gap=False) as live:
        follow(microscope, live, 100)
    np.testing.assert_array_equal(list(open_stack(tmp_path / "run")), images[1:])


def test_a_live_mode_is_followed_and_goes_on(tmp_path):
    """The real core runs its camera by itself, as the window's live mode does."""
    with open_microscope(MicroscopeSettings(exposure_ms=5, roi=(0, 0, 64, 64))) as microscope:
        assert not is_running(microscope)
        microscope.set_property("Mode", "Noise")  # no two images are alike
        microscope.core.start_continuous_sequence_acquisition(0)
        try:
            with LiveDenoiser(output=tmp_path / "run", mode="sink", raise_on_gap=False) as live:
                follow(microscope, live, 15)
            assert is_running(microscope)
        finally:
            microscope.core.stop_sequence_acquisition()
    frames = np.stack(list(open_stack(tmp_path / "run")))
    assert frames.shape == (15, 64, 64)
    assert len({frame.tobytes() for frame in frames}) == 15


def test_following_ends_when_the_camera_stops(tmp_path):
    with open_microscope(MicroscopeSettings(exposure_ms=5, roi=(0, 0, 64, 64))) as microscope:
        microscope.core.start_sequence_acquisition(20, 0, True)
        began = time.monotonic()
        with LiveDenoiser(output=tmp_path / "run", mode="sink", raise_on_gap=False) as live:
            follow(microscope, live, 10_000)
        assert time.monotonic() - began < 30
    assert live.report["frames_recorded"] <= 20


@pytest.mark.parametrize("command", ["record", "live"])
def test_attaching_to_nothing_says_what_to_do(command, tmp_path):
    from quietscope.acquisition.commands import COMMANDS
    from quietscope.acquisition.errors import MicroscopeError

    options = {"model": [str(tmp_path)]} if command == "live" else {}
    with pytest.raises(MicroscopeError, match="Run server on port"):
        COMMANDS[command](out=tmp_path / "run", attach=True, port=1, **options)
