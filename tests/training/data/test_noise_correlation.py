"""Correlated noise: found by direction and reach, told from what moves, and said to the user."""

from __future__ import annotations

import time
from functools import partial

import numpy as np
import pytest
import torch
from scipy.ndimage import convolve1d, gaussian_filter

from quietscope.calibration.bootstrap import bootstrap_noise_model
from quietscope.inference.bundle import open_bundle
from quietscope.storage.stack import stack_from_array
from quietscope.training.data.noise_correlation import noise_correlation
from quietscope.training.data.recordings import load_recordings
from quietscope.training.methods import learner_of
from quietscope.training.options import TrainingOptions
from quietscope.training.train import fit, train

pytestmark = pytest.mark.usefixtures("one_thread")


def noise(shape=(12, 96, 96), *, along=None, kernel=(1, 1, 1), seed=0):
    """White noise of unit variance, or a running mean of it along an axis."""
    white = np.random.default_rng(seed).normal(size=shape)
    if along is None:
        return white
    weights = np.array(kernel, dtype=float)
    return convolve1d(white, weights / np.sqrt((weights**2).sum()), axis={"y": 1, "x": 2}[along])


def recorded(signal, noise, **axes):
    return stack_from_array(np.clip(np.rint(signal + noise), 0, None).astype(np.uint16), **axes)


def measured(stack):
    recordings = load_recordings([stack], context_frames=0, patch=32, memory_mib=64)
    return noise_correlation(recordings.resident)


def structure(shape=(96, 96)):
    y, x = np.mgrid[: shape[0], : shape[1]]
    return 500 + 200 * np.sin(x / 5) * np.cos(y / 9)


@pytest.mark.parametrize("axis", ["x", "y"])
@pytest.mark.parametrize("frames", [12, 1])
def test_direction_and_reach_are_found_over_structure(axis, frames):
    found = measured(recorded(structure(), 20 * noise((frames, 96, 96), along=axis)))
    assert found.axis() == axis
    assert found.span(axis) == 2
    assert found.along(axis) == pytest.approx(2 / 3, abs=0.05)
    other = "y" if axis == "x" else "x"
    assert abs(found.along(other)) < (0.05 if frames > 1 else 0.1)
    assert found.is_strong()


def test_white_photon_noise_has_no_span():
    frames = np.random.default_rng(0).poisson(np.broadcast_to(structure(), (12, 96, 96)))
    found = measured(stack_from_array(frames.astype(np.uint16)))
    assert found.span("x") == found.span("y") == 0
    assert not found.is_strong()


def test_what_moves_is_no_correlated_noise():
    """Cells of a tenth of the frame, twenty times as bright as the noise, jump about."""
    rng = np.random.default_rng(0)
    spots = np.zeros((12, 256, 256))
    for frame in spots:
        for y, x in rng.integers(0, 256, (40, 2)):
            frame[y, x] = 1
    cells = gaussian_filter(spots, (0, 3, 3))
    signal = 500 + 200 * cells / cells.max()
    found = measured(recorded(signal, 10 * noise((12, 256, 256))))
    assert not found.is_strong()


def test_drift_along_one_axis_is_no_correlated_noise():
    still = 500 + 2000 * gaussian_filter(np.random.default_rng(0).normal(size=(300, 300)), 6)
    drifting = np.stack([still[20:116, 3 * t : 3 * t + 96] for t in range(12)])
    assert not measured(recorded(drifting, 10 * noise())).is_strong()


def test_planes_are_compared_with_the_same_plane_of_the_time_before():
    """Planes differ by a lot; successive frames of a z-stack are no repeats."""
    planes = np.stack([structure(), 3 * structure()[::-1]])
    pixels = np.stack([planes] * 6) + 20 * noise().reshape(6, 2, 96, 96)
    stack = stack_from_array(np.rint(pixels).astype(np.uint16), axes=("time", "z"))
    found = measured(stack)
    assert found.span("x") == found.span("y") == 0


def remarks_on(stack, **choices):
    recordings = load_recordings([stack], context_frames=0, patch=32, memory_mib=64)
    remarks = []
    options = TrainingOptions(**choices)
    options = learner_of(options.algorithm).fitted_to(
        options, partial(noise_correlation, recordings.resident), remarks.append
    )
    return options, remarks


def test_structn2v_is_told_what_to_hide_and_says_so():
    stack = recorded(structure(), 20 * noise(along="x"))
    options, (said,) = remarks_on(stack, algorithm="structn2v")
    assert (options.mask_axis, options.mask_span) == ("x", 2)
    assert said.startswith("noise is correlated along x (0.6")
    assert "hides 2 pixels on either side along x" in said
    options, (said,) = remarks_on(stack, algorithm="structn2v", mask_axis="y")
    assert (options.mask_axis, options.mask_span) == ("y", 1)
    options, said = remarks_on(stack, algorithm="structn2v", mask_axis="y", mask_span=4)
    assert (options.mask_axis, options.mask_span, said) == ("y", 4, [])


@pytest.mark.parametrize("algorithm", ["lattice", "n2v", "n2v2", "pn2v"])
def test_other_algorithms_warn_of_correlated_noise_and_name_structn2v(algorithm):
    stack = recorded(structure(), 20 * noise(along="y"))
    options, (said,) = remarks_on(stack, algorithm=algorithm)
    assert "correlated along y" in said
    assert f"which {algorithm} takes for signal" in said
    assert "--algorithm structn2v --mask-axis y --mask-span 2" in said
    assert "\n" not in said
    assert options.mask_axis is None


def test_nobody_is_warned_of_white_noise():
    assert remarks_on(recorded(structure(), 20 * noise()))[1] == []


@pytest.mark.timeout(600)
def test_a_run_says_what_it_hides_and_records_it(tmp_path):
    remarks = []
    stack = recorded(structure(), 20 * noise(along="x"))
    options = TrainingOptions(algorithm="structn2v", preset="fast", steps=4, batch=2)
    train([stack], tmp_path / "model", options, on_remark=remarks.append)
    assert any("hides 2 pixels on either side along x" in remark for remark in remarks)
    chosen = open_bundle(tmp_path / "model").manifest.training.options
    assert (chosen["mask_axis"], chosen["mask_span"]) == ("x", 2)


@pytest.mark.timeout(600)
def test_hiding_the_line_does_better_where_noise_is_correlated():
    """The reason for it all: against the truth, structn2v beats n2v on striped noise."""
    stack = recorded(structure(), 60 * noise(along="x", kernel=(1, 1, 1, 1, 1)))
    recordings = load_recordings([stack], context_frames=0, patch=32, memory_mib=64)
    noise_model = bootstrap_noise_model([stack])
    errors = {}
    for algorithm in ("n2v", "structn2v"):
        options = TrainingOptions(algorithm=algorithm, preset="fast", steps=250, batch=8, patch=32)
        estimator, _ = fit(recordings, noise_model, options, started=time.monotonic())
        with torch.no_grad():
            denoised, _ = estimator(torch.from_numpy(stack.frame(11)[None, None]))
        errors[algorithm] = float(((denoised[0, 0].numpy() - structure()) ** 2).mean())
    assert errors["structn2v"] < 0.6 * errors["n2v"]
