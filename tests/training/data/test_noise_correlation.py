"""Correlated noise: found by direction and reach, told from what moves, and said to the user."""

from __future__ import annotations

import time
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from scipy.ndimage import convolve1d, gaussian_filter

from quietscope.calibration.bootstrap import bootstrap_noise_model
from quietscope.calibration.noise_correlation import LineNoise, correlation_in
from quietscope.inference.bundle import open_bundle
from quietscope.storage.stack import stack_from_array
from quietscope.training.data.noise_correlation import noise_correlation
from quietscope.training.data.recordings import load_recordings
from quietscope.training.errors import TrainingError
from quietscope.training.mask_kernel import offsets_of, text_of
from quietscope.training.method_choice import judged, with_method
from quietscope.training.methods import learner_of
from quietscope.training.model.unit_noise import UnitNoise
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
    # Of a single frame of this size four blocks are all there is; it says how little that tells.
    assert abs(found.along(other)) < (0.05 if frames > 1 else found.interval[9, 8] + 0.02)
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
def test_other_algorithms_say_that_correlated_noise_stays(algorithm):
    stack = recorded(structure(), 20 * noise(along="y"))
    options, (said,) = remarks_on(stack, algorithm=algorithm)
    assert "correlated along y" in said
    assert f"which {algorithm} takes for signal: its result is not clean" in said
    assert "--algorithm r2r" in said
    assert "\n" not in said
    assert options.mask_axis is None


def test_nobody_is_warned_of_white_noise():
    assert remarks_on(recorded(structure(), 20 * noise()))[1] == []


def low_passed(shape, *, seed=0):
    """Noise of unit variance, correlated along both axes: 0.67 with the next pixel."""
    smooth = gaussian_filter(noise(shape, seed=seed), (0, 0.8, 0.8), mode="wrap")
    return smooth / smooth.std()


@pytest.mark.parametrize("moves", [False, True])
def test_correlation_along_both_axes_is_found_with_its_interval(moves):
    scene = 500 + 2000 * gaussian_filter(np.random.default_rng(1).normal(size=(200, 220)), 6)
    frames = [scene[:192, 3 * t * moves : 3 * t * moves + 192] for t in range(6)]
    found = measured(recorded(np.stack(frames), 15 * low_passed((6, 192, 192))))
    assert found.rests is not moves
    assert found.is_two_dimensional()
    for lag, true in (((0, 1), 0.67), ((1, 0), 0.67), ((1, 1), 0.45), ((1, -1), 0.45)):
        assert found.at(*lag) == pytest.approx(true, abs=0.07 if moves else 0.03)
    assert abs(found.at(3, 3)) < 0.04
    assert not found.lines()


@pytest.mark.parametrize("moves", [False, True])
@pytest.mark.parametrize("axis", ["rows", "columns"])
def test_what_whole_lines_share_is_found_far_below_a_tenth(axis, moves):
    scene = 500 + 2000 * gaussian_filter(np.random.default_rng(1).normal(size=(200, 220)), 6)
    frames = np.stack([scene[:192, 3 * t * moves : 3 * t * moves + 192] for t in range(8)])
    rng = np.random.default_rng(2)
    lines = rng.normal(size=(8, 192, 1) if axis == "rows" else (8, 1, 192))
    found = measured(recorded(frames, 10 * noise((8, 192, 192)) + lines))
    assert found.lines() == [axis]
    line = found.rows if axis == "rows" else found.columns
    assert line.share == pytest.approx(0.01, abs=0.004)
    assert not found.is_strong()
    assert found.is_correlated
    assert f"whole {axis} share" in found.described()


def test_where_no_noise_is_seen_nothing_is_said_to_be_shared():
    """The demo camera's own stripes, which move and are exact: no pixel has noise of its own."""
    y, x = np.mgrid[:192, :192]
    phases = [2 * np.pi * (x + 0.3 * y + 37 * t) / 118 for t in range(8)]
    frames = np.stack([3000 + 2500 * np.sin(phase) for phase in phases])
    found = measured(stack_from_array(np.rint(frames).astype(np.uint16)))
    assert found.origin == "no noise"
    assert not found.is_correlated
    assert "is not known" in judged("lattice", found)[1]
    remarks = []
    assert with_method(TrainingOptions(algorithm="auto"), found, remarks.append).algorithm == (
        "lattice"
    )
    assert "is not known: lattice is trained" in remarks[0]


