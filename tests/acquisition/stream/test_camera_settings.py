"""What images tell of their camera, in the words of both engines, whatever else they say."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quietscope.acquisition.sources.pycromanager_hook import FrameMaker
from quietscope.acquisition.stream.camera_settings import (
    camera_label,
    exposure_ms,
    pixel_size_um,
    settings_of,
)
from quietscope.acquisition.stream.camera_state import CameraState
from quietscope.calibration.fingerprint import CameraFingerprint

JAVA = {
    "Core-Camera": "Andor",
    "ROI": "10-20-6-4",
    "Binning": "2",
    "BitDepth": 12,
    "Andor-CameraName": "Zyla",
    "Andor-CameraID": "VSC-1",
    "Andor-Gain": "3",
    "Andor-Binning": "2",
}


def settings(tags, before=None, shape=(4, 6), pixel_type="uint16"):
    return settings_of(tags, shape, pixel_type, before or CameraFingerprint())


def test_javas_tags_hold_a_whole_fingerprint():
    assert settings(JAVA) == CameraFingerprint(
        camera="Zyla",
        serial="VSC-1",
        pixel_type="uint16",
        bit_depth=12,
        binning="2",
        gain_setting="Gain=3",
        roi=(20, 40, 12, 8),
    )


@pytest.mark.parametrize(
    ("change", "field", "value"),
    [
        ({"ROI": "11-20-6-4"}, "roi", (22, 40, 12, 8)),
        ({"Andor-Gain": "4"}, "gain_setting", "Gain=4"),
        ({"BitDepth": 16}, "bit_depth", 16),
        ({"Binning": "1", "Andor-Binning": "1"}, "binning", "1"),
    ],
)
def test_each_setting_is_read_from_each_image(change, field, value):
    before = settings(JAVA)
    after = settings({**JAVA, **change}, before)
    assert getattr(after, field) == value != getattr(before, field)


def test_what_an_image_does_not_tell_is_as_it_was():
    before = settings(JAVA)
    assert settings({"Core-Camera": "Andor"}, before) is before
    # But a region of before is none of an image that is not of its shape.
    assert settings({"Core-Camera": "Andor"}, before, shape=(5, 6)).roi is None


@pytest.mark.parametrize(
    "tags", [{"Core-Camera": "A"}, {"Camera": "A"}, {"Camera": "A", "Core-Camera": "B"}]
)
def test_a_burst_and_single_snaps_are_of_one_camera(tags):
    assert camera_label(tags) == "A"
    maker = FrameMaker(CameraState())
    image = np.zeros((4, 6), "uint16")
    first = maker.frame(image, {"time": 0}, tags, received_ns=0)
    snap = maker.frame(image, {"time": 1}, {"Core-Camera": "A"}, received_ns=0)
    assert (first.axes, snap.axes) == ({"time": 0}, {"time": 1})


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ({"Exposure": "7.5"}, 7.5),
        ({"Exposure-ms": 3}, 3),
        ({"Core-Camera": "Zyla", "Zyla-Exposure": "12.00"}, 12),  # of live mode
        ({"Exposure": "long", "Core-Camera": "Zyla", "Zyla-Exposure": 4}, 4),
        ({}, math.nan),
    ],
)
def test_exposure(tags, expected):
    assert exposure_ms(tags) == pytest.approx(expected, nan_ok=True)


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ({"PixelSizeUm": 0.65}, 0.65),
        ({"PixelSize_um": 1.0}, 1),
        ({"PixelSizeUm": 0}, None),
        ({}, None),
    ],
)
def test_pixel_size(tags, expected):
    assert pixel_size_um(tags) == expected


anything = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(), st.binary(),
    st.just("\ud800"), st.just([1]), st.just({"a": (1,)}), st.just(np.zeros(3)),
)  # fmt: skip


@given(
    st.dictionaries(
        st.sampled_from(
            [*JAVA, "Camera", "ROI-X-start", "ROI-Y-start", "Exposure", "Andor-BitDepth"]
        ),
        anything,
    ),
    st.dictionaries(st.sampled_from(["time", "z", "channel", "\ud800"]), anything),
)
def test_whatever_the_tags_are_the_image_becomes_a_frame(tags, axes):
    image = np.arange(24, dtype="uint16").reshape(4, 6)
    frame = FrameMaker(CameraState()).frame(image, axes, tags, received_ns=0)
    np.testing.assert_array_equal(frame.pixels, image)
    frame.camera.model_dump_json()
    assert all(isinstance(value, int | str) for value in frame.axes.values())
