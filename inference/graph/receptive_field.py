"""How far a graph looks, read from the graph: what a tile has to overlap to be exact.

Owns the walk through the graph. Every operation that is not known is refused, so that a tile can
never be wrong in silence.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil, lcm
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import BundleError
from .inspection import PERIOD, load_model
from .operations import Shapes, graph_at_shape, tensor_shapes

_PROBE = 768
"""Edge of the frame at which the graph is examined: a multiple of every stride, 2ⁿ and 3·2ⁿ."""

# fmt: off
_POINTWISE = frozenset((
    "Abs", "Add", "And", "Cast", "Ceil", "Clip", "Div", "Equal", "Erf", "Exp", "Floor",
    "Greater", "GreaterOrEqual", "Identity", "LeakyRelu", "Less", "LessOrEqual", "Log", "Max",
    "Min", "Mod", "Mul", "Neg", "Not", "Or", "PRelu", "Pow", "Reciprocal", "Relu", "Round",
    "Sigmoid", "Sign", "Softplus", "Sqrt", "Sub", "Sum", "Tanh", "Where",
))
_MOVING = frozenset((
    "Concat", "DepthToSpace", "Expand", "Flatten", "Gather", "GatherElements", "GatherND",
    "Pad", "Reshape", "Slice", "SpaceToDepth", "Split", "Squeeze", "Transpose", "Unsqueeze",
))
# fmt: on
_WINDOWS = frozenset(("AveragePool", "Conv", "FusedConv", "LpPool", "MaxPool"))
_SHAPE_ONLY = frozenset(("ConstantOfShape", "Range", "Shape", "Size"))
_CHANNEL_REDUCTIONS = frozenset(
    ("ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum")
)


@dataclass(frozen=True, slots=True)
class ReceptiveField:
    """How far an output pixel sees, and on which grid.

    Attributes
    ----------
    reach_px
        No output pixel depends on input pixels further away than this, along y or x.
    stride_px
        A tile that starts at a multiple of this is processed as the whole frame would be.
    """

    reach_px: int
    stride_px: int


def receptive_field(model: Path) -> ReceptiveField:
    """Examine the ONNX file `model`.

    Raises
    ------
    BundleError
        If an output pixel depends on the whole frame, or the graph holds an unknown operation.
    """
    graph = graph_at_shape(model, (_PROBE, _PROBE))
    walk = _Walk(tensor_shapes(graph), graph)
    for value in graph.input:
        walk.reach[value.name], walk.scale[value.name] = 0.0, 1.0
    for node in graph.node:
        walk.step(node, graph)
    reach = max(walk.reach[output.name] for output in graph.output)
    return ReceptiveField(ceil(reach), lcm(int(max(walk.scale.values())), _period(model)))


def _period(model: Path) -> int:
    """Return what the graph says of its own period, 1 if it says nothing."""
    properties = load_model(model).metadata_props
    said = next((entry.value for entry in properties if entry.key == PERIOD), "1")
    if not said.isdecimal() or not 1 <= int(said) <= _PROBE:
        raise BundleError(
            f"{model}: says that it repeats every {said!r} pixels, expected a number from 1 to "
            f"{_PROBE}; train the model anew"
        )
    return int(said)


class _Walk:
    """Reach and scale (input pixels per sample) of every tensor that depends on the pixels."""

    def __init__(self, shapes: Shapes, graph: Any) -> None:
        self.shapes = shapes
        self.constants = {weight.name: weight for weight in graph.initializer}
        self.reach: dict[str, float] = {}
        self.scale: dict[str, float] = {}

    def step(self, node: Any, graph: Any) -> None:
        inputs = [name for name in node.input if name in self.reach]
        if not inputs or node.op_type in _SHAPE_ONLY:
            return
        if node.op_type == "ReduceMax" and self._tells_presence(node, graph):
            return
        reach = max(self.reach[name] for name in inputs)
        before = max(self.scale[name] for name in inputs)
        for output in node.output:
            after = self._scale_of(output, before)
            self.reach[output] = reach + self._widening(node, before, after)
            self.scale[output] = after

    def _scale_of(self, name: str, before: float) -> float:
        """Tell the scale from the shape; a tensor in pieces keeps that of where it came from."""
        shape = self.shapes.get(name, ())
        if len(shape) == 4 and shape[2] == shape[3] and shape[2] and _PROBE % shape[2] == 0:
            return _PROBE / shape[2]
        return before

    def _widening(self, node: Any, before: float, after: float) -> float:
        kind = node.op_type
        if kind in _POINTWISE:
            return 0.0
        if kind in _MOVING:
            return (max(before, after) if before != after else 0.0) + self._shift(node) * before
        if kind in _WINDOWS:
            return _window(node, self.shapes) * before
        if kind == "ConvTranspose":
            return (_window(node, self.shapes) + 1) * max(before, after)
        if kind in ("Resize", "Upsample"):
            return before if _text(node, "mode", b"nearest") == b"nearest" else 2 * before
        if kind in _CHANNEL_REDUCTIONS and self._keeps_pixels(node):
            return 0.0
        if kind in ("LogSoftmax") and _axis(node) == 1:
            return 0.0
        raise BundleError(
            f"the model cannot be run in tiles: its operation {kind} may depend on the whole "
            "frame; choose a smaller region or a machine with more memory"
        )

    def _shift(self, node: Any) -> int:
        """Return how many samples a crop or an extension moves an image at most."""
        if node.op_type == "Slice" and len(node.input) > 3:
            starts, axes = (self._constant(node.input[place]) for place in (1, 3))
            if starts is None or axes is None or (len(node.input) > 4 and self._flips(node)):
                return 0
            inner = [int(start) for start, axis in zip(starts, axes, strict=True) if axis >= 2]
            return max([0, *(start for start in inner if start < _PROBE)])
        if node.op_type == "Gather" and _axis(node) >= 2:
            index = self._constant(node.input[1])
            if index is not None and index.ndim == 1:
                return int(np.abs(index - np.arange(index.size)).max())
        return 0

    def _flips(self, node: Any) -> bool:
        steps = self._constant(node.input[4])
        return steps is not None and bool((steps < 0).any())

    def _constant(self, name: str) -> NDArray[Any] | None:
        from onnx import numpy_helper

        if name not in self.constants:
            return None
        return np.asarray(numpy_helper.to_array(self.constants[name]))

    def _tells_presence(self, node: Any, graph: Any) -> bool:
        """Whether a maximum over a frame is used only to ask whether there is a frame at all."""
        users = [user for user in graph.node if node.output[0] in user.input]
        asked = bool(users) and all(user.op_type == "Greater" for user in users)
        return asked and self.reach[node.input[0]] == 0 and not self._keeps_pixels(node)

    def _keeps_pixels(self, node: Any) -> bool:
        before, after = self.shapes.get(node.input[0], ()), self.shapes.get(node.output[0], ())
        return len(before) >= 3 and len(after) >= 2 and before[-2:] == after[-2:]


def _window(node: Any, shapes: Shapes) -> int:
    """Return how many samples away a window reaches, to its farther side."""
    kernel = _numbers(node, "kernel_shape") or list(shapes[node.input[1]][2:])
    dilations = _numbers(node, "dilations") or [1] * len(kernel)
    pads = _numbers(node, "pads") or [0] * 2 * len(kernel)
    spans = [(size - 1) * dilation for size, dilation in zip(kernel, dilations, strict=True)]
    return max(max(pad, span - pad) for pad, span in zip(pads, spans, strict=False))


def _numbers(node: Any, name: str) -> list[int]:
    return next((list(a.ints) for a in node.attribute if a.name == name), [])


def _axis(node: Any) -> int:
    return next((int(a.i) for a in node.attribute if a.name == "axis"), -1)


def _text(node: Any, name: str, default: bytes) -> bytes:
    return next((bytes(a.s) for a in node.attribute if a.name == name), default)
