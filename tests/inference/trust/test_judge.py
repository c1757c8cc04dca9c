"""The verdict on simulated frames: green for a right model, its cause named where one is wrong.

The model of these tests is an ideal one: it takes a known share of each pixel's noise over, as a
posterior mean does. Its record comes from frames of other scenes. The whole sweep, with trained
networks, is `benchmarks/verdict_regimes.py`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
import pytest
from scipy import ndimage

from quietscope.inference.errors import BundleError
from quietscope.inference.trust.evidence import Evidence
from quietscope.inference.trust.judge import FrameJudge
from quietscope.inference.trust.local_evidence import Standing, filtered
from quietscope.inference.trust.noise_variance import NoiseVariance
from quietscope.inference.trust.null import (
    KNOTS,
    TrustReference,
    ideal_limit,
    measure_reference,
    read_reference,
)
from quietscope.inference.trust.training_domain import SHAPE as SHAPE_FEATURES

GAIN, OFFSET, READ = 2.0, 100.0, 3.0
SHAPE = (192, 192)
SHARE = 0.1
"""Of each pixel's noise that stays in the picture."""


@dataclass(frozen=True)
class Camera:
    """The photon-transfer law itself."""

    signal_range_adu: tuple[float, float] = (OFFSET, 20_000.0)
    least_variance_adu2: float = READ**2

    def variance(self, signal):
        return GAIN * np.maximum(np.asarray(signal, float) - OFFSET, 0) + READ**2


NOISE = NoiseVariance(Camera())


def scene(seed):
    """Return photoelectrons of blobs and points of many brightnesses."""
    rng = np.random.default_rng(seed)
    blobs = ndimage.gaussian_filter(rng.random(SHAPE), 5)
    points = (rng.random(SHAPE) < 0.004) * rng.gamma(2.0, 200.0, SHAPE)
    return 10 + 400 * (blobs - blobs.min()) + ndimage.gaussian_filter(points, 1.3)


def observe(electrons, rng, gain=1.0, row=0.0):
    adu = gain * (GAIN * rng.poisson(electrons) + READ * rng.standard_normal(SHAPE)) + OFFSET
    return np.rint(adu + row * rng.standard_normal((SHAPE[0], 1))).clip(0, 65535).astype(np.uint16)


def denoise(raw, electrons):
    truth = OFFSET + GAIN * electrons
    estimate = truth + SHARE * (raw - truth)
    return estimate.astype(np.float32), np.sqrt(SHARE * NOISE(truth)).astype(np.float32)


def evidence(electrons, rng):
    raw = observe(electrons, rng)
    return Evidence.measure(raw, *denoise(raw, electrons), NOISE, floor_adu=OFFSET)


@pytest.fixture(scope="module")
def reference():
    rng = np.random.default_rng(0)
    frames = [evidence(scene(seed), rng) for seed in range(8)]
    repeats = [[evidence(scene(seed), rng) for _ in range(4)] for seed in (1, 5)]
    return measure_reference(frames, repeats, OFFSET)


def judged(reference, seed, frames=3, *, light=1.0, shown=lambda picture: picture, **faults):
    """Judge frames of a scene that the record has not seen; return the last judgement."""
    rng, electrons = np.random.default_rng((1, seed)), light * scene(1000 + seed)
    judge = FrameJudge(NOISE, reference, saturation_adu=65535.0)
    for _ in range(frames):
        raw = observe(electrons, rng, **faults)
        truth = faults.get("gain", 1.0) * electrons
        picture, uncertainty = denoise(raw, truth)
        found = judge.add(raw, shown(picture), uncertainty)
    return found


def points(peak):
    rng = np.random.default_rng(7)
    impulses = np.zeros(SHAPE)
    impulses[tuple(rng.integers(12, 180, (2, 25)))] = 2 * np.pi * 1.3**2 * peak
    return ndimage.gaussian_filter(impulses, 1.3).astype(np.float32)


def test_a_right_model_is_trusted(reference):
    for seed in range(6):
        found = judged(reference, seed, frames=5)
        assert found.good, (seed, found.findings)
        assert found.known
        assert found.score < 1


