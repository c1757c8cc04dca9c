"""One network run on flipped copies of an image, as one network of flipped kernels.

Owns the rule `group_flips`. A blind-spot network on sub-lattices sees the image four times,
flipped along x, y and both, and its answers are flipped back and interleaved. A convolution of a
flipped image is the flipped convolution of the image with the flipped kernel; so the copies become
groups of channels, each with its kernels flipped, and no pixel is moved at all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import isqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .graph_editing import EditableGraph, attribute, set_attributes
from .operations import Shapes

Flips = tuple[int, ...]
"""The axes of (N, C, Y, X) along which a copy is flipped."""

_POINTWISE = ("Relu", "LeakyRelu", "Sigmoid", "Tanh", "Identity")
_MOVES = (
    "Concat",
    "DepthToSpace",
    "Gather",
    "Reshape",
    "Slice",
    "Split",
    "Squeeze",
    "Transpose",
    "Unsqueeze",
)  # fmt: skip
_BLOCK = 16
"""Channels that ONNX Runtime's fastest convolutions take at a time; a group needs as many."""


class _NotPossible(Exception):
    """Raised where a part of the graph does more than the rule knows; it is left as it is."""


def group_flips(graph: EditableGraph, shapes: Shapes) -> int:
    """Turn the copies of every image that is run in several flips into groups of channels."""
    found = 0
    for node in list(graph.proto.node):
        copies = _flipped_copies(node, graph, shapes)
        if copies is None:
            continue
        try:
            network = _Network.behind(node, graph, shapes, copies)
            woven = network.woven()
            network.regroup(woven)
        except _NotPossible:
            continue
        found += 1
    return found


def _flipped_copies(
    node: Any, graph: EditableGraph, shapes: Shapes
) -> tuple[str, tuple[Flips, ...]] | None:
    """Return the image and its flips if `node` joins flipped copies into a batch."""
    if node.op_type != "Concat" or attribute(node, "axis") != 0 or len(node.input) < 2:
        return None
    sources, flips = zip(*(_unflipped(name, graph, shapes) for name in node.input), strict=True)
    if len(set(sources)) != 1 or len(set(flips)) != len(flips) or shapes[sources[0]][0] != 1:
        return None
    return sources[0], flips


def _unflipped(name: str, graph: EditableGraph, shapes: Shapes) -> tuple[str, Flips]:
    """Follow `name` past a slice that does nothing but flip."""
    node = graph.source(name, "Slice")
    if node is None or shapes.get(name) is None or shapes.get(name) != shapes.get(node.input[0]):
        return name, ()
    axes, steps = graph.input_value(node, 3), graph.input_value(node, 4)
    if axes is None or steps is None or not (steps == -1).all():
        return name, ()
    return node.input[0], tuple(sorted(int(axis) % len(shapes[name]) for axis in axes))


