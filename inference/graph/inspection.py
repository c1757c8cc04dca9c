"""What an ONNX graph says about itself, without running it.

Owns the check of the contract between training and inference: names, types and shapes of inputs
and outputs. Does not open sessions.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import BundleError, unusable_model

INPUT = "observations"
OUTPUTS = ("denoised", "uncertainty")
PERIOD = "quietscope_period_px"
"""Among a graph's properties: what it does at a place is the same so many pixels further."""
DRAW, DRAWN = "draw", "sample"
"""Of the second graph that some models have: which sample, three whole numbers; and the sample."""
LARGEST_TENSOR = 2**30
"""Numbers in a tensor whose size the graph fixes: sixteen channels of 8192 × 8192."""
MOST_NODES = 100_000
"""Of a graph whose functions are written out; a U-Net has a few hundred."""
_LARGE_WEIGHT_BYTES = 2**20
_WITHOUT_END = frozenset({"Loop", "Scan", "SequenceMap"})
PIXEL_MAPS = "pixel_maps"
"""Of a camera whose pixels differ: (1, 3, Y, X), as `PixelMaps.correction` makes them. The graph
holds those of the whole calibrated region as the default of an input of this name, so that it
takes camera pixels alone; for a part of the region that part is fed instead."""


@dataclass(frozen=True, slots=True)
class GraphContract:
    """The interface of a model graph that was found to honour the contract.

    Attributes
    ----------
    pixel_type
        Name of the input's element type: the camera's own.
    observations
        1 + T, the frames that go in.
    free_dimensions
        Names of the symbolic dimensions N, Y, X; None where the size is fixed.
    fixed_dimensions
        Sizes where they are fixed, None where they are free; same order.
    """

    pixel_type: str
    observations: int
    free_dimensions: tuple[str | None, str | None, str | None]
    fixed_dimensions: tuple[int | None, int | None, int | None]

    def overrides(self, batch: int, frame_shape: tuple[int, int]) -> dict[str, int]:
        """Return the symbolic dimensions with the sizes that a session will see.

        Raises
        ------
        BundleError
            If the graph was exported for another fixed size.
        """
        wanted = (batch, *frame_shape)
        for fixed, size, what in zip(self.fixed_dimensions, wanted, "NYX", strict=True):
            if fixed is not None and fixed != size:
                raise BundleError(
                    f"the model was exported for {what} = {fixed} and cannot take {size}; "
                    "export it anew with free dimensions"
                )
        named = zip(self.free_dimensions, wanted, strict=True)
        return {name: size for name, size in named if name is not None}


def read_contract(model: Path) -> GraphContract:
    """Read the interface of the graph at `model`.

    Raises
    ------
    BundleError
        If it is no ONNX file or does not honour the contract.
    """
    opened = load_model(model)
    require_bounded(opened, model)
    graph = opened.graph
    weights = {initializer.name for initializer in graph.initializer}
    inputs = [value for value in graph.input if value.name not in weights]
    outputs = tuple(value.name for value in graph.output)
    if [value.name for value in inputs] != [INPUT] or outputs != OUTPUTS:
        raise BundleError(
            f"{model}: takes {', '.join(v.name for v in inputs) or 'nothing'} and gives "
            f"{', '.join(outputs) or 'nothing'}, expected {INPUT} in and {', '.join(OUTPUTS)} "
            "out; train the model anew"
        )
    return _contract(model, inputs[0].type.tensor_type)


def _contract(model: Path, tensor: Any) -> GraphContract:
    from onnx import helper

    dimensions = list(tensor.shape.dim)
    if len(dimensions) != 4 or not dimensions[1].dim_value:
        raise BundleError(
            f"{model}: its input is not of shape (N, 1 + T, Y, X) with a fixed number of frames; "
            "train the model anew"
        )
    free = [dimensions[i].dim_param or None for i in (0, 2, 3)]
    fixed = [dimensions[i].dim_value or None for i in (0, 2, 3)]
    return GraphContract(
        pixel_type=np.dtype(helper.tensor_dtype_to_np_dtype(tensor.elem_type)).name,
        observations=dimensions[1].dim_value,
        free_dimensions=(free[0], free[1], free[2]),
        fixed_dimensions=(fixed[0], fixed[1], fixed[2]),
    )


def read_pixel_maps(model: Path) -> NDArray[np.float32] | None:
    """Return the pixel maps that the graph at `model` holds, (1, 3, Y, X); None if it has none."""
    from onnx import numpy_helper

    weights = load_model(model).graph.initializer
    held = next((weight for weight in weights if weight.name == PIXEL_MAPS), None)
    return None if held is None else np.asarray(numpy_helper.to_array(held), np.float32)