def test_frames_that_came_twice_are_counted_and_compared_with_nothing():
    frames = structure() + 20 * noise()
    frames[5] = frames[4]
    found = measured(stack_from_array(np.rint(frames).astype(np.uint16)))
    assert found.duplicates == 1
    assert found.span("x") == found.span("y") == 0


def test_noise_is_drawn_as_it_was_found():
    stack = recorded(500.0, 20 * low_passed((8, 192, 192)) + 5 * noise((8, 192, 1), seed=1))
    found = measured(stack)
    assert found.rows.share == pytest.approx(25 / 425, rel=0.25)
    drawn = np.stack([found.drawn((192, 192), np.random.default_rng(i)) for i in range(8)])
    assert drawn.std() == pytest.approx(1, abs=0.03)
    again = measured(recorded(500.0, 20 * drawn))
    assert np.abs(again.table - found.table).max() < 0.04
    assert again.rows.share == pytest.approx(found.rows.share, rel=0.3)
    unit = UnitNoise(found.amplitudes(), found.rows.share, 0.0)
    torch_drawn = unit.like(torch.empty(8, 1, 192, 192), torch.Generator().manual_seed(1))
    once_more = measured(recorded(500.0, 20 * torch_drawn[:, 0].numpy()))
    assert np.abs(once_more.table - found.table).max() < 0.04
    assert once_more.rows.share == pytest.approx(found.rows.share, rel=0.3)


def test_structn2v_hides_around_where_noise_is_correlated_along_both_axes():
    stack = recorded(structure(), 20 * low_passed((12, 96, 96)))
    options, (said,) = remarks_on(stack, algorithm="structn2v")
    hidden = offsets_of(options.mask_kernel)
    assert {(0, 0), (0, 2), (2, 0), (1, 1), (-1, 1)} <= set(hidden)
    assert (4, 4) not in hidden
    assert f"hides {len(hidden)} pixels together" in said
    options, said = remarks_on(stack, algorithm="structn2v", mask_kernel="3x5")
    assert (options.mask_kernel, said) == ("3x5", [])


def test_a_kernel_is_a_rectangle_or_a_picture_and_the_same_under_flips():
    assert offsets_of("1x3") == ((0, -1), (0, 0), (0, 1))
    cross = {(0, 0), (-1, 0), (1, 0), (0, -1), (0, 1)}
    assert set(offsets_of("010,111,010")) == cross
    assert set(offsets_of("010,011,000")) == cross
    picture = np.zeros((17, 17), dtype=bool)
    picture[8, 7:10] = picture[7:10, 8] = True
    assert text_of(picture) == "010,111,010"


@pytest.mark.parametrize("text", ["2x3", "19x1", "", "101", "01,1", "5", "5x", "0x3", "111,1 1"])
def test_a_kernel_that_is_none_is_refused_in_one_line(text):
    with pytest.raises(TrainingError, match=r"mask_kernel is .*expected rows x columns") as error:
        TrainingOptions(algorithm="structn2v", mask_kernel=text or "0")
    assert "\n" not in str(error.value)


def test_a_kernel_and_a_line_are_not_both_taken():
    with pytest.raises(TrainingError, match="both --mask-kernel and --mask-axis"):
        TrainingOptions(algorithm="structn2v", mask_kernel="3x3", mask_span=2)


@pytest.mark.parametrize(
    ("shared", "chosen"),
    [
        (low_passed((12, 96, 96)), "r2r"),
        (noise(), "lattice"),
        (noise() + 0.2 * noise((12, 96, 1)), "r2r"),
    ],
    ids=["both axes", "none", "rows"],
)
def test_the_method_is_chosen_by_the_noise_and_named(shared, chosen):
    remarks = []
    found = measured(recorded(structure(), 20 * shared))
    options = with_method(TrainingOptions(algorithm="auto"), found, remarks.append)
    assert options.algorithm == chosen
    assert len(remarks) == 1
    assert f"{chosen} is trained" in remarks[0]
    assert judged(chosen, found)[0]
    clean, said = judged("n2v", found)
    assert clean is (chosen == "lattice")
    assert clean or "the result is not clean" in said
    # Of several processes the first one's finding holds for all.
    other = "r2r" if chosen == "lattice" else "lattice"
    left_open = TrainingOptions(algorithm="auto")
    agreed = with_method(left_open, found, remarks.append, agreed=lambda mine: float(not mine))
    assert agreed.algorithm == other
    given = TrainingOptions(algorithm="n2v2")
    assert with_method(given, found, remarks.append) is given


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("size", [(1, 32, 32), (1, 33, 200), (2, 32, 32)])
def test_one_small_frame_says_something_or_nothing_and_never_breaks(dtype, size):
    pixels = np.random.default_rng(0).poisson(60, size).astype(dtype)
    found = correlation_in([stack_from_array(pixels)])
    assert found.origin == ("single frames" if size[0] == 1 else "resting frames")
    assert not found.is_correlated
    assert np.isfinite(found.drawn((32, 32), np.random.default_rng(1))).all()


