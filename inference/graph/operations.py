"""How many operations a graph takes per frame, counted from the graph itself.

Owns the count. A multiplication and the addition that follows are two operations, as in every
machine's stated rate; convolutions and matrix products are counted, the elementwise rest (about a
percent of them) is not.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any

from ..errors import BundleError, unusable_model
from .inspection import load_model, read_contract, without_default_maps

Shapes = Mapping[str, tuple[int, ...]]


def count_gflop(model: Path, frame_shape: tuple[int, int]) -> float:
    """Return the operations that one frame takes, in units of 10⁹.

    Parameters
    ----------
    model
        The ONNX file.
    frame_shape
        (Y, X) in pixels.
    """
    graph = graph_at_shape(model, frame_shape)
    shapes = tensor_shapes(graph)
    return sum(_operations(node, shapes) for node in graph.node) / 1e9


def graph_at_shape(model: Path, frame_shape: tuple[int, int]) -> Any:
    """Return the graph with every tensor's shape known; see `model_at_shape`."""
    return model_at_shape(model, frame_shape).graph


def model_at_shape(model: Path, frame_shape: tuple[int, int]) -> Any:
    """Return the model with every tensor's shape known, as ONNX Runtime sees it.

    The runtime folds what depends on the shape alone, so that shape inference sees constants
    only: nothing here can disagree with what runs. Pixel maps, which belong to one size, become
    an input without a default.

    Raises
    ------
    BundleError
        If the runtime cannot load it.
    """
    import onnxruntime as ort
    from onnx import shape_inference

    settings = ort.SessionOptions()
    settings.log_severity_level = 4
    settings.intra_op_num_threads = 1
    settings.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    for name, size in read_contract(model).overrides(1, frame_shape).items():
        settings.add_free_dimension_override_by_name(name, size)
    with tempfile.TemporaryDirectory(prefix="quietscope-") as folder:
        settings.optimized_model_filepath = str(Path(folder) / "model.onnx")
        try:
            ort.InferenceSession(
                without_default_maps(model), settings, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # ONNX Runtime raises its own types, one per status code
            raise unusable_model(model, error) from error
        folded = load_model(Path(folder) / "model.onnx")
    return shape_inference.infer_shapes(folded, data_prop=True)


def tensor_shapes(graph: Any) -> dict[str, tuple[int, ...]]:
    """Return the shape of every tensor of the graph that has a fixed one."""
    shapes = {weight.name: tuple(weight.dims) for weight in graph.initializer}
    for value in (*graph.input, *graph.value_info, *graph.output):
        dimensions = value.type.tensor_type.shape.dim
        if all(dimension.HasField("dim_value") for dimension in dimensions):
            shapes[value.name] = tuple(dimension.dim_value for dimension in dimensions)
    return shapes


def _operations(node: Any, shapes: Shapes) -> int:
    if node.op_type in ("Conv", "FusedConv"):
        kernel = _shape(node.input[1], node, shapes)
        return 2 * prod(_shape(node.output[0], node, shapes)) * prod(kernel[1:])
    if node.op_type == "ConvTranspose":
        kernel = _shape(node.input[1], node, shapes)
        return 2 * prod(_shape(node.input[0], node, shapes)) * prod(kernel[1:])
    if node.op_type in ("MatMul", "Gemm"):
        transposed = any(a.name == "transA" and a.i for a in node.attribute)
        inner = _shape(node.input[0], node, shapes)[0 if transposed else -1]
        return 2 * prod(_shape(node.output[0], node, shapes)) * inner
    return 0


def _shape(name: str, node: Any, shapes: Shapes) -> tuple[int, ...]:
    if name not in shapes:
        raise BundleError(
            f"the shape of {name} at {node.op_type} cannot be told from the graph, so its "
            "operations cannot be counted; export the model anew with this version of quietscope"
        )
    return shapes[name]
