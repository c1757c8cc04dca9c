"""The ladder is recorded with Micro-Manager's own core and its demo camera."""

import numpy as np
import pytest

from quietscope.acquisition.errors import AcquisitionError, MicroscopeError
from quietscope.acquisition.light_ladder import (
    Light,
    ladder_values,
    record_ladder,
)
from quietscope.acquisition.microscope.core import MicroscopeSettings, open_microscope
from quietscope.calibration.fit_camera import fit_camera

ROI = (100, 100, 128, 128)


@pytest.fixture
def microscope():
    with open_microscope(MicroscopeSettings(exposure_ms=5.0, roi=ROI)) as opened:
        yield opened


def test_the_demo_cameras_law_is_found(microscope, tmp_path):
    microscope.set_property("Photon Conversion Factor", 2.0)
    microscope.set_property("ReadNoise (electrons)", 6.0)
    with record_ladder(
        microscope, levels=6, frames_per_level=20, light=Light("exposure", low=0.2, high=30.0)
    ) as ladder:
        found = fit_camera(
            ladder.levels, dark=ladder.dark, fingerprint=microscope.fingerprint()
        ).photon_transfer
    assert found.gain_adu_per_e == pytest.approx(0.5, rel=0.01)
    assert found.offset_adu == pytest.approx(99.25, abs=0.5)
    assert found.read_noise_e == pytest.approx(6.0, rel=0.05)


def test_settings_are_put_back(microscope):
    before = (microscope.exposure_ms, microscope.property_or_none("Mode"))
    with record_ladder(microscope, levels=3, frames_per_level=4) as ladder:
        assert len(ladder.levels) == 3
        folder = ladder.directory
        assert (microscope.exposure_ms, microscope.property_or_none("Mode")) == before
    assert not folder.exists()


def test_stacks_can_be_kept_with_their_exposure(microscope, tmp_path):
    keep = tmp_path / "light levels"
    with record_ladder(microscope, levels=3, frames_per_level=4, keep=keep) as ladder:
        exposures = ladder.exposures_ms
    from quietscope.calibration.fit_camera import recorded_exposure_ms
    from quietscope.storage.open_stack import open_stack

    stacks = [open_stack(path) for path in sorted(keep.glob("level-*.ome.zarr"))]
    assert [recorded_exposure_ms(stack) for stack in stacks] == pytest.approx(exposures)
    assert all(len(stack) == 4 for stack in stacks)
    means = [stack.frame(0).mean() for stack in stacks]
    assert means == sorted(means)


def test_light_by_a_named_property_and_saturation_kept_out(microscope):
    # 100 ms at the highest flux is far beyond what the camera can hold.
    microscope.exposure_ms = 60.0
    light = Light("property", device=microscope.camera, name="Photon Flux", low=10, high=5000)
    with record_ladder(microscope, levels=5, frames_per_level=4, light=light) as ladder:
        assert len(ladder.saturated) == 1
        assert 2 <= len(ladder.levels) < 5
        brightest = ladder.levels[-1].frame(0)
    assert brightest.max() < 65535


def test_light_by_hand_asks_for_every_level(microscope):
    asked = []

    def person(sentence: str) -> None:
        asked.append(sentence)
        microscope.exposure_ms = 2.0 * len(asked)

    with record_ladder(
        microscope, levels=3, frames_per_level=4, light=Light("hand"), prompt=person
    ) as ladder:
        assert len(ladder.levels) == 3
    assert len([sentence for sentence in asked if sentence.startswith("Light level")]) == 3


def test_progress_shows_the_curve_growing(microscope):
    lines = []
    with record_ladder(
        microscope,
        levels=4,
        frames_per_level=5,
        on_progress=lambda line, done, total: lines.append((line, done, total)),
    ):
        pass
    assert [done for _, done, _ in lines] == list(range(1, 26))
    assert {total for _, _, total in lines} == {25}
    assert "ADU/e⁻" in lines[-1][0]


def test_too_much_light_is_said(microscope):
    light = Light("property", device=microscope.camera, name="Photon Flux", low=4000, high=5000)
    microscope.exposure_ms = 50.0
    with (
        pytest.raises(AcquisitionError, match="use less light"),
        record_ladder(microscope, levels=3, frames_per_level=4, light=light),
    ):
        pass


def test_an_unknown_property_is_named(microscope):
    light = Light("property", device=microscope.camera, name="Lamp")
    with (
        pytest.raises(MicroscopeError, match=r"has no property Lamp; it has .*Photon Flux"),
        record_ladder(microscope, levels=3, frames_per_level=4, light=light),
    ):
        pass


def test_an_error_while_writing_reaches_the_user_as_itself(microscope, monkeypatch):
    from quietscope.storage.atomic_output import OutputError

    def full(self, *args, **kwargs):
        raise OutputError("disk full")

    monkeypatch.setattr("quietscope.storage.ome_zarr_writer.OmeZarrWriter.write", full)
    with (
        pytest.raises(OutputError, match="disk full"),
        record_ladder(microscope, levels=3, frames_per_level=4),
    ):
        pass


def test_ladder_values_sample_the_noise_evenly():
    values = ladder_values(1.0, 100.0, 10)
    assert values[0] == pytest.approx(1)
    assert values[-1] == pytest.approx(100)
    assert np.ptp(np.diff(np.sqrt(values))) < 1e-9
