import numpy as np
import pytest
from numpy.typing import NDArray

from quietscope.calibration.checks import multiplication
from quietscope.calibration.errors import CalibrationError
from quietscope.calibration.fit_camera import fit_camera
from quietscope.calibration.photon_transfer import PhotonTransfer
from quietscope.calibration.straight_line import Interval
from quietscope.storage.stack import Stack, stack_from_array

SHAPE = (64, 64)


def camera(
    electrons: float | NDArray,
    *,
    seed: int = 0,
    frames: int = 40,
    shape: tuple[int, int] = SHAPE,
    gain: float = 0.5,
    offset: float = 100.0,
    read_e: float = 2.0,
    em: bool = False,
) -> NDArray:
    """Simulate repeats: photoelectrons, an EM register where asked for, read noise, digitising."""
    rng = np.random.default_rng(seed)
    count = rng.poisson(np.broadcast_to(electrons, (frames, *shape))).astype(float)
    if em:
        count = rng.gamma(np.maximum(count, 1e-9))
    adu = gain * (count + rng.normal(0, read_e, count.shape)) + offset
    return np.clip(np.rint(adu), 0, 65535).astype(np.uint16)


def ladder(electrons: tuple[float, ...], *, seed: int = 0, **law: float) -> list[Stack]:
    return [
        stack_from_array(camera(e, seed=seed * 100 + i, **law), path=f"{e} electrons")
        for i, e in enumerate(electrons, start=1)
    ]


LEVELS = (10.0, 50.0, 200.0, 1000.0, 4000.0)


def dark(seed: int = 0, **law: float) -> Stack:
    return stack_from_array(camera(0.0, seed=seed * 100, **law), path="dark")


@pytest.mark.parametrize(("gain", "offset", "read_e"), [(0.5, 100, 2.0), (2.2, 30, 4.0)])
def test_gain_offset_and_read_noise_are_the_cameras(gain, offset, read_e):
    law = {"gain": gain, "offset": offset, "read_e": read_e}
    found = fit_camera(ladder(LEVELS, **law), dark=dark(**law)).photon_transfer
    assert found.gain_adu_per_e == pytest.approx(gain, rel=0.01)
    assert found.offset_adu == pytest.approx(offset, abs=0.05)
    assert found.read_noise_e == pytest.approx(read_e, rel=0.02)


@pytest.mark.long
@pytest.mark.slow
def test_confidence_intervals_hold_the_truth_nine_times_of_ten():
    # The mean of 20 independent cameras: 95 % intervals, so 17 of 20 is already unlikely (1.6 %).
    hits = np.zeros(3)
    for seed in range(20):
        stacks = [
            stack_from_array(camera(e, seed=1000 * seed + i, shape=(24, 24)), path=f"{i}")
            for i, e in enumerate((0.0, 20.0, 100.0, 500.0, 2000.0))
        ]
        law = fit_camera(stacks[1:], dark=stacks[0]).photon_transfer
        for place, (interval, truth) in enumerate(
            ((law.gain, 0.5), (law.offset, 100.0), (law.read_noise, 2.0))
        ):
            hits[place] += interval.low <= truth <= interval.high
    assert (hits >= 17).all(), hits


def test_slow_lamp_drift_does_not_enter_the_gain():
    frames = 40
    drift = np.linspace(0.99, 1.01, frames)[:, None, None]
    stacks = [
        stack_from_array(camera(e * drift, seed=i, frames=frames), path=f"{e}")
        for i, e in enumerate(LEVELS)
    ]
    found = fit_camera(stacks, dark=dark()).photon_transfer
    # A plain variance over the repeats would be 2.7 times too large at the brightest level.
    assert found.gain_adu_per_e == pytest.approx(0.5, rel=0.01)


def test_one_static_scene_gives_the_gain_as_a_ladder_does():
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    scene = 20 + 1500 * np.exp(-((y - 30) ** 2 + (x - 25) ** 2) / 300)
    stack = stack_from_array(camera(scene, frames=60), path="scene")
    found = fit_camera([stack], offset_adu=100.0)
    assert found.photon_transfer.gain_adu_per_e == pytest.approx(0.5, rel=0.03)
    assert len(found.levels) > 4


def test_without_dark_or_offset_only_the_gain_is_claimed():
    found = fit_camera(ladder(LEVELS))
    result = found.result()
    assert result["offset_adu"] is None
    assert result["read_noise_e"] is None
    assert result["gain_adu_per_e"] == pytest.approx(0.5, rel=0.01)
    assert any("give --dark or --offset" in line for line in found.summary())


