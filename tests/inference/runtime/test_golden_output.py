"""The golden output: a machine that computes something else is refused before the first frame."""

from __future__ import annotations

import numpy as np
import pytest

from quietscope.inference.bundle import (
    GOLDEN_OUTPUT,
    MANIFEST,
    Manifest,
    file_sha256,
    open_bundle,
)
from quietscope.inference.errors import BundleError, InferenceError, ProviderError
from quietscope.inference.runtime.golden_output import EDGE, GoldenOutput, write_golden_output
from quietscope.inference.runtime.onnx_denoiser import OnnxDenoiser

SHAPE = (40, 56)


def reseal(path):
    """Accept what is in the directory now, as a fresh export would."""
    manifest = Manifest.model_validate_json((path / MANIFEST).read_text(encoding="utf-8"))
    hashes = {f.name: file_sha256(f) for f in path.iterdir() if f.name != MANIFEST}
    (path / MANIFEST).write_text(
        manifest.model_copy(update={"sha256": hashes}).model_dump_json(), encoding="utf-8"
    )


def with_golden(path, shape=(200, 120), frames=1):
    random = np.random.default_rng(0)
    write_golden_output(path, random.integers(90, 900, (frames, *shape), dtype=np.uint16))
    reseal(path)
    return path


def falsify(path, change):
    with np.load(path / GOLDEN_OUTPUT) as stored:
        arrays = dict(stored)
    change(arrays)
    np.savez_compressed(path / GOLDEN_OUTPUT, **arrays)
    reseal(path)


def test_a_machine_that_computes_the_same_runs(make_bundle):
    with OnnxDenoiser(with_golden(make_bundle()), SHAPE, provider="cpu") as denoiser:
        assert denoiser.golden_output_difference < 1e-5


def test_bundles_without_one_run_too(make_bundle):
    with OnnxDenoiser(make_bundle(), SHAPE, provider="cpu") as denoiser:
        assert denoiser.golden_output_difference is None


def test_the_piece_is_from_the_middle_and_no_larger_than_the_frame(make_bundle):
    golden = GoldenOutput(open_bundle(with_golden(make_bundle("large"))))
    assert golden.frame_shape == (EDGE, EDGE)
    assert golden.expected.shape == (2, EDGE, EDGE)
    small = with_golden(make_bundle("small", context_frames=2), shape=(7, 130), frames=3)
    assert GoldenOutput(open_bundle(small)).observations.shape == (3, 7, EDGE)


@pytest.mark.parametrize("wrong", [1.05, np.nan])
def test_a_machine_that_computes_something_else_is_refused(make_bundle, wrong):
    path = with_golden(make_bundle())

    def change(arrays):
        arrays["denoised"] = arrays["denoised"] * np.float32(wrong)

    falsify(path, change)
    with pytest.raises(ProviderError, match=r"does not compute what the trainer .*--provider cpu"):
        OnnxDenoiser(path, SHAPE, provider="cpu")


def test_a_damaged_answer_is_refused(make_bundle):
    path = with_golden(make_bundle())
    falsify(path, lambda arrays: arrays.pop("uncertainty"))
    with pytest.raises(BundleError, match=r"golden\.npz cannot be read"):
        OnnxDenoiser(path, SHAPE, provider="cpu")


def test_an_answer_with_objects_in_it_runs_no_code(make_bundle):
    path = with_golden(make_bundle())
    falsify(path, lambda arrays: arrays.update(observations=np.array([{}], dtype=object)))
    with pytest.raises(BundleError, match=r"golden\.npz cannot be read"):
        OnnxDenoiser(path, SHAPE, provider="cpu")


# ------------------------------------------------------------------------------ precision


def test_half_precision_is_for_gpus(make_bundle):
    with pytest.raises(InferenceError, match="fp16 is for GPUs"):
        OnnxDenoiser(make_bundle(), SHAPE, provider="cpu", precision="fp16")


def test_eight_bits_are_refused_with_the_reason(make_bundle):
    with pytest.raises(InferenceError, match=r"int8 is not offered.*--preset fast"):
        OnnxDenoiser(make_bundle(), SHAPE, provider="cpu", precision="int8")


def test_an_unknown_precision_is_named(make_bundle):
    with pytest.raises(InferenceError, match="'fp8', expected one of fp32, fp16, int8"):
        OnnxDenoiser(make_bundle(), SHAPE, provider="cpu", precision="fp8")