@dataclass(eq=False)
class _Network:
    """The part of a graph that treats every image of a batch alike.

    Attributes
    ----------
    join
        The node that makes the batch.
    image
        The tensor (1, C, Y, X) whose flips are in it.
    flips
        Of each image of the batch.
    nodes
        In order; all inputs are the batch, tensors made by earlier ones, or constants.
    end
        The batch of answers.
    """

    graph: EditableGraph
    shapes: Shapes
    join: Any
    image: str
    flips: tuple[Flips, ...]
    nodes: list[Any] = field(default_factory=list)
    end: str = ""

    @classmethod
    def behind(
        cls,
        join: Any,
        graph: EditableGraph,
        shapes: Shapes,
        copies: tuple[str, tuple[Flips, ...]],
    ) -> _Network:
        found = cls(graph, shapes, join, *copies)
        inside = {join.output[0]}
        for node in graph.proto.node:
            tensors = [name for name in node.input if name and name not in graph.constants]
            if inside.intersection(tensors) and node.op_type not in _MOVES:
                if not inside.issuperset(tensors):
                    raise _NotPossible
                found.nodes.append(node)
                inside.update(node.output)
        ends = [n for n in inside if any(u not in found.nodes for u in graph.users.get(n, []))]
        if len(ends) != 1 or any(graph.is_output(name) for name in inside):
            raise _NotPossible
        found.end = ends[0]
        return found

    # ------------------------------------------------------------------- what becomes of it

    def woven(self) -> str:
        """Return the tensor in which the answers, flipped back, are interleaved.

        What the graph does with the answers is recognised by doing it, whatever operations it is
        written in: on numbers that tell where each came from.
        """
        count, channels, height, width = self.shapes[self.end]
        step = self._step
        wanted = (1, channels, height * step, width * step)
        moves, reached = [], {self.end}
        for node in self.graph.proto.node:
            tensors = [name for name in node.input if name and name not in self.graph.constants]
            if node.op_type in _MOVES and tensors and reached.issuperset(tensors):
                moves.append(node)
                reached.update(node.output)
                if self.shapes.get(node.output[0]) == wanted and step * step == count:
                    self._require_weaving(moves, node.output[0])
                    return str(node.output[0])
        raise _NotPossible

    def _require_weaving(self, moves: Sequence[Any], end: str) -> None:
        import onnxruntime as ort
        from onnx import TensorProto, helper

        count, channels, height, width = self.shapes[self.end]
        step = self._step
        used = {name for node in moves for name in node.input}
        start, stop = (
            helper.make_tensor_value_info(name, TensorProto.FLOAT, self.shapes[name])
            for name in (self.end, end)
        )
        model = helper.make_model(
            helper.make_graph(
                list(moves),
                "moves",
                [start],
                [stop],
                [weight for weight in self.graph.proto.initializer if weight.name in used],
            ),
            opset_imports=self.graph.model.opset_import,
            ir_version=self.graph.model.ir_version,
        )
        settings = ort.SessionOptions()
        settings.log_severity_level = 4
        settings.intra_op_num_threads = 1
        session = ort.InferenceSession(
            model.SerializeToString(), settings, providers=["CPUExecutionProvider"]
        )
        answers = np.random.default_rng(0).random((count, channels, height, width), np.float32)
        flipped = np.stack(
            [
                np.flip(answer, tuple(axis - 1 for axis in flips))
                for answer, flips in zip(answers, self.flips, strict=True)
            ]
        )
        found = session.run([end], {self.end: flipped})[0]
        expected = (
            answers.reshape(step, step, channels, height, width)
            .transpose(2, 3, 0, 4, 1)
            .reshape(1, channels, height * step, width * step)
        )
        if not np.array_equal(found, expected):
            raise _NotPossible

    def regroup(self, woven: str) -> None:
        """Replace the batch by groups of channels, and the way back by one weaving step."""
        from onnx import helper

        new_nodes = [self._grouped(node) for node in self.nodes]
        # The runtime's DepthToSpace takes twice as long as a product with zeros and ones.
        weave = helper.make_node(
            "ConvTranspose",
            [_grouped_name(self.end), self._constant(woven, self._weaving_kernel())],
            [f"{woven}.woven"],
            name=f"{woven}.woven",
            strides=[self._step] * 2,
        )
        self.graph.use_instead(woven, f"{woven}.woven")
        self.graph.replace(self.nodes[-1], *new_nodes, weave)

    @property
    def _step(self) -> int:
        """How many answers lie side by side along y and x."""
        return isqrt(len(self.flips))

    def _weaving_kernel(self) -> NDArray[np.float32]:
        channels = self.shapes[self.end][1]
        kernel = np.zeros(
            (len(self.flips), channels, channels, self._step, self._step), np.float32
        )
        for place in range(len(self.flips)):
            kernel[place, range(channels), range(channels), *divmod(place, self._step)] = 1
        return kernel.reshape(-1, *kernel.shape[2:])

    def _grouped(self, node: Any) -> Any:
        rules: dict[str, Callable[[Any, Any], None]] = {
            "Conv": self._group_convolution,
            "MaxPool": self._group_pooling,
            "AveragePool": self._group_pooling,
            "Resize": self._group_enlargement,
            "Add": self._group_addition,
            **dict.fromkeys(_POINTWISE, lambda node, copy: None),
        }
        if node.op_type not in rules:
            raise _NotPossible
        copy = type(node)()
        copy.CopyFrom(node)
        copy.name = _grouped_name(node.name or node.output[0])
        for places in (copy.input, copy.output):
            for place, name in enumerate(places):
                if name and name not in self.graph.constants:
                    places[place] = (
                        self.image if name == self.join.output[0] else _grouped_name(name)
                    )
        rules[node.op_type](node, copy)
        return copy

    def _group_convolution(self, node: Any, copy: Any) -> None:
        kernel = self.graph.value(node.input[1])
        bias = self.graph.input_value(node, 2)
        if kernel is None or kernel.ndim != 4 or (attribute(node, "group") or 1) != 1:
            raise _NotPossible
        if (attribute(node, "auto_pad") or b"NOTSET") != b"NOTSET":
            raise _NotPossible
        self._require_same_windows(node, kernel.shape[2:])
        first = node.input[0] == self.join.output[0]
        flipped = [np.flip(kernel, flips) for flips in self.flips]
        groups = len(flipped)
        if first or kernel.shape[0] % _BLOCK == 0:
            grouped = np.concatenate(flipped)
            set_attributes(copy, group=1 if first else groups)
        elif kernel.shape[2:] == (1, 1):
            # Too few channels for a group: zeros between groups cost less than another layout.
            grouped = _block_diagonal(flipped)
        else:
            raise _NotPossible
        copy.input[1] = self._constant(node.input[1], grouped)
        if bias is not None:
            copy.input[2] = self._constant(node.input[2], np.tile(bias, groups))

    def _group_pooling(self, node: Any, copy: Any) -> None:
        if attribute(node, "ceil_mode") or len(node.output) > 1:
            raise _NotPossible
        self._require_same_windows(node, attribute(node, "kernel_shape"))

    def _group_enlargement(self, node: Any, copy: Any) -> None:
        before, after = self.shapes[node.input[0]], self.shapes[node.output[0]]
        nearest = (attribute(node, "mode") or b"nearest") == b"nearest"
        floor = attribute(node, "nearest_mode") == b"floor"
        asymmetric = attribute(node, "coordinate_transformation_mode") == b"asymmetric"
        whole = all(new % old == 0 for old, new in zip(before, after, strict=True))
        by_scales = len(node.input) == 3
        if not (nearest and floor and asymmetric and whole and by_scales):
            raise _NotPossible

    def _group_addition(self, node: Any, copy: Any) -> None:
        if any(name in self.graph.constants for name in node.input):
            raise _NotPossible

    def _require_same_windows(self, node: Any, kernel: Sequence[int]) -> None:
        """Raise unless a flipped image is divided into the same windows, flipped."""
        pads = attribute(node, "pads") or [0, 0, 0, 0]
        strides = attribute(node, "strides") or [1, 1]
        if set(attribute(node, "dilations") or [1]) != {1} or pads[:2] != pads[2:]:
            raise _NotPossible
        for axis in {axis for flips in self.flips for axis in flips}:
            size, place = self.shapes[node.input[0]][axis], axis - 2
            if (size + 2 * pads[place] - kernel[place]) % strides[place]:
                raise _NotPossible

    def _constant(self, name: str, value: NDArray[Any]) -> str:
        return self.graph.add_constant(_grouped_name(name), value)


def _grouped_name(name: str) -> str:
    return f"{name}.grouped"


def _block_diagonal(kernels: Sequence[NDArray[Any]]) -> NDArray[Any]:
    outputs, inputs = kernels[0].shape[:2]
    count = len(kernels)
    joined = np.zeros((count * outputs, count * inputs, 1, 1), kernels[0].dtype)
    for place, kernel in enumerate(kernels):
        rows = slice(place * outputs, (place + 1) * outputs)
        joined[rows, place * inputs : (place + 1) * inputs] = kernel
    return joined
