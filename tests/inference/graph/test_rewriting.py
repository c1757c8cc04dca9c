"""Rewriting for speed: the same answer from another graph; what is not known is left alone."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from quietscope.inference.graph.rewriting import rewrite_for_speed

RULES = ["concatenation-into-convolutions", "gather-from-table"]


def lattice_like(frames=1, kernel=3, cut=1, seed=0):
    """Build what training exports: unshuffle, cut, convolve, join, look up in a table."""
    random = np.random.default_rng(seed)
    lattices = 4 * frames
    constants = {
        "to6": np.array([0, frames, 16, 2, 24, 2], np.int64),
        "to4": np.array([0, lattices, 16, 24], np.int64),
        "from": np.array([cut], np.int64),
        "to": np.array([np.iinfo(np.int64).max], np.int64),
        "axis": np.array([1], np.int64),
        "w1": random.standard_normal((8, lattices - cut, kernel, kernel)).astype(np.float32),
        "b1": random.standard_normal(8).astype(np.float32),
        "w2": random.standard_normal((16, 8, 3, 3)).astype(np.float32),
        "w3": random.standard_normal((1, 24, 3, 3)).astype(np.float32),
        "b3": random.standard_normal(1).astype(np.float32),
        "table": np.sort(random.random(64)).astype(np.float32),
        "low": np.array(0.0, np.float32),
        "high": np.array(63.0, np.float32),
        "last": np.array([-1], np.int64),
    }
    pads = [kernel // 2] * 4
    nodes = [
        helper.make_node("Reshape", ["x", "to6"], ["six"]),
        helper.make_node("Transpose", ["six"], ["turned"], perm=[0, 1, 3, 5, 2, 4]),
        helper.make_node("Reshape", ["turned", "to4"], ["lattices"]),
        helper.make_node("Slice", ["lattices", "from", "to", "axis"], ["seen"]),
        helper.make_node("Conv", ["seen", "w1", "b1"], ["c1"], pads=pads),
        helper.make_node("Relu", ["c1"], ["r1"]),
        helper.make_node("Conv", ["r1", "w2"], ["c2"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["c2"], ["r2"]),
        helper.make_node("Concat", ["r1", "r2"], ["joined"], axis=1),
        helper.make_node("Conv", ["joined", "w3", "b3"], ["c3"], pads=[1, 1, 1, 1]),
        helper.make_node("Clip", ["c3", "low", "high"], ["clipped"]),
        helper.make_node("Cast", ["clipped"], ["index"], to=TensorProto.INT64),
        helper.make_node("Unsqueeze", ["index", "last"], ["places"]),
        helper.make_node("GatherND", ["table", "places"], ["found"]),
        helper.make_node("Add", ["found", "c3"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "lattice",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", frames, 32, 48])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 1, 16, 24])],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)


def run(model, images):
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": images})[0]


def images(frames, batch=2):
    return np.random.default_rng(9).standard_normal((batch, frames, 32, 48)).astype(np.float32)


@pytest.mark.parametrize(("frames", "kernel", "cut"), [(1, 3, 1), (1, 3, 0), (3, 3, 1), (2, 5, 1)])
def test_the_rewritten_graph_gives_the_same_answer(frames, kernel, cut):
    model = lattice_like(frames, kernel, cut)
    expected = run(model, images(frames))
    assert rewrite_for_speed(model) == RULES
    onnx.checker.check_model(model, full_check=True)
    np.testing.assert_allclose(run(model, images(frames)), expected, rtol=1e-4, atol=1e-3)


def test_the_slow_operations_are_gone():
    model = lattice_like()
    rewrite_for_speed(model)
    left = {node.op_type for node in model.graph.node}
    assert not left & {"Concat", "GatherND", "Unsqueeze"}
    named = {name for node in model.graph.node for name in node.input}
    assert {weight.name for weight in model.graph.initializer} <= named


def test_a_second_time_changes_nothing():
    model = lattice_like()
    rewrite_for_speed(model)
    before = model.SerializeToString()
    assert rewrite_for_speed(model) == []
    assert model.SerializeToString() == before


def test_what_only_looks_alike_is_left_alone():
    model = _joined_along_rows()
    expected = run(model, images(1))
    assert rewrite_for_speed(model) == []
    np.testing.assert_allclose(run(model, images(1)), expected, rtol=1e-4, atol=1e-3)


def _joined_along_rows():
    weight = numpy_helper.from_array(np.ones((1, 1, 3, 3), np.float32), "w")
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], pads=[1, 1, 1, 1]),
        helper.make_node("Conv", ["x", "w"], ["b"], pads=[1, 1, 1, 1]),
        helper.make_node("Concat", ["a", "b"], ["joined"], axis=2),
        helper.make_node("Conv", ["joined", "w"], ["y"], pads=[1, 1, 1, 1]),
    ]
    graph = helper.make_graph(
        nodes,
        "rows",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 1, 32, 48])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 1, 64, 48])],
        [weight],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