def test_lines_that_claim_more_than_all_of_the_noise_can_be_drawn():
    found = replace(
        measured(recorded(structure(), 20 * noise())),
        rows=LineNoise(0.8, 0.01),
        columns=LineNoise(0.7, 0.01),
    )
    drawn = found.drawn((256, 256), np.random.default_rng(1))
    assert np.isfinite(drawn).all()
    assert drawn.var() == pytest.approx(1, rel=0.2)


def test_a_bootstrapped_noise_model_has_all_of_the_noise_that_neighbours_share():
    stack = recorded(structure((192, 192)), 20 * low_passed((6, 192, 192)))
    variance = bootstrap_noise_model([stack]).variance(np.array([400.0, 500.0, 600.0]))
    assert np.sqrt(variance) == pytest.approx(20, rel=0.06)


@pytest.mark.long
@pytest.mark.timeout(600)
def test_a_run_left_open_takes_the_method_and_says_so_everywhere(tmp_path):
    remarks = []
    stack = recorded(structure(), 20 * low_passed((12, 96, 96)))
    options = TrainingOptions(algorithm="auto", preset="fast", steps=4, batch=2)
    result = train([stack], tmp_path / "model", options, on_remark=remarks.append)
    assert any("r2r is trained" in remark for remark in remarks)
    manifest = open_bundle(tmp_path / "model").manifest
    assert (manifest.algorithm, manifest.noise_is_removed) == ("r2r", True)
    assert "correlated along" in manifest.noise
    assert manifest.noise in result.result()["noise"]
    page = (tmp_path / "model" / "report.html").read_text(encoding="utf-8")
    assert "r2r was taught with noise like it" in page


@pytest.mark.long
@pytest.mark.timeout(600)
def test_taught_with_noise_like_it_a_network_removes_what_neighbours_share():
    """Against the truth, r2r beats lattice and a blur; its uncertainty is that of its errors."""
    scene = 200 + 3000 * gaussian_filter(np.random.default_rng(3).normal(size=(128, 128)), 3)
    frames = recorded(scene, 60 * low_passed((12, 128, 128)))
    recordings = load_recordings([frames], context_frames=0, patch=64, memory_mib=64)
    noise_model = bootstrap_noise_model([frames])
    errors = {"blur": ((gaussian_filter(frames.frame(11).astype(float), 2) - scene) ** 2).mean()}
    for algorithm in ("lattice", "r2r"):
        options = TrainingOptions(algorithm=algorithm, preset="fast", steps=300, batch=8, patch=64)
        estimator, _ = fit(recordings, noise_model, options, started=time.monotonic())
        with torch.no_grad():
            mean, deviation = estimator(torch.from_numpy(frames.frame(11)[None, None]))
        wrong = mean[0, 0].numpy() - scene
        errors[algorithm] = (wrong**2).mean()
    assert errors["r2r"] < 0.4 * errors["lattice"]
    assert errors["r2r"] < errors["blur"]
    z = np.sqrt((wrong**2 / deviation[0, 0].numpy() ** 2).mean())
    assert 0.75 < z < 1.35


@pytest.mark.long
@pytest.mark.timeout(600)
def test_a_run_says_what_it_hides_and_records_it(tmp_path):
    remarks = []
    stack = recorded(structure(), 20 * noise(along="x"))
    options = TrainingOptions(algorithm="structn2v", preset="fast", steps=4, batch=2)
    train([stack], tmp_path / "model", options, on_remark=remarks.append)
    assert any("hides 2 pixels on either side along x" in remark for remark in remarks)
    chosen = open_bundle(tmp_path / "model").manifest.training.options
    assert (chosen["mask_axis"], chosen["mask_span"]) == ("x", 2)


@pytest.mark.long
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
