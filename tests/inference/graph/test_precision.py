"""Reduced precision: the network is smaller, the camera's numbers are not."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from quietscope.inference.graph.precision import half_precision

SHAPE = (64, 80)
OFFSET, SCALE = 60_000.0, 50.0


def network(skip=True):
    """Build a small residual network around 60,000 ADU, near the end of half precision's range."""
    random = np.random.default_rng(0)

    def weights(name, outputs, inputs):
        spread = np.sqrt(2 / (9 * inputs))
        values = spread * random.standard_normal((outputs, inputs, 3, 3))
        return numpy_helper.from_array(values.astype(np.float32), name)

    constants = [
        numpy_helper.from_array(np.array(OFFSET, np.float32), "offset"),
        numpy_helper.from_array(np.array(SCALE, np.float32), "scale"),
        numpy_helper.from_array(np.array([], np.float32), "nothing"),
        numpy_helper.from_array(np.array([1, 1, 2, 2], np.float32), "twice"),
        weights("w1", 16, 1),
        weights("w2", 16, 16),
        weights("w3", 16, 32 if skip else 16),
        weights("w4", 1, 16),
    ]
    nodes = [
        helper.make_node("Cast", ["observations"], ["x"], to=TensorProto.FLOAT),
        helper.make_node("Sub", ["x", "offset"], ["centred"]),
        helper.make_node("Div", ["centred", "scale"], ["units"]),
        helper.make_node("Conv", ["units", "w1"], ["c1"], pads=[1] * 4),
        helper.make_node("Relu", ["c1"], ["r1"]),
        helper.make_node("MaxPool", ["r1"], ["p1"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Conv", ["p1", "w2"], ["c2"], pads=[1] * 4),
        helper.make_node("Resize", ["c2", "nothing", "twice"], ["u2"], mode="nearest"),
        helper.make_node("Concat", ["r1", "u2"] if skip else ["u2"], ["joined"], axis=1),
        helper.make_node("Conv", ["joined", "w3"], ["c3"], pads=[1] * 4),
        helper.make_node("Relu", ["c3"], ["r3"]),
        helper.make_node("Conv", ["r3", "w4"], ["c4"], pads=[1] * 4),
        helper.make_node("Mul", ["c4", "scale"], ["spread"]),
        helper.make_node("Add", ["spread", "offset"], ["denoised"]),
        helper.make_node("Abs", ["spread"], ["uncertainty"]),
    ]
    graph = helper.make_graph(
        nodes,
        "network",
        [helper.make_tensor_value_info("observations", TensorProto.UINT16, ["n", 1, "y", "x"])],
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 1, "y", "x"])
            for name in ("denoised", "uncertainty")
        ],
        constants,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)


def observations():
    random = np.random.default_rng(1)
    return random.poisson(OFFSET, (1, *SHAPE)).astype(np.uint16)


def run(serialised):
    settings = ort.SessionOptions()
    settings.log_severity_level = 4
    session = ort.InferenceSession(serialised, settings, providers=["CPUExecutionProvider"])
    assert [output.type for output in session.get_outputs()] == ["tensor(float)"] * 2
    assert session.get_inputs()[0].type == "tensor(uint16)"
    return np.stack(session.run(None, {"observations": observations()[None]}))[:, 0, 0]


@pytest.mark.parametrize("skip", [True, False])
def test_the_answer_stays_within_the_rounding(skip):
    expected = run(network(skip).SerializeToString())
    found = run(half_precision(network(skip)))
    assert np.isfinite(found).all()
    scatter = expected[0].std()
    assert np.sqrt(((found - expected) ** 2).mean()) < 5e-3 * scatter
    assert not np.array_equal(found, expected)


def test_half_precision_reduces_the_inner_network_and_nothing_else():
    model = onnx.load_from_string(half_precision(network()))
    kinds = {weight.name: weight.data_type for weight in model.graph.initializer}
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    types = [kinds[node.input[1]] for node in convolutions]
    whole, half = TensorProto.FLOAT, TensorProto.FLOAT16
    # The first reads the camera's numbers, the last writes the estimate.
    assert types == [whole, half, half, whole]
    resize = next(node for node in model.graph.node if node.op_type == "Resize")
    assert kinds[resize.input[2]] == whole
    onnx.checker.check_model(model, full_check=True)
