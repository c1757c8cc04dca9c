"""What may take the place of a model in use: sound runs, judged by a calibration of neither's."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter, uniform_filter

from quietscope.calibration.fingerprint import CameraFingerprint
from quietscope.calibration.noise_files import load_noise_model
from quietscope.errors import QuietscopeError
from quietscope.inference.bundle import open_bundle
from quietscope.storage.stack import stack_from_array
from quietscope.training.retraining import comparison
from quietscope.training.retraining.comparison import ModelMeasures, RunScore, compare
from quietscope.training.retraining.gate import interval, judge
from quietscope.training.retraining.run_audit import other_camera, why_unfit, yardstick

SHAPE = (96, 112)


@pytest.fixture(scope="module")
def signal():
    rough = np.random.default_rng(5).random(SHAPE)
    return 20 + 1500 * np.clip(gaussian_filter(rough, 3) - 0.5, 0, None)


def counted(signal, frames=20, seed=0, gain=1.0):
    electrons = np.random.default_rng(seed).poisson(signal, (frames, *signal.shape))
    return np.rint(gain * electrons).astype(np.uint16)


@pytest.fixture(scope="module")
def good(signal):
    return stack_from_array(counted(signal), path="good")


# ------------------------------------------------------------------ which runs may teach


def test_an_ordinary_run_may_teach(good):
    assert why_unfit(good) is None


def test_a_moving_scene_may_teach(signal):
    pixels = np.stack([np.roll(frame, 2 * t, 1) for t, frame in enumerate(counted(signal))])
    assert why_unfit(stack_from_array(pixels)) is None


def test_single_bright_spots_are_no_defects(signal):
    spotted = signal.copy()
    spots = np.zeros(SHAPE)
    spots[np.random.default_rng(0).integers(96, size=60), np.arange(60)] = 1
    spotted += 3000 * gaussian_filter(spots, 1.2)
    assert why_unfit(stack_from_array(counted(spotted))) is None


def sabotaged(kind, signal):
    pixels = counted(signal)
    if kind == "constant":
        pixels[:] = 120
    elif kind == "some frames constant":
        pixels[10:] = 120
    elif kind == "hot":
        hot = np.random.default_rng(1).random(SHAPE) < 0.02
        pixels[:, hot] = 60_000
    elif kind == "noise":
        pixels = counted(np.full(SHAPE, 60.0))
    elif kind == "no noise":  # the demo camera's own stripes
        y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
        place = np.arange(len(pixels))[:, None, None] * 37 + x + 0.3 * y
        pixels = np.rint(3000 + 2500 * np.sin(2 * np.pi * place / 118)).astype(np.uint16)
    return stack_from_array(pixels)


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("constant", "one grey"),
        ("some frames constant", "50% of its frames are one grey"),
        ("hot", "stand out in every frame"),
        ("noise", "nothing but noise"),
        ("no noise", "no noise beside what moves"),
    ],
)
def test_a_run_that_shows_nothing_or_defects_may_not(kind, said, signal):
    assert said in why_unfit(sabotaged(kind, signal))


@pytest.mark.parametrize("seed", range(6))
def test_noise_alone_is_told_whatever_its_draw(seed):
    assert "noise" in why_unfit(stack_from_array(counted(np.full(SHAPE, 30.0), seed=seed)))


def test_a_run_of_another_camera_is_told_by_its_name(signal):
    said = {"quietscope": {"camera": {"camera": "sCMOS B", "gain_setting": "11"}}}
    run = replace(stack_from_array(counted(signal)), attributes=said)
    assert "camera is sCMOS B" in other_camera(run, CameraFingerprint(camera="sCMOS A"))
    assert other_camera(run, CameraFingerprint(camera="sCMOS B")) is None


@pytest.mark.long
def test_a_run_of_another_gain_is_told_by_its_noise(make_bundle, good, signal):
    calibrated = load_noise_model(open_bundle(make_bundle()).noise_model_path)
    assert yardstick(good, calibrated, seed=0) is calibrated
    other = stack_from_array(counted(signal, gain=11.0))
    with pytest.raises(QuietscopeError, match="another camera or setting"):
        yardstick(other, calibrated, seed=0)
    assert yardstick(other, None, seed=0).variance(200.0) == pytest.approx(11 * 200, rel=0.5)


# --------------------------------------------------------------------- which model is better


def score(candidate, current, raw=100.0, *, old=False, path="run", scatter=0.02):
    """A run on which the models have these errors, give or take a little."""
    rng = np.random.default_rng(0)
    errors = np.array([candidate, current, raw]) * (1 + scatter * rng.standard_normal((64, 3)))
    return RunScore(path, old, errors, 4)


def test_a_clear_gain_is_promoted():
    verdict = judge([score(8.0, 10.0), score(9.0, 10.0, old=True)])
    assert verdict.promote
    assert verdict.figures["gain_db"] == pytest.approx(0.97, abs=0.1)
    assert verdict.figures["old_gain_adu2"] == pytest.approx(1.0, abs=0.1)


@pytest.mark.parametrize(
    ("scores", "said"),
    [
        ([score(10.0, 10.0)], "better on 0 of 1"),
        ([score(-6.6e9, 10.0)], "below zero"),
        ([score(8.0, -50.0)], "below zero"),
        ([score(120.0, 150.0)], "no better than the raw frames"),
        ([score(np.nan, 10.0)], "not a number"),
        ([score(8.0, 10.0), score(12.0, 10.0, old=True, path="last week")], "last week"),
        ([score(2.0, 10.0), score(12.0, 10.0, path="the other new run")], "the other new run"),
        ([score(9.9, 10.0, scatter=0.5)], "better on 0 of 1"),
    ],
)
def test_each_of_these_stops_a_candidate_alone(scores, said):
    verdict = judge(scores)
    assert not verdict.promote
    assert said in verdict.reason
    assert "\n" not in verdict.reason


def test_a_candidate_is_promising_that_gained_on_the_new_and_lost_on_the_old_alone():
    lost = score(12.0, 10.0, old=True)
    assert judge([score(8.0, 10.0), lost]).promising
    assert not judge([score(10.0, 10.0), lost]).promising
    assert not judge([score(8.0, 10.0), score(12.0, 10.0), lost]).promising
    assert not judge([score(8.0, 10.0), score(8.0, 10.0, old=True)]).promising
    impossible = score(-6.6e9, 10.0, old=True)
    assert not judge([score(8.0, 10.0), impossible]).promising


def test_an_error_that_its_estimate_loses_in_the_noise_is_divided_by_on_the_whole_alone():
    scores = [score(0.06, 0.05, 2.5), score(0.0, -0.01, 2.5)]
    found = interval(scores)
    assert found.gain == pytest.approx(-0.5, abs=0.05)
    assert -3 < found.low < found.high < 0


def test_small_losses_on_old_runs_count_together():
    """Of one run 5 % more may be chance; of three of them it is not."""

    def slightly_worse(path):
        candidate = 10.5 + 3.0 * np.resize([1.0, -1.0], 64)
        errors = np.stack([candidate, np.full(64, 10.0), np.full(64, 100.0)], axis=1)
        return RunScore(path, True, errors, 4)

    old = [slightly_worse(f"week {n}") for n in range(3)]
    assert all(one.gain > -one.least_gain for one in old)
    verdict = judge([score(8.0, 10.0), *old])
    assert not verdict.promote
    assert "taken together: squared error more by 5.00%" in verdict.reason


def test_a_gain_has_to_exceed_its_own_uncertainty_over_runs():
    """Two runs that gain and one that may lose as much: that is a draw, not a gain."""
    sure = interval([score(8.0, 10.0), score(8.2, 10.0), score(7.9, 10.0)])
    assert 0.1 < sure.low < sure.gain < sure.high < 0.3
    doubtful = [score(6.0, 10.0), score(9.99, 10.0), score(9.99, 10.0)]
    assert interval(doubtful).low < interval([doubtful[0]] * 3).low
    assert interval([score(np.nan, 10.0)]).low == -np.inf


def measures(**changed):
    """Return what an honest model of a quick network gives on four frames."""
    rng = np.random.default_rng(3)
    honest = {
        "bias": 0.002 * rng.standard_normal((4, 5)),
        "bands": np.array([4.0, 3.0, 2.0, 1.0, 1.0, 1.0]) * (1 + 0.05 * rng.random((4, 6))),
        "stated_adu2": np.full(4, 9.0),
        "explained": np.full(4, 1.0),
        "correlation": 0.01 * rng.standard_normal(4),
        "seconds": np.full(4, 0.05),
    }
    return ModelMeasures(**{**honest, **changed})


@pytest.mark.parametrize(
    ("defect", "said"),
    [
        ({}, None),
        ({"bias": np.array([[0, 0, 0, 0, 0.2]] * 4)}, "biased by 2.% .* brightest"),
        ({"bias": np.array([[-0.2, 0, 0, 0, 0]] * 4)}, "biased by 2.% .* darkest"),
        ({"correlation": np.full(4, 0.4)}, "structure is lost"),
        ({"stated_adu2": np.full(4, 1.0)}, "times what it states"),
        ({"stated_adu2": np.full(4, 100.0)}, "times what it states"),
        ({"bands": np.array([[4.0, 3, 2, 1, 1, 3]] * 4)}, "ring 6 of 6 .* adds texture"),
        ({"seconds": np.full(4, 0.2)}, "live would fall behind"),
    ],
)
def test_a_better_score_redeems_no_red_check(defect, said):
    scored = replace(score(8.0, 10.0), measures=(measures(**defect), measures()))
    verdict = judge([scored])
    assert verdict.promote == (said is None)
    if said is not None:
        assert re.search(said, verdict.reason)
    assert verdict.figures["current_z"] == pytest.approx((10 / 9) ** 0.5, rel=0.05)


def test_a_defect_that_the_model_in_use_has_as_well_stops_nothing():
    both = measures(correlation=np.full(4, 0.4), bias=np.full((4, 5), 0.3))
    assert judge([replace(score(8.0, 10.0), measures=(both, both))]).promote


def test_a_graph_that_is_not_what_was_trained_is_not_promoted(make_bundle):
    bundle = open_bundle(make_bundle())
    figures = {"parity_max_relative_error": 0.02}
    wrong = replace(bundle, manifest=bundle.manifest.model_copy(update={"figures": figures}))
    verdict = judge([score(8.0, 10.0)], wrong)
    assert not verdict.promote
    assert "differs from what was trained" in verdict.reason


@pytest.mark.long
def test_what_is_measured_is_what_is_true(make_bundle, signal):
    """A constant added to every pixel is the bias; a filter that blurs loses the fine rings."""
    sharp, soft = (open_bundle(make_bundle(n, radius=r)) for n, r in (("a", 0), ("b", 4)))
    stack = stack_from_array(counted(10 * signal, frames=40), path="bright")
    (found,) = compare(sharp, soft, [stack], lambda run: yardstick(run, None, seed=0))
    identity, blurred = found.measures
    assert abs(identity.bias.mean()) < 0.02, "the raw frame has no bias over all brightnesses"
    assert blurred.bias.mean(axis=0)[-1] < -0.1, "a blur takes from the brightest"
    noise = found.means[2]
    assert identity.bands.mean(axis=0) == pytest.approx(np.full(6, noise), rel=0.3)
    assert blurred.bands.mean(axis=0)[0] > 5 * blurred.bands.mean(axis=0)[-1]


@pytest.mark.long
def test_a_filter_that_blurs_too_much_loses_whoever_is_asked(make_bundle, good):
    sharp, soft = (open_bundle(make_bundle(name, radius=r)) for name, r in (("a", 1), ("b", 6)))

    def judged_on(stack):
        return yardstick(stack, None, seed=0)

    assert judge(compare(sharp, soft, [good], judged_on)).promote
    assert not judge(compare(soft, sharp, [good], judged_on)).promote


def test_small_frames_are_split_several_times_and_a_gain_is_surer(make_bundle, good, monkeypatch):
    models = [open_bundle(make_bundle(name, radius=r)) for name, r in (("a", 1), ("b", 2))]

    def scatter(splits):
        monkeypatch.setattr(comparison, "SPLITS", splits)
        gains = [
            compare(*models, [good], lambda run: run_noise, seed=seed)[0].gain for seed in range(6)
        ]
        return np.mean(gains), np.std(gains)

    run_noise = yardstick(good, None, seed=0)
    (once, once_scatter), (often, often_scatter) = scatter(1), scatter(4)
    assert often_scatter < 0.75 * once_scatter  # a half is expected
    assert often == pytest.approx(once, abs=4 * once_scatter / 6**0.5)


def test_the_candidates_own_noise_model_has_no_say(make_bundle, good):
    """A candidate that believes in a hundred times the noise would make all errors negative."""
    bundles = [open_bundle(make_bundle(name, radius=1)) for name in ("a", "b")]
    calls = []

    def judged_on(stack):
        calls.append(Path(stack.path).name)
        return yardstick(stack, None, seed=0)

    (found,) = compare(*bundles, [good], judged_on)
    assert calls == ["good"]
    assert found.means[0] == pytest.approx(found.means[1])
    assert 0 < found.means[0] < found.means[2]


def test_errors_and_their_spectrum_are_the_true_ones_where_pixels_share_noise(make_bundle, signal):
    rng = np.random.default_rng(3)
    noise = gaussian_filter(rng.normal(size=(80, *SHAPE)), (0, 0.8, 0.8))
    noise *= 20 / noise.std()
    clean = 500 + 2 * signal
    frames = clean + noise
    stack = stack_from_array(np.rint(frames).astype(np.uint16), path="shared")
    narrow, wide = (open_bundle(make_bundle(f"box {r}", radius=r)) for r in (1, 2))
    (score,) = compare(narrow, wide, [stack], lambda own: yardstick(own, None, 0))
    for number, radius in enumerate((1, 2)):
        # The models are shown a quarter more noise than the frames hold.
        shown = clean + np.sqrt(1.25) * noise
        true = ((uniform_filter(shown, (0, 2 * radius + 1, 2 * radius + 1)) - clean) ** 2).mean()
        assert score.means[number] == pytest.approx(true, rel=0.25)  # white: below 0
    assert score.means[2] == pytest.approx(1.25 * 20**2, rel=0.15)
    measures = score.measures[1]
    assert measures.bands.mean(axis=0)[-1] == pytest.approx(0, abs=0.05 * score.means[2])
