"""Tiles: the same pixels as the whole frame, for every size, model and content."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from quietscope.inference.denoiser import Denoiser
from quietscope.inference.errors import BundleError, FrameMismatchError, InferenceError
from quietscope.inference.graph.receptive_field import ReceptiveField, receptive_field
from quietscope.inference.runtime.onnx_denoiser import OnnxDenoiser
from quietscope.inference.runtime.tiling import (
    TiledDenoiser,
    open_denoiser,
    spans,
    working_memory_bytes,
)


def unet(context_frames=0, flips=False, depth=2, width=8):
    """Build a U-Net with pooling and a rule for missing context, as training exports it."""
    random = np.random.default_rng(4)
    constants, nodes = [], []

    def constant(name, value):
        constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def node(kind, inputs, output, **attributes):
        nodes.append(helper.make_node(kind, inputs, [output], **attributes))
        return output

    def convolution(source, inputs, outputs, name):
        spread = np.sqrt(2 / (9 * inputs))
        weights = spread * random.standard_normal((outputs, inputs, 3, 3))
        constant(f"{name}.w", weights.astype(np.float32))
        made = node("Conv", [source, f"{name}.w"], f"{name}.c", pads=[1] * 4)
        return node("Relu", [made], f"{name}.r")

    frames = 1 + context_frames
    constant("scale", np.float32(100))
    constant("none", np.array([], np.float32))
    constant("twice", np.array([1, 1, 2, 2], np.float32))
    constant("zero", np.float32(0))
    constant("centre", np.float32(3))
    constant("rows_columns", np.array([2, 3], np.int64))
    x = node("Cast", ["observations"], "x", to=TensorProto.FLOAT)
    units = node("Div", [node("Sub", [x, "centre"], "centred"), "scale"], "units")
    if context_frames:
        size = node("Abs", [x], "size")
        largest = node("ReduceMax", [size, "rows_columns"], "largest", keepdims=1)
        there = node("Cast", [node("Greater", [largest, "zero"], "gt")], "there", to=1)
        units = node("Mul", [units, there], "present")
    kept, channels = [], frames
    for level in range(depth):
        units = convolution(units, channels, width * 2**level, f"e{level}")
        kept.append(units)
        channels = width * 2**level
        units = node("MaxPool", [units], f"p{level}", kernel_shape=[2, 2], strides=[2, 2])
    for level in reversed(range(depth)):
        units = convolution(units, channels, width * 2**level, f"m{level}")
        units = node("Resize", [units, "none", "twice"], f"u{level}", mode="nearest")
        units = node("Concat", [kept[level], units], f"j{level}", axis=1)
        channels = width * 2**level
        units = convolution(units, 2 * channels, channels, f"d{level}")
    constant("head", random.standard_normal((1, width, 1, 1)).astype(np.float32))
    out = node("Conv", [units, "head"], "out")
    node("Mul", [out, "scale"], "denoised")
    node("Abs", ["denoised"], "uncertainty")
    graph = helper.make_graph(
        nodes,
        "unet",
        [
            helper.make_tensor_value_info(
                "observations", TensorProto.UINT16, ["n", frames, "y", "x"]
            )
        ],
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 1, "y", "x"])
            for name in ("denoised", "uncertainty")
        ],
        constants,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)


def observations(shape, frames=1, seed=0):
    return np.random.default_rng(seed).poisson(200, (frames, *shape)).astype(np.uint16)


def both(bundle, seen, tile):
    shape = seen.shape[1:]
    whole, tiled = np.empty((2, 2, *shape), np.float32)
    with OnnxDenoiser(bundle, shape, provider="cpu", threads=1) as denoiser:
        denoiser.denoise(seen, whole)
    with TiledDenoiser(bundle, shape, tile=tile, provider="cpu", threads=1) as denoiser:
        assert denoiser.tiles > 1
        assert isinstance(denoiser, Denoiser)
        denoiser.denoise(seen, tiled)
    return whole, tiled


# ------------------------------------------------------------------------ where tiles lie


@given(
    length=st.integers(1, 3000),
    tile=st.integers(224, 800),
    reach=st.integers(0, 80),
    stride=st.sampled_from([1, 2, 4, 8, 16]),
)
@settings(max_examples=300)
def test_every_pixel_is_exact_once(length, tile, reach, stride):
    found = spans(length, tile, ReceptiveField(reach, stride))
    exact = [pixel for span in found for pixel in range(span.exact_start, span.exact_stop)]
    assert exact == list(range(length))
    for span in found:
        assert 0 <= span.start <= span.exact_start <= span.exact_stop <= span.stop <= length
        assert span.start % stride == 0
        assert span.start == 0 or span.exact_start - span.start > reach
        assert span.stop == length or span.stop - span.exact_stop > reach
        assert span.size <= max(tile + stride, 1)
    assert len({span.size for span in found}) == 1
    assert found[-1].stop == length


def test_tiles_are_no_larger_than_as_many_of_them_need():
    found = spans(2048, 1024, ReceptiveField(45, 6))
    assert len(found) == 3
    assert found[0].size <= (2048 + 2 * 2 * 48) / 3 + 6


def test_a_tile_smaller_than_what_the_model_sees_is_refused():
    with pytest.raises(InferenceError, match=r"is 120 pixels, expected at least \d+ for a model"):
        spans(1000, 120, ReceptiveField(60, 8))


# ------------------------------------------------------------------------- the same pixels


@pytest.mark.parametrize("shape", [(256, 384), (200, 300), (160, 500)])
def test_tiles_equal_the_whole(make_bundle, shape):
    whole, tiled = both(make_bundle(graph=unet()), observations(shape), tile=128)
    np.testing.assert_allclose(tiled, whole, rtol=1e-5, atol=1e-3)


def test_they_would_not_if_they_overlapped_less(make_bundle, monkeypatch):
    """The overlap is needed: the test above can fail."""
    from quietscope.inference.runtime import tiling

    monkeypatch.setattr(tiling, "receptive_field", lambda model: ReceptiveField(3, 4))
    whole, tiled = both(make_bundle(graph=unet()), observations((256, 384)), tile=128)
    assert np.abs(tiled - whole).max() > 0.1


def test_they_would_not_off_the_grid(make_bundle, monkeypatch):
    from quietscope.inference.runtime import tiling

    monkeypatch.setattr(tiling, "receptive_field", lambda model: ReceptiveField(38, 1))
    assert [span.start % 4 for span in spans(384, 148, ReceptiveField(38, 1))][1] == 2
    whole, tiled = both(make_bundle(graph=unet()), observations((384, 384)), tile=148)
    assert np.abs(tiled - whole).max() > 0.1


def test_context_and_its_dark_corners(make_bundle):
    """A tile that is all zero in a frame that exists is not a missing frame."""
    seen = observations((256, 384), frames=3)
    seen[1, :, :200] = 0
    seen[2] = 0
    bundle = make_bundle(context_frames=2, graph=unet(context_frames=2))
    whole, tiled = both(bundle, seen, tile=128)
    np.testing.assert_allclose(tiled, whole, rtol=1e-5, atol=1e-3)
    assert not seen[1, :, :200].any()  # the caller's frames are not changed


# --------------------------------------------------------------------- what the graph says


def test_the_reach_is_an_upper_bound_and_a_close_one(make_bundle):
    """Change one pixel: nothing further away than the reach may move."""
    path = make_bundle(graph=unet())
    field = receptive_field(path / "model.onnx")
    assert field.stride_px == 4
    seen = observations((128, 128))
    before, after = np.empty((2, 2, 128, 128), np.float32)
    farthest = 0
    with OnnxDenoiser(path, (128, 128), provider="cpu", threads=1) as denoiser:
        denoiser.denoise(seen, before)
        for row, column in ((64, 64), (61, 66), (63, 63)):
            changed = seen.copy()
            changed[0, row, column] = 60_000
            denoiser.denoise(changed, after)
            rows, columns = np.nonzero(before[0] != after[0])
            distances = np.maximum(np.abs(rows - row), np.abs(columns - column))
            farthest = max(farthest, int(distances.max()))
    assert field.reach_px / 2 < farthest <= field.reach_px


def test_a_box_filter(make_bundle):
    field = receptive_field(make_bundle(radius=2) / "model.onnx")
    assert field.stride_px == 1
    # Padding apart from the convolution hides the kernel's centre: at most twice the radius.
    assert 2 <= field.reach_px <= 4


def of_the_whole_frame():
    """A model of which every pixel depends on all others."""
    model = unet()
    whole = helper.make_node("GlobalAveragePool", ["out"], ["mean"])
    place = next(i for i, node in enumerate(model.graph.node) if node.output[0] == "denoised")
    model.graph.node.insert(place, whole)
    model.graph.node[place + 1].input[0] = "sum"
    model.graph.node.insert(place + 1, helper.make_node("Add", ["out", "mean"], ["sum"]))
    onnx.checker.check_model(model)
    return model


def test_a_model_that_looks_at_the_whole_frame_is_refused(make_bundle):
    with pytest.raises(BundleError, match="GlobalAveragePool may depend on the whole frame"):
        TiledDenoiser(
            make_bundle(graph=of_the_whole_frame()), (512, 512), tile=128, provider="cpu"
        )


# ------------------------------------------------------------------------------- choosing


def test_small_frames_are_not_tiled(make_bundle):
    bundle = make_bundle()
    assert isinstance(open_denoiser(bundle, (64, 64), provider="cpu"), OnnxDenoiser)
    tiled = open_denoiser(bundle, (64, 300), tile=128, provider="cpu")
    assert isinstance(tiled, TiledDenoiser)
    tiled.close()
    tiled.close()


def test_frames_beyond_the_memory_are_tiled(make_bundle, monkeypatch):
    from quietscope.inference.runtime import tiling

    bundle = make_bundle()
    monkeypatch.setattr(tiling, "TILE_PX", 128)
    monkeypatch.setattr(tiling, "working_memory_bytes", lambda model, shape: 1 << 60)
    assert isinstance(open_denoiser(bundle, (300, 64), provider="cpu"), TiledDenoiser)
    assert isinstance(open_denoiser(bundle, (300, 64), tile=0, provider="cpu"), OnnxDenoiser)


def test_without_a_gpu_large_frames_are_tiled_if_the_model_can_be(make_bundle, monkeypatch):
    from quietscope.inference.runtime import tiling

    monkeypatch.setattr(tiling, "TILE_PX", 128)
    monkeypatch.setattr(tiling, "WHOLE_BYTES", 1)
    for name, graph, kind in (
        ("near", unet(), TiledDenoiser),
        ("far", of_the_whole_frame(), OnnxDenoiser),
    ):
        bundle = make_bundle(name, graph=graph)
        with open_denoiser(bundle, (304, 64), provider="cpu") as denoiser:
            assert isinstance(denoiser, kind)


def test_working_memory_grows_with_the_frame(make_bundle):
    model = make_bundle(graph=unet()) / "model.onnx"
    small, large = (working_memory_bytes(model, (n, n)) for n in (128, 512))
    assert large == pytest.approx(16 * small, rel=0.05)


def test_frames_that_do_not_fit(make_bundle):
    with (
        TiledDenoiser(make_bundle(), (64, 300), tile=128, provider="cpu") as denoiser,
        pytest.raises(FrameMismatchError, match=r"expected \(1, 64, 300\)"),
    ):
        denoiser.denoise(np.zeros((1, 64, 301), np.uint16), np.zeros((2, 64, 300), np.float32))