def test_a_known_offset_separates_read_noise_from_offset():
    found = fit_camera(ladder(LEVELS, read_e=6.0), offset_adu=100.0).photon_transfer
    assert found.read_noise_e == pytest.approx(6.0, rel=0.1)
    mapped = fit_camera(ladder(LEVELS, read_e=6.0), offset_adu=np.full(SHAPE, 100.0))
    assert mapped.photon_transfer.offset_adu == 100.0


def test_excess_noise_of_a_multiplying_camera_is_named():
    law = {"gain": 20.0, "offset": 500.0, "em": True}
    found = fit_camera(ladder((5.0, 20.0, 60.0, 200.0), **law), dark=dark(**law))
    assert found.photon_transfer.excess_noise
    assert found.photon_transfer.photoelectron_gain_adu_per_e == pytest.approx(20.0, rel=0.05)
    assert any("electron-multiplying" in line for line in found.summary())
    plain = fit_camera(ladder(LEVELS, gain=20.0), dark=dark(gain=20.0))
    assert not plain.photon_transfer.excess_noise


def test_offsets_that_rounding_splits_are_both_inside_the_interval():
    # A camera that truncates once less in the dark: means of 100.5 without and 100 with light.
    stacks = ladder(LEVELS)
    raised = camera(0.0)
    raised[::2] += 1
    exposures = [e / 10 for e in LEVELS]
    law = fit_camera(
        stacks, dark=stack_from_array(raised, path="dark"), exposures_ms=exposures
    ).photon_transfer
    assert law.offset.low < 100.1
    assert law.offset.high > 100.4
    assert law.offset_adu == pytest.approx(100.25, abs=0.1)


def test_saturated_levels_are_found_and_kept_out():
    stacks = ladder((10.0, 50.0, 200.0, 1000.0))
    full = np.minimum(camera(4000.0, seed=9), 2000)
    found = fit_camera([*stacks, stack_from_array(full, path="full")], dark=dark())
    assert found.photon_transfer.saturation_adu == 2000
    assert found.photon_transfer.saturation_reached
    assert found.photon_transfer.gain_adu_per_e == pytest.approx(0.5, rel=0.01)
    assert len(found.levels) == 4


@pytest.mark.parametrize(
    ("stacks", "message"),
    [
        ([], "none given"),
        ([stack_from_array(camera(50.0, frames=1), path="one.tif")], "one.tif: 1 frame, expected"),
        (ladder((50.0,)), "at least two different ones"),
        (
            [*ladder((10.0,)), stack_from_array(camera(50.0, shape=(32, 32)), path="small.tif")],
            "small.tif: frames of",
        ),
        ([stack_from_array(np.full((9, 64, 64), 65535, np.uint16), path="x")], "saturates"),
    ],
)
def test_levels_that_cannot_be_used_are_refused_in_one_line(stacks, message):
    with pytest.raises(CalibrationError, match=message) as error:
        fit_camera(stacks)
    assert "\n" not in str(error.value)


def test_variance_that_falls_with_light_is_refused():
    rng = np.random.default_rng(0)
    stacks = [
        stack_from_array(np.rint(rng.normal(mean, spread, (20, 32, 32))).astype(np.uint16))
        for mean, spread in ((200, 20), (400, 10), (800, 5))
    ]
    with pytest.raises(CalibrationError, match="variance falls with light"):
        fit_camera(stacks)


@pytest.mark.parametrize(
    ("ratio", "failed"),
    [
        (Interval(1.42, 1.08, 1.77), True),  # a register that multiplies by 2, of few frames
        (Interval(0.94, 0.82, 1.05), False),
        (Interval(1.10, 1.02, 1.18), False),
        (Interval(1.42, 0.60, 2.30), False),  # nothing is known
    ],
)
def test_noise_that_may_be_multiplied_is_not_passed_over(ratio, failed):
    plain = PhotonTransfer(
        gain=Interval(1.5, 1.47, 1.53),
        intercept_adu2=10.0,
        offset=None,
        read_noise=None,
        dark_variance_adu2=10.0,
        saturation_adu=65535.0,
        excess_noise_ratio=ratio,
    )
    found = multiplication(plain)
    assert (found is not None and not found.passed) is failed
    if found is not None:
        assert "switch the EM gain off" in found.advice
