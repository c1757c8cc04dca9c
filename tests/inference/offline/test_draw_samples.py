"""Samples as an axis of their own: from a model that draws them; refused for one that does not."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from quietscope.benchmarks.box_model import box_graph
from quietscope.inference.bundle import SAMPLER, file_sha256
from quietscope.inference.errors import InferenceError
from quietscope.inference.graph.inspection import PIXEL_MAPS
from quietscope.inference.offline.denoise_stack import denoise_stack
from quietscope.inference.offline.draw_samples import draw_samples
from quietscope.inference.offline.sample_estimate import estimate_of
from quietscope.storage.open_stack import open_stack
from quietscope.storage.stack import stack_from_array


def counts(frames: int = 8) -> np.ndarray:
    y, x = np.mgrid[:48, :56]
    light = 10 + 8 * np.sin(x / 4) * np.sin(y / 5)
    return np.random.default_rng(0).poisson(light, (frames, 48, 56)).astype(np.uint16)


def with_sampler(bundle: Path) -> Path:
    """Add a graph whose samples are the frame and, of every second one, ten ADU more."""
    nodes = [
        helper.make_node("Cast", ["observations"], ["frame"], to=TensorProto.FLOAT),
        helper.make_node("Gather", ["draw", "first"], ["drawn"], axis=0),
        helper.make_node("Mod", ["drawn", "two"], ["odd"]),
        helper.make_node("Cast", ["odd"], ["here"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["here", "ten"], ["more"]),
        helper.make_node("Add", ["frame", "more"], ["sample"]),
    ]
    shape = ["N", 1, "Y", "X"]
    graph = helper.make_graph(
        nodes,
        "sampler",
        [
            helper.make_tensor_value_info("observations", TensorProto.UINT16, shape),
            helper.make_tensor_value_info("draw", TensorProto.INT64, [3]),
        ],
        [helper.make_tensor_value_info("sample", TensorProto.FLOAT, shape)],
        [
            helper.make_tensor("first", TensorProto.INT64, [], [0]),
            helper.make_tensor("two", TensorProto.INT64, [], [2]),
            helper.make_tensor("ten", TensorProto.FLOAT, [], [10.0]),
        ],
    )
    opset = [helper.make_opsetid("", 18)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), bundle / SAMPLER)
    manifest = json.loads((bundle / "manifest.json").read_text(encoding="utf-8"))
    manifest["sha256"][SAMPLER] = file_sha256(bundle / SAMPLER)
    (bundle / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    return bundle


def test_samples_are_written_along_an_axis_and_an_estimate_of_them_is_not(make_bundle, tmp_path):
    stack = stack_from_array(counts(2), axes=("time",))
    model = with_sampler(make_bundle())
    draw_samples(stack, model, tmp_path / "all.ome.zarr", 9, provider="cpu")
    written = open_stack(tmp_path / "all.ome.zarr")
    assert (written.sizes["time"], written.sizes["sample"]) == (2, 9)
    drawn = np.stack([written.frame(i) for i in range(18) if written.axes(i)["time"] == 0])
    more = np.unique(drawn - counts(2)[0])
    np.testing.assert_array_equal(more, [0.0, 10.0])
    for estimate in ("mmse", "map"):
        out = tmp_path / f"{estimate}.ome.zarr"
        said = draw_samples(stack, model, out, 9, estimate=estimate, provider="cpu")
        assert (said["samples"], said["estimate"], said["frames_denoised"]) == (9, estimate, 2)
        one = open_stack(out)
        assert len(one) == 2
        np.testing.assert_allclose(one.frame(0), estimate_of(drawn, estimate), atol=1e-3)
    with pytest.raises(InferenceError, match="estimate is 'mode', expected mmse or map"):
        draw_samples(stack, model, tmp_path / "no", 9, estimate="mode")


def test_a_model_of_the_mean_alone_draws_nothing(make_bundle, tmp_path):
    stack = stack_from_array(counts(2))
    with pytest.raises(InferenceError, match="draws no samples; train one that does") as caught:
        draw_samples(stack, make_bundle(), tmp_path / "out.ome.zarr", 3)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out.ome.zarr").exists()
    with pytest.raises(InferenceError, match="samples is 0, expected 1 to"):
        draw_samples(stack, make_bundle("other"), tmp_path / "out.ome.zarr", 0)


def test_with_pixel_maps_it_is_the_maps_that_are_named(make_bundle, tmp_path):
    graph = box_graph()
    maps = np.ones((1, 3, 48, 56), np.float32)
    graph.graph.initializer.append(numpy_helper.from_array(maps, PIXEL_MAPS))
    bundle = make_bundle(graph=graph)
    said = json.loads((bundle / "manifest.json").read_text(encoding="utf-8"))
    (bundle / "manifest.json").write_text(json.dumps(said | {"algorithm": "hdn"}), "utf-8")
    with pytest.raises(InferenceError, match=r"takes each pixel .* \(--no-pixel-maps\)"):
        draw_samples(stack_from_array(counts(2)), bundle, tmp_path / "out.ome.zarr", 3)


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
    for estimate in ("mmse", "map"):
        out = tmp_path / f"{estimate}.ome.zarr"
        said = draw_samples(few, model.path, out, 16, estimate=estimate, provider="cpu")
        assert said["estimate"] == estimate
        written = open_stack(out)
        assert len(written) == 2
        np.testing.assert_allclose(
            written.frame(0), estimate_of(of_first, estimate), rtol=1e-5, atol=1e-4
        )
