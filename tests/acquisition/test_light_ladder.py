"""The ladder is recorded with Micro-Manager's own core and its demo camera."""

import numpy as np
import pytest

from quietscope.acquisition.errors import AcquisitionError, MicroscopeError
from quietscope.acquisition.light_ladder import (
    Light,
    ladder_values,
    record_ladder,
    require_dark,
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


def test_every_brightness_has_a_level_near_it():
    values = np.array(ladder_values(1.0, 4096.0, 13))
    assert values[[0, -1]] == pytest.approx([1, 4096])
    np.testing.assert_allclose(values[1:] / values[:-1], 2.0)


def test_a_range_from_nothing_is_evenly_spaced_in_the_noise():
    values = ladder_values(0.0, 100.0, 11)
    np.testing.assert_allclose(np.sqrt(values), np.arange(11), atol=1e-9)


@pytest.mark.slow
def test_the_ladder_reaches_from_the_noise_to_saturation(microscope):
    with record_ladder(microscope, levels=8, frames_per_level=4) as ladder:
        means = [stack.frame(0).mean() for stack in ladder.levels]
    assert 0.8 < means[-1] / 65535 < 0.9
    assert 99 < means[0] < 140


EXPOSURES_MS = np.geomspace(0.1, 300, 8)


@pytest.mark.parametrize("flux", [0.5, 20.0, 200.0])
def test_dark_frames_without_light_are_believed(flux):
    require_dark(100.4, 100 + flux * EXPOSURES_MS, EXPOSURES_MS, shutter="Shutter")


@pytest.mark.parametrize(
    ("dark_adu", "exposures_ms", "said"),
    [
        (1099.0, EXPOSURES_MS, "by the light levels it is 100 ADU at no exposure"),
        (120.0, EXPOSURES_MS, "the dimmest light level has only 101 ADU"),
        (120.0, None, "the dimmest light level has only 101 ADU"),
    ],
)
def test_dark_frames_that_are_lit_are_refused(dark_adu, exposures_ms, said):
    """A shutter that stays open: 10 ms of 100 ADU/ms, and a leak."""
    levels = (100 + 100 * EXPOSURES_MS) if dark_adu > 1000 else (100 + 10 * EXPOSURES_MS)
    if dark_adu > 1000:
        levels = levels[5:]
        exposures_ms = EXPOSURES_MS[5:]
    with pytest.raises(AcquisitionError, match=r"the shutter White Light stayed open") as refused:
        require_dark(dark_adu, levels, exposures_ms, shutter="White Light")
    assert said in str(refused.value)
    assert "--no-dark" in str(refused.value)


def test_a_bend_at_the_foot_of_the_range_is_no_light():
    """Two per cent less gain below 200 ADU, as where two amplifiers meet."""
    means = 100 + 20 * EXPOSURES_MS
    means = np.where(means < 200, 100 + 0.98 * (means - 100), means)
    require_dark(100.0, means, EXPOSURES_MS, shutter="")
