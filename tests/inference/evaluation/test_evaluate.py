"""Scores: their definitions, and the truth that a frame is held against."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage
from skimage.metrics import peak_signal_noise_ratio

from quietscope.inference.classical.denoiser import ClassicalDenoiser
from quietscope.inference.errors import FrameMismatchError, InferenceError
from quietscope.inference.evaluation.evaluate import evaluate
from quietscope.inference.evaluation.metrics import nrmse, psnr_db, ssim_map
from quietscope.storage.open_stack import open_stack
from quietscope.storage.stack import stack_from_array

SHAPE = (48, 64)


class Filter:
    """A denoiser whose answer is known: the blurred mean of its inputs, one scatter for all."""

    def __init__(self, context_frames=0, sigma=0.0, uncertainty=0.0, shape=SHAPE):
        self.frame_shape = shape
        self.context_frames = context_frames
        self._sigma, self._uncertainty = sigma, uncertainty

    def denoise(self, observations, out):
        mean = observations.mean(axis=0, dtype=np.float64)
        out[0] = ndimage.gaussian_filter(mean, self._sigma) if self._sigma else mean
        out[1] = self._uncertainty

    def close(self):
        pass


def scene():
    random = np.random.default_rng(3)
    blobs = ndimage.gaussian_filter(random.random(SHAPE), 4)
    return 100 + 3000 * (blobs - blobs.min())


def repeats(count=40, seed=0):
    random = np.random.default_rng(seed)
    return random.poisson(scene(), (count, *SHAPE)).astype(np.uint16)


def test_psnr_is_the_definition():
    truth, image = scene(), repeats(1)[0]
    expected = peak_signal_noise_ratio(truth, image, data_range=truth.max() - truth.min())
    assert psnr_db(image, truth) == pytest.approx(expected, rel=1e-12)
    assert nrmse(image, truth) == pytest.approx(10 ** (-expected / 20), rel=1e-9)
    assert psnr_db(truth, truth) == float("inf")
    assert ssim_map(truth, truth)[0] == pytest.approx(1.0)


def test_scores_against_a_given_truth():
    noisy = repeats(3)
    evaluation = evaluate(
        stack_from_array(noisy), Filter(), truth=stack_from_array(scene().astype(np.float32)[None])
    )
    result = evaluation.result()
    expected = np.mean([psnr_db(frame, scene().astype(np.float32)) for frame in noisy])
    assert result["psnr_db"] == pytest.approx(expected, abs=1e-6)
    assert result["psnr_db"] == result["psnr_raw_db"]
    assert result["frames"] == 3
    assert result["residual_correlation"] is None


def test_a_truth_per_frame_is_matched_by_axes():
    clean = np.stack([scene() * (1 + i) for i in range(4)]).astype(np.float32)
    noisy = np.random.default_rng(0).poisson(clean).astype(np.uint16)
    evaluation = evaluate(stack_from_array(noisy), Filter(), truth=stack_from_array(clean))
    for frame in evaluation.frames:
        assert frame.psnr_db == pytest.approx(psnr_db(noisy[frame.index], clean[frame.index]))


def test_static_truth_leaves_the_frame_itself_out():
    noisy = repeats()
    evaluation = evaluate(stack_from_array(noisy), Filter(), static=True, frames=[0, 7])
    for frame in evaluation.frames:
        others = np.delete(noisy, frame.index, axis=0).mean(axis=0, dtype=np.float64)
        assert frame.psnr_db == pytest.approx(psnr_db(noisy[frame.index], others), abs=1e-6)


def test_static_truth_leaves_every_input_out():
    noisy = repeats()
    evaluation = evaluate(
        stack_from_array(noisy), Filter(context_frames=3), static=True, frames=[20]
    )
    others = np.delete(noisy, [17, 18, 19, 20], axis=0).mean(axis=0, dtype=np.float64)
    inputs = noisy[17:21].mean(axis=0, dtype=np.float64).astype(np.float32)
    assert evaluation.frames[0].psnr_db == pytest.approx(psnr_db(inputs, others), abs=1e-5)


def test_static_scenes_are_kept_apart():
    """Repeats run along time alone: channels are scenes of their own."""
    noisy = np.stack([repeats(10, seed=1), 3 * repeats(10, seed=2)], axis=1)
    evaluation = evaluate(
        stack_from_array(noisy, axes=("time", "channel")), Filter(), static=True, frames=[4, 5]
    )
    for frame, channel in zip(evaluation.frames, (0, 1), strict=True):
        others = np.delete(noisy[:, channel], 2, axis=0).mean(axis=0, dtype=np.float64)
        assert frame.psnr_db == pytest.approx(psnr_db(noisy[2, channel], others), abs=1e-6)


def test_an_honest_uncertainty_has_a_z_of_one():
    flat = np.full((30, *SHAPE), 400.0)
    flat[:, 0, 0] = 800
    noisy = np.random.default_rng(0).poisson(flat).astype(np.uint16)
    stack = stack_from_array(noisy)
    honest = evaluate(stack, Filter(uncertainty=20.0), static=True)
    assert honest.uncertainty_z_std == pytest.approx(1.0, abs=0.02)
    bold = evaluate(stack, Filter(uncertainty=10.0), static=True)
    assert bold.uncertainty_z_std == pytest.approx(1.9, abs=0.1)
    shares = honest.result()["uncertainty_coverage"]
    assert list(shares.values()) == pytest.approx([0.50, 0.68, 0.95], abs=0.02)
    assert bold.uncertainty_coverage["95"] < 0.8
    silent = evaluate(stack, Filter(), static=True)
    assert silent.uncertainty_z_std is None
    assert silent.result()["uncertainty_coverage"] is None


def test_smoothing_helps_and_the_scores_say_so():
    stack = stack_from_array(repeats())
    result = evaluate(stack, Filter(sigma=1.0), static=True, frames=range(5)).result()
    assert result["psnr_db"] > result["psnr_raw_db"] + 3
    assert result["ssim"] > result["ssim_raw"]
    assert result["residual_correlation"] is not None


def test_a_bundle_is_scored_with_its_own_noise_model(make_bundle):
    noisy = np.random.default_rng(0).poisson(300.0, (20, *SHAPE)).astype(np.uint16)
    noisy[:, ::16] += 60
    result = evaluate(
        stack_from_array(noisy), make_bundle(), static=True, provider="cpu", threads=1
    ).result()
    assert result["provider"] == "CPUExecutionProvider"
    assert result["psnr_db"] is not None
    # A 3×3 mean leaves 1 − 1/9 of photon noise in the residual, and says so in its uncertainty.
    assert 0.9 < result["variance_ratio"] < 1.6


def whole(truth):
    return stack_from_array(truth[None].astype(np.float32))


@pytest.mark.parametrize("top", [65535, 4095])
def test_nothing_is_known_of_a_saturated_recording(make_bundle, top):
    """Also where the camera clips below what its pixels could hold, and does not say so."""
    truth = whole(scene())
    stack = stack_from_array(np.full((4, *SHAPE), top, np.uint16))
    result = evaluate(stack, make_bundle(), truth=truth, provider="cpu", threads=1).result()
    assert result["saturated_share"] == 1.0
    assert result["verdict"]["word"] == "unknown"
    assert result["verdict"]["frames_green"] == 0
    assert result["verdict"]["frames_unknown"] == 4
    assert "not known" in result["verdict"]["sentence"]
    assert any("100% of the pixels are saturated" in remark for remark in result["remarks"])


def test_a_few_clipped_points_are_no_remark():
    noisy = repeats(3)
    noisy[:, 5, 5] = 65535
    result = evaluate(stack_from_array(noisy), Filter(), truth=whole(scene())).result()
    assert 0 < result["saturated_share"] < 0.001
    assert result["remarks"] == []


def test_a_model_with_other_channels_is_scored_on_its_own_channel(make_bundle):
    noisy = np.stack([repeats(10, seed=1), 3 * repeats(10, seed=2)], axis=1)
    stack = replace(
        stack_from_array(noisy, axes=("time", "channel")), channel_names=("DAPI", "GFP")
    )
    bundle = make_bundle(channel="GFP", other_channels=("DAPI",))
    evaluation = evaluate(stack, bundle, static=True, provider="cpu", threads=1)
    assert [stack.axes(frame.index)["channel"] for frame in evaluation.frames] == [1] * 10
    others = np.delete(noisy[:, 1], 2, axis=0).mean(axis=0, dtype=np.float64)
    assert evaluation.frames[2].psnr_raw_db > psnr_db(noisy[2, 1], others) - 1
    with pytest.raises(InferenceError, match="no frames of the model's channel were chosen"):
        evaluate(stack, bundle, static=True, provider="cpu", threads=1, frames=[0, 2])


@pytest.mark.realdata
def test_real_repeats_score_as_measured_elsewhere(real_data):
    """Photon counting, 50 repeats: single frames are 26.9 dB from the mean of the rest."""
    paths = sorted((real_data / "nandb_fkbp_confocal").glob("*.tif"))
    raw = []
    for path in paths:
        stack = open_stack(path)
        denoiser = ClassicalDenoiser("gaussian", stack.frame_shape)
        result = evaluate(stack, denoiser, static=True, frames=[0, 25]).result()
        raw.append(result["psnr_raw_db"])
        assert result["psnr_db"] > result["psnr_raw_db"] + 4
        assert result["ssim"] > result["ssim_raw"]
    assert np.mean(raw) == pytest.approx(26.9, abs=0.4)


# ------------------------------------------------------------------------------- refusals


def test_exactly_one_kind_of_truth():
    stack = stack_from_array(repeats(5))
    for given in ({}, {"static": True, "truth": stack}):
        with pytest.raises(InferenceError, match="either --truth STACK or --static"):
            evaluate(stack, Filter(), **given)


def test_too_few_repeats_are_refused():
    with pytest.raises(InferenceError, match="repeats of one scene along time"):
        evaluate(stack_from_array(repeats(3)), Filter(), static=True)
    with pytest.raises(InferenceError, match=r"leave 3 frames.*expected at least 4"):
        evaluate(stack_from_array(repeats(6)), Filter(context_frames=2), static=True, frames=[5])


def test_a_truth_of_another_shape_is_refused():
    stack = stack_from_array(repeats(5))
    with pytest.raises(InferenceError, match="one true frame, or one per frame"):
        evaluate(stack, Filter(), truth=stack_from_array(repeats(4)))
    with pytest.raises(InferenceError, match="one true frame"):
        evaluate(stack, Filter(), truth=stack_from_array(repeats(5)[:, :-1]))


def test_a_flat_truth_has_no_scale():
    flat = stack_from_array(np.full((1, *SHAPE), 5, np.uint16))
    with pytest.raises(InferenceError, match="same in every pixel"):
        evaluate(stack_from_array(repeats(2)), Filter(), truth=flat)


def test_a_denoiser_of_another_shape_is_refused():
    with pytest.raises(FrameMismatchError, match=r"built for \(4, 4\)"):
        evaluate(stack_from_array(repeats(5)), Filter(shape=(4, 4)), static=True)


# -------------------------------------------------------------------------------- figures


def test_maps_of_worst_median_and_best_frame(tmp_path):
    from matplotlib.image import imread

    evaluate(
        stack_from_array(repeats(8)), Filter(sigma=1.0), static=True, figures=tmp_path / "maps"
    )
    found = sorted(path.name.split("_")[0] for path in (tmp_path / "maps").iterdir())
    assert found == ["best", "median", "worst"]
    picture = imread(next((tmp_path / "maps").iterdir()))
    assert picture.shape[0] > 400
    assert picture.std() > 0.05


@pytest.mark.parametrize("place", [(0, 0), (880, 1080), (899, 500), (300, 520)])
def test_the_drawn_part_of_a_large_frame_holds_its_largest_error(place):
    from quietscope.inference.evaluation.error_maps import SHOWN_PX, worst_part

    error = np.zeros((900, 1100))
    error[place] = 1
    part = worst_part(error)
    assert error[part].sum() == 1
    assert error[part].shape == (SHOWN_PX, SHOWN_PX)
    narrow = error[:, :70]
    assert narrow[worst_part(narrow)].shape == (SHOWN_PX, 70)


def test_absent_frames_are_neither_scored_nor_part_of_the_truth():
    noisy = repeats(20)
    present = np.ones(20, bool)
    present[[2, 3, 9]] = False
    gapped = np.where(present[:, None, None], noisy, 0)
    scored = evaluate(stack_from_array(gapped, present=present), Filter(), static=True)
    alone = evaluate(stack_from_array(noisy[present]), Filter(), static=True)
    assert [frame.index for frame in scored.frames] == np.flatnonzero(present).tolist()
    assert scored.result()["psnr_db"] == pytest.approx(alone.result()["psnr_db"], rel=1e-12)


def test_a_frame_whose_truth_is_absent_is_not_scored():
    clean = np.stack([scene()] * 4).astype(np.float32)
    truth = stack_from_array(clean, present=np.array([True, False, True, True]))
    scored = evaluate(stack_from_array(repeats(4)), Filter(), truth=truth)
    assert [frame.index for frame in scored.frames] == [0, 2, 3]


# ---------------------------------------------------------------------- repeats that do not rest


class Poissonian:
    """The noise of `repeats`: 1 ADU per photon."""

    signal_range_adu = (0.0, 4096.0)
    least_variance_adu2 = 0.0

    def variance(self, signal):
        return np.maximum(np.asarray(signal, float), 0)


def of_a_scene(pixels):
    return evaluate(
        stack_from_array(pixels), Filter(), static=True, noise_model=Poissonian(), frames=[5]
    )


def moving(step):
    random = np.random.default_rng(1)
    scenes = [np.roll(scene(), round(step * t), axis=1) for t in range(40)]
    return random.poisson(np.stack(scenes)).astype(np.uint16)


def test_repeats_at_rest_pass_without_a_remark():
    assert of_a_scene(repeats()).remarks == ()


@pytest.mark.parametrize("step", [0.2, 7], ids=["slowly", "from frame to frame"])
def test_a_scene_that_moves_is_told(step):
    (remark,) = of_a_scene(moving(step)).remarks
    assert remark.startswith("the scene moved or bleached")
    assert "--truth" in remark


def test_each_scene_that_moves_is_named():
    pixels = np.stack([repeats(), moving(3)], axis=1)
    evaluation = evaluate(
        stack_from_array(pixels, axes=("time", "position")),
        Filter(),
        static=True,
        noise_model=Poissonian(),
        frames=[4, 5, 6, 7],
    )
    (remark,) = {*evaluation.remarks}
    assert remark.startswith("position 1: the scene moved")
