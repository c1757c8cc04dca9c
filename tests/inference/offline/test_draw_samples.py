"""Samples as an axis of their own: from a model that draws them; refused for one that does not."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from quietscope.inference.errors import InferenceError
from quietscope.inference.offline.denoise_stack import denoise_stack
from quietscope.inference.offline.draw_samples import draw_samples
from quietscope.storage.open_stack import open_stack
from quietscope.storage.stack import stack_from_array


def counts(frames: int = 8) -> np.ndarray:
    y, x = np.mgrid[:48, :56]
    light = 10 + 8 * np.sin(x / 4) * np.sin(y / 5)
    return np.random.default_rng(0).poisson(light, (frames, 48, 56)).astype(np.uint16)


def test_a_model_of_the_mean_alone_draws_nothing(make_bundle, tmp_path):
    stack = stack_from_array(counts(2))
    with pytest.raises(InferenceError, match="draws no samples; train one that does") as caught:
        draw_samples(stack, make_bundle(), tmp_path / "out.ome.zarr", 3)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out.ome.zarr").exists()
    with pytest.raises(InferenceError, match="samples is 0, expected 1 to"):
        draw_samples(stack, make_bundle("other"), tmp_path / "out.ome.zarr", 0)


@pytest.mark.long
@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize("algorithm", ["divnoising", "hdn"])
def test_samples_scatter_around_the_estimate_and_repeat_with_their_seed(tmp_path, algorithm):
    from quietscope.training.options import TrainingOptions
    from quietscope.training.train import train

    torch.set_num_threads(1)
    stack = stack_from_array(counts(), axes=("time",))
    options = TrainingOptions(
        algorithm=algorithm, preset="fast", steps=60, batch=4, patch=32, posterior_samples=16
    )
    model = train([stack], tmp_path / "model", options, accept=True).bundle
    few = stack_from_array(counts()[:2], axes=("time",))
    result = draw_samples(few, model.path, tmp_path / "a.ome.zarr", 16, provider="cpu")
    assert (result["samples"], result["frames_denoised"]) == (16, 2)
    draw_samples(few, model.path, tmp_path / "b.ome.zarr", 16, provider="cpu")
    first, again = (open_stack(tmp_path / f"{name}.ome.zarr") for name in "ab")
    assert len(first) == 32
    pixels = np.stack([first.frame(i) for i in range(32)])
    np.testing.assert_array_equal(pixels, np.stack([again.frame(i) for i in range(32)]))
    denoise_stack(few, model.path, tmp_path / "mean.ome.zarr", provider="cpu")
    mean = open_stack(tmp_path / "mean.ome.zarr").frame(0)
    of_first = np.stack([first.frame(i) for i in range(32) if first.axes(i).get("time", 0) == 0])
    assert of_first.shape[0] == 16
    scatter = of_first.std(axis=0).mean()
    assert scatter > 0
    assert np.abs(of_first.mean(axis=0) - mean).mean() < 0.6 * scatter
