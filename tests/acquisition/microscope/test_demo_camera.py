"""The specimen before the demo camera: its law is the camera's, and what it shows is recorded."""

from __future__ import annotations

import time

import numpy as np
import pytest

from quietscope.acquisition import LiveDenoiser
from quietscope.acquisition.microscope.core import MicroscopeSettings, open_microscope
from quietscope.acquisition.microscope.demo_camera import (
    SpecimenBeforeCamera,
    camera_law,
    show_even_field,
)
from quietscope.acquisition.microscope.planned_events import planned_events
from quietscope.acquisition.run_acquisition import run_acquisition
from quietscope.storage.open_stack import open_stack

SETTINGS = MicroscopeSettings(roi=(0, 0, 96, 64), specimen=True)


@pytest.fixture
def microscope():
    with open_microscope(SETTINGS) as opened:
        yield opened


@pytest.mark.parametrize("electrons_per_adu", [0.5, 2.0])
@pytest.mark.parametrize("pixel_type", ["8bit", "16bit"])
def test_the_specimen_has_the_law_of_the_camera(microscope, electrons_per_adu, pixel_type):
    """Mean and variance of the camera's own even field, and of the law at the same light."""
    microscope.set_property("PixelType", pixel_type)
    microscope.set_property("Photon Conversion Factor", electrons_per_adu)
    microscope.set_property("ReadNoise (electrons)", 1.5)
    show_even_field(microscope)
    microscope.set_property("Photon Flux", 2.0)
    microscope.exposure_ms = 20.0
    own = np.stack([microscope.snap()[0] for _ in range(8)]).astype(float)
    law = camera_law(microscope)
    drawn = law.observe(np.full((8, 64, 96), 40.0), np.random.default_rng(0)).astype(float)
    assert own.mean() == pytest.approx(drawn.mean(), abs=0.5)
    assert own.var(axis=0).mean() == pytest.approx(drawn.var(axis=0).mean(), rel=0.04)


def test_raw_is_what_the_camera_gave(microscope, tmp_path):
    specimen, given = SpecimenBeforeCamera(microscope), {}

    def observe(metadata):
        given[metadata["Axes"]["time"]] = image = specimen.observe(metadata)
        return image

    with LiveDenoiser(output=tmp_path / "run", mode="sink", microscope=microscope) as live:
        run_acquisition(live, planned_events(microscope, 12), observe=observe)
    raw = open_stack(tmp_path / "run")
    assert len(raw) == 12
    for index in range(12):
        np.testing.assert_array_equal(raw.frame(index), given[index])
    assert live.report["simulated"] is True
    assert live.report["camera"]["camera"] == "DemoCamera-MultiMode"


def test_it_is_alive_noisy_and_never_twice_the_same(microscope):
    one = SpecimenBeforeCamera(microscope, first_index=0)
    two = SpecimenBeforeCamera(microscope, first_index=0)
    now = {"Axes": {"time": 0}, "Exposure": 50.0}
    first, again = (s.observe(now).astype(float) for s in (one, two))
    truth = one.specimen.truth(0)
    # Two runs see one specimen, each with noise of its own.
    assert np.corrcoef(first.ravel() - truth.ravel(), again.ravel() - truth.ravel())[0, 1] < 0.1
    assert (first - truth).mean() == pytest.approx(0, abs=0.2)
    assert np.abs(one.specimen.truth(300) - truth).mean() > 1


def test_light_grows_with_the_exposure(microscope):
    specimen = SpecimenBeforeCamera(microscope, first_index=0)
    light = [
        np.mean([specimen.observe({"Axes": {"time": 0}, "Exposure": ms}) for _ in range(4)])
        - 99.25
        for ms in (50.0, 200.0)
    ]
    assert light[1] / light[0] == pytest.approx(4, rel=0.1)


def test_place_plane_and_channel_show_something_else(microscope):
    specimen = SpecimenBeforeCamera(microscope, first_index=0)

    def seen(**tags):
        axes = {"time": 0, **({"channel": tags.pop("channel")} if "channel" in tags else {})}
        return specimen._photoelectrons({"Axes": axes, "Exposure": 50.0, **tags})

    here = seen()
    assert np.corrcoef(here.ravel(), seen(channel="FITC").ravel())[0, 1] > 0.99
    assert np.corrcoef(here.ravel(), seen(channel="DAPI").ravel())[0, 1] < 0.98
    there = seen(XPosition_um_Intended=500.0, YPosition_um_Intended=0.0)
    assert np.corrcoef(here.ravel(), there.ravel())[0, 1] < 0.8
    blurred = seen(ZPosition_um_Intended=5.0)
    assert np.abs(np.diff(blurred)).mean() < 0.7 * np.abs(np.diff(here)).mean()
    assert blurred.mean() == pytest.approx(here.mean(), rel=0.05)


def test_the_camera_is_left_as_it_was():
    with open_microscope(SETTINGS) as before:
        SpecimenBeforeCamera(before)
        assert before.property_or_none("FastImage") == "1"
        assert before.exposure_ms == 50
    with open_microscope(MicroscopeSettings()) as after:
        assert after.property_or_none("FastImage") == "0"
        assert after.exposure_ms == 10


def test_a_specimen_slower_than_the_camera_keeps_the_camera_waiting(microscope, monkeypatch):
    """Else the camera's buffer would overflow, and frames of a simulation be lost."""
    specimen = SpecimenBeforeCamera(microscope)
    microscope.exposure_ms = 500.0
    assert SpecimenBeforeCamera(microscope).least_interval_s() == 0
    observe = specimen.observe
    monkeypatch.setattr(specimen, "observe", lambda tags: (time.sleep(0.1), observe(tags))[1])
    interval_s = specimen.least_interval_s()
    assert 0.14 < interval_s < 1
    events = planned_events(microscope, 3, least_interval_s=interval_s)
    assert [event["min_start_time"] for event in events] == pytest.approx(
        [0, interval_s, 2 * interval_s]
    )
