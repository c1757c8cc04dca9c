"""A bundle counts as written when whoever uses it can open it and it denoises."""

from __future__ import annotations

import numpy as np
import pytest
from onnx import TensorProto, helper

from quietscope.training.data.side_inputs import Sample
from quietscope.training.errors import ExportError
from quietscope.training.output.write_bundle import _require_usable

FRAME = Sample(np.random.default_rng(0).poisson(30, (1, 40, 48)).astype(np.uint16))


def test_a_sound_bundle_is_usable(make_bundle):
    _require_usable(make_bundle(), FRAME)


@pytest.mark.parametrize("name", ["noise_model.npz", "model.onnx"])
def test_a_bundle_with_a_damaged_file_is_told(name, make_bundle):
    bundle = make_bundle()
    (bundle / name).write_bytes(b"damaged")
    with pytest.raises(ExportError, match=f"cannot be used: .*{name}"):
        _require_usable(bundle, FRAME)


def test_a_graph_that_denoises_to_nan_is_told(make_bundle):
    nodes = [
        helper.make_node("Cast", ["observations"], ["x"], to=TensorProto.FLOAT),
        helper.make_node("Sub", ["x", "x"], ["zero"]),
        helper.make_node("Div", ["zero", "zero"], ["denoised"]),
        helper.make_node("Abs", ["x"], ["uncertainty"]),
    ]
    images = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 1, "y", "x"])
        for name in ("denoised", "uncertainty")
    ]
    observations = helper.make_tensor_value_info(
        "observations", TensorProto.UINT16, ["n", 1, "y", "x"]
    )
    graph = helper.make_model(
        helper.make_graph(nodes, "nan", [observations], images),
        opset_imports=[helper.make_opsetid("", 18)],
        ir_version=9,
    )
    with pytest.raises(ExportError, match="NaN"):
        _require_usable(make_bundle(graph=graph), FRAME)
