"""The graph that a CPU runs at one frame shape: the same answer, and nothing moved for nothing."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from quietscope.inference.bundle import open_bundle
from quietscope.inference.frame_graph import graph_for_frames, rewrite_for_frames
from quietscope.inference.onnx_denoiser import OnnxDenoiser
from quietscope.inference.operations import model_at_shape
from quietscope.specimen import CameraLaw, Specimen
from quietscope.stacks import stack_from_array
from quietscope.training.train import TrainingOptions, train

HEIGHT, WIDTH = 32, 48
FLIPS = ((), (3,), (2,), (2, 3))
SMALLEST, LARGEST = np.iinfo(np.int64).min, np.iinfo(np.int64).max


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

    def flip(self, source, axes, output):
        if not axes:
            return source
        count = len(axes)
        ends = [
            self.number(f"{output}.starts", np.full(count, LARGEST)),
            self.number(f"{output}.ends", np.full(count, SMALLEST)),
            self.number(f"{output}.axes", np.array(axes)),
            self.number(f"{output}.steps", np.full(count, -1)),
        ]
        return self.add("Slice", [source, *ends], output)


def blind_spot(kernel=3, order=(0, 1, 2, 3), pool=2, pads=None, inner=16, head=1):
    """Draw four flips through a small U-Net at half resolution, flipped back and interleaved."""
    draw = Drawing()
    copies = [draw.flip("x", flips, f"flip{k}") for k, flips in enumerate(FLIPS)]
    draw.add("Concat", copies, "batch", axis=0)
    weights = [draw.weight("w0", inner, 1, 4, 4), draw.weight("b0", inner)]
    draw.add("Conv", ["batch", *weights], "c0", strides=[2, 2], pads=pads or [1, 1, 1, 1])
    draw.add("Relu", ["c0"], "r0")
    far = [0, 0, pool - 2, pool - 2]
    draw.add("MaxPool", ["r0"], "p", kernel_shape=[pool, pool], strides=[2, 2], pads=far)
    weights = [draw.weight("w1", inner, inner, kernel, kernel), draw.weight("b1", inner)]
    draw.add("Conv", ["p", *weights], "c1", pads=[kernel // 2] * 4)
    scales = draw.number("scales", np.array([1, 1, 2, 2], np.float32))
    draw.add(
        "Resize",
        ["c1", "", scales],
        "u",
        mode="nearest",
        nearest_mode="floor",
        coordinate_transformation_mode="asymmetric",
    )
    draw.add("Add", ["u", "r0"], "sum")
    weights = [draw.weight("w2", 2, inner, head, head), draw.weight("b2", 2)]
    draw.add("Conv", ["sum", *weights], "answers", pads=[head // 2] * 4)
    draw.add("Reshape", ["answers", draw.number("five", [4, 1, 2, 16, 24])], "five_d")
    one = draw.number("one", np.array([2]))
    parts = []
    for k, flips in enumerate(FLIPS):
        part = draw.add("Gather", ["five_d", draw.number(f"k{k}", np.int64(k))], f"part{k}")
        part = draw.flip(part, flips, f"back{k}")
        parts.append(draw.add("Unsqueeze", [part, one], f"plane{k}"))
    draw.add("Concat", [parts[k] for k in order], "stack", axis=2)
    draw.add("Reshape", ["stack", draw.number("four", [1, 8, 16, 24])], "eight")
    draw.add("DepthToSpace", ["eight"], "woven", blocksize=2, mode="CRD")
    draw.add("Identity", ["woven"], "y")
    return finished(draw, [1, 1, HEIGHT, WIDTH], [1, 2, HEIGHT, WIDTH])


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


@pytest.mark.parametrize("kernel", [1, 3, 5])
def test_flipped_copies_become_groups_with_the_same_answer(kernel):
    model, seen = blind_spot(kernel), image(1, 1, HEIGHT, WIDTH)
    expected = run(model, seen)
    assert rewrite_for_frames(model) == ["flips-into-weights"]
    onnx.checker.check_model(model, full_check=True)
    np.testing.assert_allclose(run(model, seen), expected, rtol=1e-4, atol=1e-4)
    left = operations(model)
    assert not {"Slice", "Concat", "Gather", "DepthToSpace"} & set(left)
    assert left["Conv"] == 3


def test_a_second_time_changes_nothing():
    model = blind_spot()
    rewrite_for_frames(model)
    before = model.SerializeToString()
    assert rewrite_for_frames(model) == []
    assert model.SerializeToString() == before


@pytest.mark.parametrize(
    "change",
    [
        {"order": (0, 2, 1, 3)},  # interleaved otherwise
        {"pads": [0, 0, 2, 2]},  # windows that a flip does not map onto windows
        {"pool": 3},
        {"inner": 8},  # too few channels for a group
        {"head": 3},
    ],
)
def test_what_only_looks_alike_is_left_alone(change):
    model, seen = blind_spot(**change), image(1, 1, HEIGHT, WIDTH)
    expected = run(model, seen)
    assert rewrite_for_frames(model) == []
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


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    specimen = Specimen((96, 96), CameraLaw(0.5, 100.0, 2.0))
    stack = stack_from_array(np.stack([specimen.observe(index) for index in range(24)]))
    path = tmp_path_factory.mktemp("models") / "fast"
    train([stack], path, TrainingOptions(preset="fast", steps=2))
    return path


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


def test_what_training_exports_is_found_by_the_rules(trained):
    exported = open_bundle(trained).model_path
    model = model_at_shape(exported, (64, 96))
    assert {"identity", "short-index", "table-rows"} <= set(rewrite_for_frames(model))
    left = operations(onnx.load_from_string(graph_for_frames(exported, (64, 96))))
    assert not {"Gather", "GatherND"} & set(left)