@pytest.mark.parametrize(
    ("fault", "causes", "words"),
    [
        ({"shown": lambda p: p - points(40)}, {"lost"}, "lost"),
        ({"shown": lambda p: p + points(40)}, {"invented"}, "says more than the data"),
        ({"shown": lambda p: ndimage.gaussian_filter(p, 1.0)}, {"smoothed", "lost"}, "picture"),
        ({"gain": 2.0}, {"gain"}, "gain is not the one that was calibrated"),
        ({"row": 4.0}, {"lines"}, "rows"),
        ({"light": 4.0}, {"brightness"}, "brighter than"),
    ],
)
def test_what_is_wrong_is_named(reference, fault, causes, words):
    found = judged(reference, 3, **fault)
    assert not found.good
    assert found.findings[0].cause in causes, [one.cause for one in found.findings]
    assert words in found.findings[0].sentence
    json.dumps(found.result(), allow_nan=False)


def test_places_are_where_the_loss_is_and_have_their_sign(reference):
    one = np.zeros(SHAPE, np.float32)
    one[60, 90] = 2 * np.pi * 1.3**2 * 80
    one = ndimage.gaussian_filter(one, 1.3)
    lost = judged(reference, 4, shown=lambda picture: picture - one)
    added = judged(reference, 4, shown=lambda picture: picture + one)
    for found, sign in ((lost, 1), (added, -1)):
        (place,) = found.places
        assert abs(place.y - 60) <= 4
        assert abs(place.x - 90) <= 4
        assert np.sign(place.strength) == sign
    assert (lost.result()["places_lost"], lost.result()["places_invented"]) == (1, 0)


def test_a_weak_loss_that_stays_adds_up_and_one_that_moves_does_not():
    rng = np.random.default_rng(2)
    blob = np.zeros((96, 96))
    blob[48, 48] = 1.0
    blob = ndimage.gaussian_filter(blob, 1.2)
    blob *= 0.8 / blob.max()  # 1.7 deviations of the filtered noise
    stays, moves = Standing(), Standing()
    for frame in range(25):
        noise = rng.standard_normal((96, 96))
        still = stays.add(filtered((noise + blob).astype(np.float32)))
        shifted = np.roll(blob, 3 * frame - 36, axis=1)
        moving = moves.add(filtered((noise + shifted).astype(np.float32)))
    assert still[0][48, 48] > ideal_limit(96 * 96, 0, 1e-4)
    assert moving[0].max() < ideal_limit(96 * 96, 0, 1e-4)
    assert still[0][8:40, 8:40].std() == pytest.approx(1.0, abs=0.15)


def test_the_limit_of_noise_alone_is_reached_as_often_as_it_says():
    rng = np.random.default_rng(3)
    limit = ideal_limit(128 * 128, 0, 0.2)
    reached = [
        filtered(rng.standard_normal((128, 128)).astype(np.float32))[0].max() > limit
        for _ in range(200)
    ]
    assert 0.08 < np.mean(reached) < 0.28


def test_without_a_record_a_loss_is_still_seen_and_the_rest_is_not_claimed():
    lost = judged(None, 2, shown=lambda picture: picture - points(60))
    assert lost.findings[0].cause == "lost"
    assert not lost.known
    assert judged(None, 2, frames=6).good
    assert judged(None, 2, gain=2.0).findings[0].cause == "gain"


def test_a_figure_that_frames_no_longer_tell_is_forgotten(reference):
    rng, electrons = np.random.default_rng(8), scene(5)
    judge = FrameJudge(NOISE, reference)
    raw = observe(electrons, rng, gain=2.0)
    assert judge.add(raw, *denoise(raw, 2 * electrons)).findings[0].cause == "gain"
    clipped = np.full(SHAPE, 65535, np.uint16)
    found = judge.add(clipped, clipped.astype(np.float32), np.ones(SHAPE, np.float32))
    assert "noise_bright" not in found.figures
    assert "gain" not in {finding.cause for finding in found.findings}


