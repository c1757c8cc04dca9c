"""The graph that a CPU runs at one frame shape: the same answer, and nothing moved for nothing."""

from __future__ import annotations

import tracemalloc
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from quietscope.inference.bundle import open_bundle
from quietscope.inference.graph import depth_to_space
from quietscope.inference.graph.fixed_shape import graph_for_frames, rewrite_for_frames
from quietscope.inference.graph.operations import model_at_shape
from quietscope.inference.runtime.onnx_denoiser import OnnxDenoiser
from quietscope.inference.runtime.tiling import TiledDenoiser

HEIGHT, WIDTH = 30, 48


class Drawing:
    """Nodes and constants of a graph in the making."""

    def __init__(self):
        self.nodes, self.constants = [], {}
        self.random = np.random.default_rng(3)

    def add(self, operation, inputs, output, **attributes):
        self.nodes.append(helper.make_node(operation, inputs, [output], **attributes))
        return output

    def number(self, name, value):
        self.constants[name] = np.asarray(value)
        return name

    def weight(self, name, *shape):
        return self.number(name, self.random.standard_normal(shape).astype(np.float32) / 4)

    def crop(self, source, starts, output):
        sizes = zip(starts, (HEIGHT, WIDTH), strict=True)
        ends = [
            self.number(f"{output}.starts", np.array(starts)),
            self.number(f"{output}.ends", np.array([start + size for start, size in sizes])),
            self.number(f"{output}.axes", np.array([2, 3])),
        ]
        return self.add("Slice", [source, *ends], output)

    def channels(self, source, first, end, output):
        ends = [
            self.number(f"{output}.{name}", np.array([value]))
            for name, value in (("start", first), ("end", end), ("axis", 1))
        ]
        return self.add("Slice", [source, *ends], output)


