import numpy as np
import pytest

from quietscope.calibration.bootstrap import bootstrap_noise_model
from quietscope.calibration.errors import CalibrationError
from quietscope.storage.stack import stack_from_array


def cells(frames: int = 12, *, moving: bool = False, seed: int = 0) -> np.ndarray:
    """Electrons of a scene with smooth and structured parts, over a dim ground."""
    y, x = np.mgrid[:128, :128]
    rng = np.random.default_rng(seed)
    movie = np.full((frames, 128, 128), 15.0)
    for _ in range(12):
        cy, cx, size = *rng.uniform(10, 118, 2), rng.uniform(4, 14)
        for t in range(frames):
            shift = 0.7 * t if moving else 0.0
            movie[t] += 250 * np.exp(-((y - cy) ** 2 + (x - cx - shift) ** 2) / (2 * size**2))
    return movie


def recorded(electrons: np.ndarray, gain: float, offset: float, read_e: float, seed: int = 1):
    rng = np.random.default_rng(seed)
    adu = gain * (rng.poisson(electrons) + rng.normal(0, read_e, electrons.shape)) + offset
    return stack_from_array(np.clip(np.rint(adu), 0, 65535).astype(np.uint16), path="cells")


@pytest.mark.parametrize("moving", [False, True])
@pytest.mark.parametrize(("gain", "offset", "read_e"), [(1.0, 0.0, 0.0), (2.2, 100.0, 1.6)])
def test_ordinary_frames_give_the_cameras_noise(gain, offset, read_e, moving):
    stack = recorded(cells(moving=moving), gain, offset, read_e)
    found = bootstrap_noise_model([stack])
    assert found.source == "bootstrapped"
    assert found.photon_transfer.offset_adu is None
    electrons = np.array([20.0, 60.0, 150.0, 300.0])
    truth = gain**2 * (electrons + read_e**2)
    assert found.variance(offset + gain * electrons) == pytest.approx(truth, rel=0.12)
    assert found.photon_transfer.gain_adu_per_e == pytest.approx(gain, rel=0.08)


def test_less_than_a_photon_per_pixel_is_no_darker_than_it_is():
    # Sorted by their own brightness, dark and flat pixels are those where no photon fell.
    counts = recorded(cells(40) / 40, 1.0, 0.0, 0.0)
    signal = np.array([0.42, 0.5, 0.7, 1.5])
    assert bootstrap_noise_model([counts]).variance(signal) == pytest.approx(signal, rel=0.06)


def test_one_frame_is_enough_to_start():
    found = bootstrap_noise_model([recorded(cells(1), 1.0, 100.0, 2.0)])
    electrons = np.array([20.0, 100.0])
    assert found.variance(100 + electrons) == pytest.approx(electrons + 4, rel=0.2)


def test_a_denoiser_of_the_users_own_can_give_the_signal():
    electrons = cells()
    stack = recorded(electrons, 1.0, 0.0, 0.0)
    seen = []

    def perfect(frame: np.ndarray) -> np.ndarray:
        seen.append(frame.shape)
        return electrons[0]

    found = bootstrap_noise_model([stack], denoise=perfect)
    assert seen
    assert found.variance(np.array([50.0, 200.0])) == pytest.approx([50, 200], rel=0.08)


def test_the_same_frames_give_the_same_model():
    stack = recorded(cells(6), 1.0, 10.0, 1.0)
    first, second = bootstrap_noise_model([stack]), bootstrap_noise_model([stack])
    assert np.array_equal(first.variance_adu2, second.variance_adu2)


@pytest.mark.parametrize(
    ("stacks", "message"),
    [
        ([], "no frames given"),
        ([stack_from_array(np.full((4, 32, 32), 7, np.uint16))], "no noise at all"),
        ([stack_from_array(np.zeros((4, 8, 8), np.uint16), path="tiny.tif")], "tiny.tif"),
        (
            [
                stack_from_array(np.zeros((1, 32, 32), np.uint16)),
                stack_from_array(np.zeros((1, 32, 32), np.uint8), path="other.tif"),
            ],
            "other.tif: pixels of type uint8",
        ),
    ],
)
def test_what_cannot_be_used_is_refused(stacks, message):
    with pytest.raises(CalibrationError, match=message):
        bootstrap_noise_model(stacks)


@pytest.mark.long
@pytest.mark.realdata
def test_photon_counting_stacks_come_out_as_poisson(real_data):
    from quietscope.storage.open_stack import open_stack

    files = sorted((real_data / "nandb_fkbp_confocal").glob("*.tif"))[:2]
    found = bootstrap_noise_model([open_stack(path) for path in files])
    signal = np.array([1.0, 2.0, 5.0, 10.0, 20.0])
    assert found.variance(signal) == pytest.approx(signal, rel=0.1)
    assert found.photon_transfer.gain_adu_per_e == pytest.approx(1.0, abs=0.05)


def test_hot_pixels_in_the_dark_are_no_light():
    """Their noise is their own; taken for that of brightness it made a gain of 40 in the dark."""
    rng = np.random.default_rng(0)
    hot = np.random.default_rng(1).random((64, 64)) < 0.01
    dark = 100 + rng.normal(size=(12, 64, 64)) * np.where(hot, 60.0, 3.2)
    model = bootstrap_noise_model([stack_from_array(np.rint(np.clip(dark, 0, None)).astype("u2"))])
    assert not model.photon_transfer.gain_known
    # Of two overestimates the smaller one is taken, by chance a little too small.
    assert np.sqrt(model.variance(100.0)) == pytest.approx(3.2, rel=0.08)
