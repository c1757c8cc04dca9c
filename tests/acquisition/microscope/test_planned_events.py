"""What will be acquired, and that the microscope stands afterwards as it stood before."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from pycromanager import Acquisition

from quietscope.acquisition.errors import AcquisitionError, MicroscopeError
from quietscope.acquisition.microscope.core import MicroscopeSettings, open_microscope
from quietscope.acquisition.microscope.planned_events import (
    planned_events,
    planned_planes,
    read_positions,
)

SMALL = MicroscopeSettings(roi=(0, 0, 64, 64))


def test_positions_from_csv_and_from_micro_manager(tmp_path):
    plain = tmp_path / "positions.csv"
    plain.write_text("x_um,y_um\n1.5,2\n3,4.25\n", encoding="utf-8")
    assert read_positions(plain) == [(1.5, 2.0), (3.0, 4.25)]
    entry = {
        "DefaultXYStage": {"type": "STRING", "scalar": "XY"},
        "DevicePositions": {
            "type": "PROPERTY_MAP",
            "array": [
                {
                    "Device": {"type": "STRING", "scalar": "Z"},
                    "Position_um": {"type": "DOUBLE", "array": [7.0]},
                },
                {
                    "Device": {"type": "STRING", "scalar": "XY"},
                    "Position_um": {"type": "DOUBLE", "array": [10.0, -20.0]},
                },
            ],
        },
    }
    theirs = tmp_path / "list.pos"
    theirs.write_text(
        json.dumps({"map": {"StagePositions": {"type": "PROPERTY_MAP", "array": [entry]}}}),
        encoding="utf-8",
    )
    assert read_positions(theirs) == [(10.0, -20.0)]


@pytest.mark.parametrize(
    "text", ["", "{}", "one,two\nthree,four\n", "1\n2\n", "0,0\nnan,1\n", "1,inf\n"]
)
def test_a_file_that_is_no_position_list(tmp_path, text):
    file = tmp_path / "positions.csv"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(AcquisitionError, match=r"positions\.csv"):
        read_positions(file)


def test_a_channel_that_is_not_there_is_named():
    settings = MicroscopeSettings(channels=("Infrared",))
    with (
        open_microscope(settings) as microscope,
        pytest.raises(MicroscopeError, match=r"--channel Infrared: .* DAPI"),
    ):
        planned_events(microscope, 1)


@pytest.mark.parametrize(
    "roi", [(600, 0, 16, 16), (500, 0, 16, 16), (-1, 0, 16, 16), (0, 0, 0, 16), (0, 0, 2**40, 1)]
)
def test_a_region_that_the_sensor_does_not_have(roi):
    """The demo camera takes any, as some device adapters do: 2^31 pixels were computed on."""
    with open_microscope(SMALL) as before:
        with (
            pytest.raises(MicroscopeError, match="not on its sensor of 512×512 pixels"),
            open_microscope(replace(SMALL, roi=roi)),
        ):
            pass
        assert before.frame_shape == (64, 64)


def test_planned_events_cover_the_whole_plan(tmp_path):
    positions = tmp_path / "p.csv"
    positions.write_text("0,0\n5,5\n", encoding="utf-8")
    settings = MicroscopeSettings(channels=("DAPI", "FITC"), z_um=(0, 2, 1), positions=positions)
    with open_microscope(settings) as microscope:
        events = planned_events(microscope, 4)
    axes = {tuple(sorted(event["axes"].items())) for event in events}
    assert len(events) == len(axes) == 4 * 2 * 3 * 2


# ------------------------------------------------------------------------------ the focus


@pytest.fixture
def focused():
    """A microscope whose focus, stage and channel are where a person left them."""
    with open_microscope(SMALL) as microscope:
        microscope.core.set_position("Z", 25.0)
        microscope.core.set_xy_position("XY", 30.0, 60.0)
        microscope.core.wait_for_device("XY")
        microscope.core.set_config("Channel", "Cy5")
        yield microscope
        microscope.core.set_position("Z", 0.0)
        microscope.core.set_xy_position("XY", 0.0, 0.0)
        microscope.core.wait_for_device("XY")


def planes_of(settings):
    with open_microscope(settings) as microscope:
        planes = planned_planes(microscope)
        return planes, [event["z"] for event in planned_events(microscope, 1)]


def test_planes_are_counted_from_the_present_focus(focused):
    planes, z = planes_of(replace(SMALL, z_um=(-2, 2, 0.5)))
    assert z == pytest.approx([23, 23.5, 24, 24.5, 25, 25.5, 26, 26.5, 27])
    assert str(planes).startswith(
        "focus: 9 planes from 23 to 27 µm, 0.5 µm apart; it stands at 25"
    )


def test_absolute_planes_are_an_option(focused):
    assert planes_of(replace(SMALL, z_um=(0, 4, 2), z_absolute=True))[1] == [0, 2, 4]


@pytest.mark.parametrize(
    "z_um", [(0, 0.3, 0.1), (0, 1, 0.3), (1, 0, -0.2), (0, 0, 1), (-1, 1, 0.1)]
)
def test_no_plane_lies_beyond_the_end(focused, z_um):
    """Rounding must not add one: behind the end there may be a cover glass."""
    start, end, step = z_um
    planes, z = planes_of(replace(SMALL, z_um=z_um))
    assert len(z) == planes.count
    assert all(25 + min(start, end) - 1e-6 <= plane <= 25 + max(start, end) + 1e-6 for plane in z)
    assert abs(25 + end - z[-1]) < abs(step) - 1e-6


def test_all_is_as_it_was_after_an_error(focused, tmp_path):
    positions = tmp_path / "p.csv"
    positions.write_text("100,200\n", encoding="utf-8")
    settings = MicroscopeSettings(
        roi=(8, 8, 32, 32),
        exposure_ms=3,
        channels=("DAPI",),
        z_um=(-1, 1, 1),
        positions=positions,
    )

    def acquire_and_fail():
        with open_microscope(settings) as microscope:
            with Acquisition(
                image_process_fn=lambda image, tags: None, show_display=False
            ) as engine:
                engine.acquire(planned_events(microscope, 1))
            assert microscope.focus_um == pytest.approx(26)
            assert microscope.stage_um == pytest.approx((100, 200), abs=0.1)
            raise RuntimeError("a cable came off")

    exposure = focused.exposure_ms
    with pytest.raises(RuntimeError, match="cable"):
        acquire_and_fail()
    assert focused.focus_um == pytest.approx(25)
    assert focused.stage_um == pytest.approx((30, 60), abs=0.1)
    assert focused.core.get_current_config("Channel") == "Cy5"
    assert (focused.exposure_ms, focused.roi) == (exposure, (0, 0, 64, 64))


def test_planes_without_a_focus_drive(focused):
    focused.core.set_focus_device("")
    try:
        with pytest.raises(MicroscopeError, match="no focus drive in use"):
            planes_of(replace(SMALL, z_um=(0, 1, 1)))
    finally:
        focused.core.set_focus_device("Z")