def blind_spot(frames=1, kernel=3, order=range(9), slack=0):
    """Draw nine shifted images, their sub-lattices, a network of two layers, and the weaving."""
    draw, rows, columns = Drawing(), HEIGHT // 3, WIDTH // 3
    copies = [draw.crop("x", (k // 3, k % 3), f"shift{k}") for k in range(9)]
    draw.add("Concat", copies, "batch", axis=0)
    shape = draw.number("six", [9, frames, rows, 3, columns, 3])
    draw.add("Reshape", ["batch", shape], "pieces")
    draw.add("Transpose", ["pieces"], "turned", perm=[0, 1, 3, 5, 2, 4])
    draw.add("Reshape", ["turned", draw.number("four", [9, 9 * frames, rows, columns])], "all")
    parts = [draw.channels("all", 0, 4, "before"), draw.channels("all", 5, 9 * frames, "after")]
    draw.add("Concat", parts, "visible", axis=1)
    weights = [draw.weight("w0", 16, 9 * frames - 1, kernel, kernel), draw.weight("b0", 16)]
    draw.add("Conv", ["visible", *weights], "c0", pads=[kernel // 2] * 4)
    draw.add("Relu", ["c0"], "r0")
    draw.add("Conv", ["r0", draw.weight("w1", 2, 16, 1, 1), draw.weight("b1", 2)], "answers")
    if list(order) != list(range(9)):
        draw.add("Gather", ["answers", draw.number("order", np.array(order))], "sorted", axis=0)
    source = "answers" if list(order) == list(range(9)) else "sorted"
    draw.add("Reshape", [source, draw.number("five", [9, 1, 2, rows, columns])], "by_shift")
    draw.add("Transpose", ["by_shift"], "by_output", perm=[1, 2, 0, 3, 4])
    draw.add("Reshape", ["by_output", draw.number("flat", [1, 18, rows, columns])], "eighteen")
    draw.add("DepthToSpace", ["eighteen"], "interleaved", blocksize=3, mode="CRD")
    draw.add("Identity", ["interleaved"], "y")
    extended = [1, frames, HEIGHT + 2 + slack, WIDTH + 2]
    return finished(draw, extended, [1, 2, HEIGHT, WIDTH])


def finished(draw, before, after):
    graph = helper.make_graph(
        draw.nodes,
        "drawing",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, before)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, after)],
        [numpy_helper.from_array(value, name) for name, value in draw.constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    return onnx.shape_inference.infer_shapes(model, data_prop=True)


def run(model, image):
    settings = ort.SessionOptions()
    settings.log_severity_level = 3
    session = ort.InferenceSession(
        model.SerializeToString(), settings, providers=["CPUExecutionProvider"]
    )
    return session.run(None, {"x": image})[0]


def image(*shape):
    return np.random.default_rng(9).standard_normal(shape).astype(np.float32)


def operations(model):
    return Counter(node.op_type for node in model.graph.node)


@pytest.mark.parametrize(("frames", "kernel"), [(1, 3), (1, 1), (3, 3), (2, 5)])
def test_sub_lattices_are_moved_by_products_with_the_same_answer(frames, kernel):
    model, seen = blind_spot(frames, kernel), image(1, frames, HEIGHT + 2, WIDTH + 2)
    expected = run(model, seen)
    assert rewrite_for_frames(model) == ["space-to-depth", "depth-to-space"]
    onnx.checker.check_model(model, full_check=True)
    np.testing.assert_allclose(run(model, seen), expected, rtol=1e-4, atol=1e-5)
    left = operations(model)
    assert not {"Slice", "Concat", "Transpose", "DepthToSpace"} & set(left)


def test_finding_out_what_moves_takes_little_more_memory_than_what_moves(monkeypatch):
    monkeypatch.setitem(globals(), "HEIGHT", 600)
    monkeypatch.setitem(globals(), "WIDTH", 900)
    model, moved_bytes = blind_spot(frames=2), 9 * 17 * 200 * 300 * 4
    tracemalloc.start()
    try:
        assert "space-to-depth" in rewrite_for_frames(model)
        assert tracemalloc.get_traced_memory()[1] < 1.5 * moved_bytes
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(("most", "applied"), [(2**14, ["depth-to-space"]), (2**10, [])])
def test_a_graph_that_moves_more_than_memory_allows_stays_as_it_is(monkeypatch, most, applied):
    monkeypatch.setattr(depth_to_space, "LARGEST_MOVE_BYTES", most)
    model, seen = blind_spot(), image(1, 1, HEIGHT + 2, WIDTH + 2)
    expected = run(model, seen)
    rules = rewrite_for_frames(model)
    assert [rule for rule in rules if rule in ("space-to-depth", "depth-to-space")] == applied
    np.testing.assert_allclose(run(model, seen), expected, rtol=1e-4, atol=1e-5)


def test_a_second_time_changes_nothing():
    model = blind_spot()
    rewrite_for_frames(model)
    before = model.SerializeToString()
    assert rewrite_for_frames(model) == []
    assert model.SerializeToString() == before


@pytest.mark.parametrize(
    ("change", "applied"),
    [
        ({"order": (1, 0, *range(2, 9))}, ["space-to-depth", "runs"]),  # interleaved otherwise
        ({"slack": 3}, ["depth-to-space"]),  # rows that are not read
    ],
)
def test_what_only_looks_alike_is_left_alone(change, applied):
    model, seen = blind_spot(**change), image(1, 1, HEIGHT + 2 + change.get("slack", 0), WIDTH + 2)
    expected = run(model, seen)
    assert rewrite_for_frames(model) == applied
    np.testing.assert_allclose(run(model, seen), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("index", "applied"),
    [
        ([2, *range(WIDTH), WIDTH - 3], ["runs"]),
        ([*range(WIDTH - 1, -1, -1)], []),  # nothing but single pixels
    ],
)
def test_an_extension_is_copied_in_pieces(index, applied):
    draw = Drawing()
    draw.add("Gather", ["x", draw.number("index", np.array(index))], "wide", axis=3)
    draw.add("Identity", ["wide"], "y")
    model = finished(draw, [1, 1, HEIGHT, WIDTH], [1, 1, HEIGHT, len(index)])
    seen = image(1, 1, HEIGHT, WIDTH)
    expected = run(model, seen)
    assert rewrite_for_frames(model) == applied
    np.testing.assert_array_equal(run(model, seen), expected)


def table_graph(step=1, dtype=np.int64):
    """Draw a linear interpolation in a table, as a noise model's variance is looked up."""
    draw = Drawing()
    draw.number("table", np.sqrt(np.arange(40)).astype(np.float32))
    draw.number("low", np.float32(0))
    draw.number("high", np.float32(37.5))
    draw.add("Clip", ["x", "low", "high"], "place")
    draw.add("Cast", ["place"], "index", to=TensorProto.INT64)
    draw.add("Add", ["index", draw.number("step", np.asarray(step, dtype))], "next")
    draw.add("Gather", ["table", "next"], "above", axis=0)
    draw.add("Gather", ["table", "index"], "below", axis=0)
    draw.add("Sub", ["above", "below"], "difference")
    draw.add("Cast", ["index"], "whole", to=TensorProto.FLOAT)
    draw.add("Sub", ["place", "whole"], "fraction")
    draw.add("Mul", ["difference", "fraction"], "part")
    draw.add("Add", ["below", "part"], "y")
    return finished(draw, [1, 1, HEIGHT, WIDTH], [1, 1, HEIGHT, WIDTH])


def test_a_table_is_looked_up_in_rows_with_the_very_same_answer():
    model, seen = table_graph(), 40 * np.abs(image(1, 1, HEIGHT, WIDTH))
    expected = run(model, seen)
    assert rewrite_for_frames(model) == ["difference-table", "short-index", "table-rows"]
    np.testing.assert_array_equal(run(model, seen), expected)
    left = operations(model)
    assert left["GatherElements"] == 2
    assert not left["Gather"]


def test_a_wider_step_is_no_difference_of_neighbours():
    model, seen = table_graph(step=2), 30 * np.abs(image(1, 1, HEIGHT, WIDTH))
    expected = run(model, seen)
    assert "difference-table" not in rewrite_for_frames(model)
    np.testing.assert_array_equal(run(model, seen), expected)


@pytest.mark.parametrize(("index", "dropped"), [(range(WIDTH), True), (range(1, 49), False)])
def test_only_a_padding_that_changes_nothing_is_dropped(index, dropped):
    draw = Drawing()
    draw.number("index", np.array(index) % WIDTH)
    draw.add("Gather", ["x", "index"], "padded", axis=3)
    draw.add("Relu", ["padded"], "y")
    model = finished(draw, [1, 1, HEIGHT, WIDTH], [1, 1, HEIGHT, WIDTH])
    seen = image(1, 1, HEIGHT, WIDTH)
    expected = run(model, seen)
    assert (rewrite_for_frames(model) == ["identity"]) is dropped
    np.testing.assert_array_equal(run(model, seen), expected)


@pytest.fixture
def trained(trained_bundle) -> Path:
    return trained_bundle


@pytest.mark.parametrize("shape", [(64, 96), (61, 83), (5, 300)])
def test_what_training_exports_gives_the_same_answer(trained, shape):
    exported = open_bundle(trained).model_path
    random = np.random.default_rng(0)
    seen = random.poisson(300, (1, 1, *shape)).astype(np.uint16)
    settings = ort.SessionOptions()
    settings.log_severity_level = 3
    expected = ort.InferenceSession(
        str(exported), settings, providers=["CPUExecutionProvider"]
    ).run(None, {"observations": seen})
    out = np.empty((2, *shape), np.float32)
    with OnnxDenoiser(trained, shape, provider="cpu", threads=1) as denoiser:
        denoiser.denoise(seen[0], out)
    for found, wanted in zip(out, expected, strict=True):
        np.testing.assert_allclose(found, wanted[0, 0], rtol=1e-4, atol=1e-2)


@pytest.mark.parametrize("tile", [120, 200])
def test_tiles_of_what_training_exports_are_those_of_the_whole_frame(trained, tile):
    shape = (231, 290)
    seen = np.random.default_rng(0).poisson(300, (1, *shape)).astype(np.uint16)
    whole, pieces = (np.empty((2, *shape), np.float32) for _ in range(2))
    with OnnxDenoiser(trained, shape, provider="cpu", threads=1) as denoiser:
        denoiser.denoise(seen, whole)
    with TiledDenoiser(trained, shape, tile=tile, provider="cpu", threads=1) as denoiser:
        assert denoiser.tiles > 1
        denoiser.denoise(seen, pieces)
    np.testing.assert_array_equal(pieces, whole)


def test_what_training_exports_is_found_by_the_rules(trained):
    exported = open_bundle(trained).model_path
    model = model_at_shape(exported, (64, 96))
    expected = {"short-index", "table-rows", "space-to-depth", "depth-to-space"}
    assert expected <= set(rewrite_for_frames(model))
    left = operations(onnx.load_from_string(graph_for_frames(exported, (64, 96))))
    assert not {"GatherND", "Transpose", "DepthToSpace"} & set(left)