@pytest.mark.parametrize("electrons", [3, 20, 200])
def test_dim_light_on_a_camera_of_sixteen_bits_is_no_other_noise(electrons):
    noise = NoiseVariance(Camera(signal_range_adu=(OFFSET, 65_535.0)))
    raw = observe(np.full(SHAPE, float(electrons)), np.random.default_rng(4))
    picture = np.full(SHAPE, OFFSET + GAIN * electrons, np.float32)
    found = FrameJudge(noise, None).add(raw, picture, np.full(SHAPE, 0.01, np.float32))
    assert found.good, found.findings
    signal = (OFFSET + np.geomspace(1, 60_000, 200)).astype(np.float32)
    np.testing.assert_allclose(noise.deviation(signal) ** 2, noise(signal), rtol=0.05)


def test_pixels_that_clip_say_nothing_of_what_was_removed(reference):
    rng, electrons = np.random.default_rng(5), scene(3)
    electrons[:, :40] = 60_000  # twice the range of the camera
    raw = observe(electrons, rng)
    assert (raw[:, :40] == 65535).all()
    picture, uncertainty = denoise(raw, electrons)
    found = Evidence.measure(raw, picture, uncertainty, NOISE).figures
    assert abs(found["removed"] - reference.figures["removed"].mean) < 0.1
    assert abs(found["bias_bright"]) < 0.1


def test_what_is_no_number_is_left_out(reference):
    rng, electrons = np.random.default_rng(6), scene(4)
    raw = observe(electrons, rng).astype(np.float32)
    picture, uncertainty = denoise(raw, electrons)
    raw[20:24, 30] = np.nan
    picture[100, 100:104] = np.inf
    found = FrameJudge(NOISE, reference).add(raw, picture, uncertainty)
    assert found.good, found.findings
    assert found.figures["removed"] != 0
    json.dumps(found.result(), allow_nan=False)


@pytest.mark.parametrize("shape", [(1, 1), (300, 1), (5, 300), (40, 40), (65, 129), (383, 512)])
def test_any_frame_shape(reference, shape):
    rng = np.random.default_rng(0)
    raw = rng.poisson(300, shape).astype(np.uint16)
    estimate = np.full(shape, 300, np.float32)
    for record in (reference, None):
        judge = FrameJudge(NOISE, record)
        for _ in range(2):
            json.dumps(judge.add(raw, estimate, estimate * 0.01).result(), allow_nan=False)
    constant = np.full(shape, 65535, np.uint16)
    json.dumps(
        FrameJudge(NOISE, reference, saturation_adu=65535.0)
        .add(constant, constant.astype(np.float32), estimate)
        .result(),
        allow_nan=False,
    )


def test_the_record_is_read_back_and_a_damaged_one_refused(reference, tmp_path):
    path = tmp_path / "trust_reference.json"
    path.write_text(reference.model_dump_json())
    assert read_reference(path) == reference
    assert isinstance(reference, TrustReference)
    path.write_text(reference.model_dump_json()[:-20])
    with pytest.raises(BundleError, match="not a record of trust figures"):
        read_reference(path)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("lost", []),
        ("levels_adu", [3.0, 2.0, 1.0, 0.5, 0.2, 0.1]),
        ("response", [[0.0] * KNOTS] * 3),
        ("response", [[1.0]] * 3),
        ("pixels", 0),
        ("floor_adu", float("nan")),
        ("shape_correlation", [[1.0, 2.0]]),
        ("shape_correlation", [[-9.0] * 7] * 7),
        ("domain", {}),
    ],
)
def test_a_record_whose_tables_do_not_fit_is_refused_when_it_is_read(
    reference, tmp_path, name, value
):
    whole = json.loads(reference.model_dump_json())
    whole["shape_correlation"] = np.eye(len(SHAPE_FEATURES)).tolist()
    path = tmp_path / "trust_reference.json"
    path.write_text(json.dumps(whole))
    read_reference(path)
    path.write_text(json.dumps(whole | {name: value}))
    with pytest.raises(BundleError, match=r"not a record .*restore the bundle") as refused:
        read_reference(path)
    assert "\n" not in str(refused.value)