def load_model(model: Path) -> Any:
    """Read an ONNX file.

    Raises
    ------
    BundleError
        If it cannot be read, or its weights lie in other files, which no hash of a bundle covers.
    """
    import onnx
    from onnx.external_data_helper import uses_external_data

    try:
        found = onnx.load(str(model), load_external_data=False)
    except Exception as error:  # protobuf and onnx raise types of their own
        raise BundleError(
            f"{model}: is no readable ONNX file ({type(error).__name__}); restore the bundle or "
            "train the model anew"
        ) from error
    if any(uses_external_data(tensor) for tensor in _tensors(found)):
        raise BundleError(
            f"{model}: its weights lie in another file, expected them within; export the model "
            "in one file"
        )
    return found


def require_bounded(model: Any, name: Path) -> None:
    """Refuse a graph that can run without end, or needs more memory than any camera frame.

    Raises
    ------
    BundleError
        Naming the operation; `name` is the file's.
    """
    from onnx import shape_inference

    require_few_nodes(model, name)
    loops = sorted({node.op_type for node in _nodes(model)} & _WITHOUT_END)
    if loops:
        raise BundleError(
            f"{name}: has the operation {', '.join(loops)}, which may run without end, expected a "
            "network without loops; export the model without them"
        )
    try:
        known = shape_inference.infer_shapes(_without_large_weights(model))
    except Exception as error:  # onnx raises types of its own
        raise unusable_model(name, error) from error
    for value in known.graph.value_info:
        sizes = [dimension.dim_value for dimension in value.type.tensor_type.shape.dim]
        if prod(size for size in sizes if size > 0) > LARGEST_TENSOR:
            raise BundleError(
                f"{name}: its tensor {value.name} has {prod(sizes):.1e} numbers, expected at most "
                f"{LARGEST_TENSOR:.1e}; train the model anew"
            )


def require_few_nodes(model: Any, name: Path) -> None:
    """Refuse functions that call functions, twice each, and so on: written out they have no end.

    Whatever reads functions (shape inference, ONNX Runtime) goes through every call of them.

    Raises
    ------
    BundleError
        If they call themselves, or are too many nodes when each call is replaced by its function;
        `name` is the file's.
    """
    bodies = {_function(inner): list(_within(inner.node)) for inner in model.functions}
    calls = {key: {_called(node) for node in nodes} & set(bodies) for key, nodes in bodies.items()}
    sizes: dict[_Function, int] = {}

    def size_of(nodes: Iterable[Any]) -> int:
        written_out = sum(sizes.get(_called(node), 1) for node in nodes)
        return min(written_out, MOST_NODES + 1)  # no number of a thousand digits

    try:
        for key in TopologicalSorter(calls).static_order():
            sizes[key] = size_of(bodies[key])
    except CycleError as error:
        raise BundleError(
            f"{name}: has functions that call themselves, expected a network that ends; export "
            "the model without functions"
        ) from error
    if size_of(_within(model.graph.node)) > MOST_NODES:
        raise BundleError(
            f"{name}: has more than {MOST_NODES} operations, expected a network of fewer; export "
            "a smaller model"
        )


_Function = tuple[str, str, str]
"""Domain, name and overload."""


def _function(function: Any) -> _Function:
    return function.domain, function.name, function.overload


def _called(node: Any) -> _Function:
    return node.domain, node.op_type, node.overload


def _without_large_weights(model: Any) -> Any:
    """Return a copy that is quick to infer shapes of: pixel maps take tens of megabytes."""
    copy = type(model)()
    copy.CopyFrom(model)
    weights = copy.graph.initializer
    for place in reversed(range(len(weights))):
        if len(weights[place].raw_data) > _LARGE_WEIGHT_BYTES:
            del weights[place]
    return copy


def _nodes(model: Any) -> Iterator[Any]:
    """Go through the nodes of a model, those of functions and inner graphs as well."""
    for nodes in (model.graph.node, *(inner.node for inner in model.functions)):
        yield from _within(nodes)


def _within(nodes: Iterable[Any]) -> Iterator[Any]:
    """Go through nodes and those of the graphs within them."""
    waiting = list(nodes)
    while waiting:
        node = waiting.pop()
        yield node
        for inner in node.attribute:
            for graph in (inner.g, *inner.graphs):
                waiting += graph.node


def _tensors(model: Any) -> Iterator[Any]:
    yield from model.graph.initializer
    for sparse in model.graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    for node in _nodes(model):
        for inner in node.attribute:
            yield from (inner.t, *inner.tensors)
            for graph in (inner.g, *inner.graphs):
                yield from graph.initializer


def without_default_maps(model: Path) -> bytes:
    """Return the model with its pixel maps, if it has any, as an input that has to be fed."""
    opened = load_model(model)
    weights = opened.graph.initializer
    for held in [weight for weight in weights if weight.name == PIXEL_MAPS]:
        weights.remove(held)
    return bytes(opened.SerializeToString())
