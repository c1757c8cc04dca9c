"""Space-to-depth as a strided convolution, depth-to-space as a transposed one.

Owns two rules, which replace copies by products. A blind-spot network sees an image as many
shifted sub-lattices and its answers are interleaved; an exporter writes that as slices,
six-dimensional transpositions and concatenations, which the runtime does slowly and on one core.
Here one strided convolution with zeros and ones takes all distinct sub-lattices apart, and one
transposed convolution interleaves the answers.

What a graph moves where is found out by letting it move numbers that tell where they came from,
whatever operations it is written in.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isqrt, prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .editing import EditableGraph
from .operations import Shapes

# fmt: off
_MOVES = frozenset((
    "Concat", "DepthToSpace", "Flatten", "Gather", "Reshape", "Slice", "SpaceToDepth", "Split",
    "Squeeze", "Transpose", "Unsqueeze",
))
# fmt: on

_BLOCK = 16
"""Channels that ONNX Runtime's fastest convolutions take at a time."""

LARGEST_MOVE_BYTES = 512 * 2**20
"""What may be moved to find out where it goes, about twice that for a moment: three frames of
2048×2048. A graph that moves more stays as it is."""


def space_to_depth_as_convolution(graph: EditableGraph, shapes: Shapes) -> int:
    """Make the sub-lattices that convolutions read with one strided one (space-to-depth)."""
    convolutions = [node for node in graph.proto.node if node.op_type == "Conv"]
    return sum(_space_to_depth(graph, shapes, node) for node in convolutions)


def depth_to_space_as_convolution(graph: EditableGraph, shapes: Shapes) -> int:
    """Interleave the answers of convolutions with one transposed one (depth-to-space)."""
    convolutions = [node for node in graph.proto.node if node.op_type == "Conv"]
    return sum(_depth_to_space(graph, shapes, node) for node in convolutions)


# ------------------------------------------------------------------------------------ apart


@dataclass(frozen=True, slots=True)
class _Lattices:
    """Strided pictures of an image, as convolutions read them.

    Attributes
    ----------
    image
        The tensor (1, C, Y, X).
    step
        Pixels between neighbouring samples, along y and x.
    kernel
        (P, C, H, W): one 1 in each of P kernels, where its sub-lattice begins.
    places
        (N, K): which of the P sub-lattices is where in the tensor that is read.
    """

    image: str
    step: int
    kernel: NDArray[np.float32]
    places: NDArray[np.int64]


def _space_to_depth(graph: EditableGraph, shapes: Shapes, convolution: Any) -> bool:
    lattices = _lattices(graph, shapes, convolution.input[0])
    if lattices is None:
        return False
    places, weights = _in_blocks(lattices.places, graph.value(convolution.input[1]))
    name = f"{convolution.input[0]}.apart"
    shape = np.array((*places.shape, *shapes[convolution.input[0]][2:]))
    nodes = _nodes_apart(graph, lattices, places, shape, name)
    copy = type(convolution)()
    copy.CopyFrom(convolution)
    copy.input[0] = name
    if weights is not None:
        copy.input[1] = graph.add_constant(f"{name}.weights", weights)
    graph.replace(convolution, *nodes, copy)
    return True


def _lattices(graph: EditableGraph, shapes: Shapes, read: str) -> _Lattices | None:
    """Tell which sub-lattices of which image `read` holds; None if it is nothing of the kind."""
    moves, image = _moves_before(graph, read)
    before, after = shapes.get(image, ()), shapes.get(read, ())
    if len(moves) < 2 or len(before) != 4 or len(after) != 4 or before[0] != 1 or after[3] < 2:
        return None
    numbers = _places(before)
    if prod(after) * numbers.itemsize > LARGEST_MOVE_BYTES:
        return None
    moved = _moved(graph, moves, image, read, numbers)
    step = int(moved[0, 0, 0, 1] - moved[0, 0, 0, 0])
    if step < 2 or not _are_regular(moved, step, before[3]):
        return None
    corners = moved[:, :, 0, 0].astype(np.int64)
    distinct, places = np.unique(corners, return_inverse=True)
    origins = np.stack(np.unravel_index(distinct, before[1:]), axis=1)  # channel, row, column
    edges = origins[:, 1:].max(axis=0) + 1
    if any((before[k + 2] - edges[k]) // step + 1 != after[k + 2] for k in (0, 1)):
        return None
    kernel = np.zeros((len(origins), before[1], *edges), np.float32)
    kernel[range(len(origins)), *origins.T] = 1
    return _Lattices(image, step, kernel, places.reshape(corners.shape))


def _places(shape: tuple[int, ...]) -> NDArray[Any]:
    """Return the place of every number of a tensor, in the smallest type that tells them apart."""
    exact = 2 ** (np.finfo(np.float32).nmant + 1)
    numbers = np.arange(prod(shape), dtype=np.float32 if prod(shape) <= exact else np.float64)
    return numbers.reshape(shape)


def _are_regular(moved: NDArray[Any], step: int, row: int) -> bool:
    """Tell whether every picture holds each `step`-th pixel of an image with such long rows."""
    rows, columns = (step * np.arange(size) for size in moved.shape[2:])
    # One picture after the other: all of them take as much memory as the network itself.
    return all(
        np.array_equal(picture, int(picture[0, 0]) + rows[:, None] * row + columns)
        for pictures in moved
        for picture in pictures
    )


def _nodes_apart(
    graph: EditableGraph,
    lattices: _Lattices,
    places: NDArray[np.int64],
    shape: NDArray[np.int64],
    name: str,
) -> list[Any]:
    """Return the nodes that make `name` of this shape: convolve, choose, and reshape."""
    from onnx import helper

    planes, chosen = f"{name}.planes", f"{name}.chosen"
    return [
        helper.make_node(
            "Conv",
            [lattices.image, graph.add_constant(f"{name}.kernel", lattices.kernel)],
            [planes],
            name=planes,
            strides=[lattices.step] * 2,
            kernel_shape=lattices.kernel.shape[2:],
            pads=[0] * 4,
        ),
        helper.make_node(
            "Gather",
            [planes, graph.add_constant(f"{name}.places", places)],
            [chosen],
            name=chosen,
            axis=1,
        ),
        helper.make_node(
            "Reshape",
            [chosen, graph.add_constant(f"{name}.shape", shape)],
            [name],
            name=name,
        ),
    ]


def _in_blocks(
    places: NDArray[np.int64], weights: NDArray[Any] | None
) -> tuple[NDArray[np.int64], NDArray[Any] | None]:
    """Fill up the channels that a convolution reads to whole blocks, with weights of zero.

    The runtime's fastest convolutions read fewer channels than a block, or whole blocks. Returns
    None for the weights where they stay.
    """
    missing = -places.shape[1] % _BLOCK
    if places.shape[1] < _BLOCK or not missing or weights is None:
        return places, None
    if weights.shape[1] != places.shape[1]:
        return places, None
    filled = np.pad(weights, ((0, 0), (0, missing), (0, 0), (0, 0)))
    return np.pad(places, ((0, 0), (0, missing))), filled


def _moves_before(graph: EditableGraph, name: str) -> tuple[list[Any], str]:
    """Return the nodes that only move numbers to `name`, and the tensor they begin at.

    A Gather is where an image was extended: the sub-lattices of an extended image are regular,
    those of the image itself are not.
    """
    wanted, moves = {name}, []
    for node in reversed(graph.proto.node):
        if node.op_type in _MOVES - {"Gather"} and wanted.intersection(node.output):
            moves.append(node)
            wanted -= set(node.output)
            wanted |= {read for read in node.input if read and read not in graph.constants}
    return moves[::-1], wanted.pop() if len(wanted) == 1 else ""


# --------------------------------------------------------------------------------- together


def _depth_to_space(graph: EditableGraph, shapes: Shapes, convolution: Any) -> bool:
    answers = convolution.output[0]
    before = shapes.get(answers, ())
    step = isqrt(before[0]) if len(before) == 4 else 0
    if step < 2 or step * step != before[0] or graph.is_output(answers):
        return False
    channels, height, width = before[1:]
    after = (1, channels, height * step, width * step)
    moves, interleaved = _moves_behind(graph, shapes, answers, after)
    if not interleaved:
        return False
    numbers = _places(before)
    if numbers.nbytes > LARGEST_MOVE_BYTES:
        return False
    expected = numbers.reshape(step, step, *before[1:]).transpose(2, 3, 0, 4, 1).reshape(after)
    if not np.array_equal(_moved(graph, moves, answers, interleaved, numbers), expected):
        return False
    name = f"{interleaved}.by_product"
    nodes = _transposed_convolution(graph, answers, before, step, name)
    graph.use_instead(interleaved, name)
    copy = type(convolution)()
    copy.CopyFrom(convolution)
    graph.replace(convolution, copy, *nodes)
    return True


def _transposed_convolution(
    graph: EditableGraph, answers: str, shape: tuple[int, ...], step: int, name: str
) -> list[Any]:
    """Return the nodes that interleave `answers` into `name`: answer k begins at k of the grid."""
    from onnx import helper

    count, channels, height, width = shape
    kernel = np.zeros((count, channels, channels, step, step), np.float32)
    for place in range(count):
        kernel[place, range(channels), range(channels), *divmod(place, step)] = 1
    joined = np.array((1, count * channels, height, width))
    return [
        helper.make_node(
            "Reshape",
            [answers, graph.add_constant(f"{name}.shape", joined)],
            [f"{name}.answers"],
            name=f"{name}.answers",
        ),
        helper.make_node(
            "ConvTranspose",
            [
                f"{name}.answers",
                graph.add_constant(f"{name}.kernel", kernel.reshape(-1, channels, step, step)),
            ],
            [name],
            name=name,
            strides=[step, step],
            kernel_shape=[step, step],
        ),
    ]


def _moves_behind(
    graph: EditableGraph, shapes: Shapes, name: str, wanted: tuple[int, ...]
) -> tuple[list[Any], str]:
    """Return the nodes that only move `name`, up to a tensor of the wanted shape, and that."""
    reached, moves = {name}, []
    for node in graph.proto.node:
        tensors = [read for read in node.input if read and read not in graph.constants]
        if node.op_type in _MOVES and tensors and reached.issuperset(tensors):
            moves.append(node)
            reached.update(node.output)
            if shapes.get(node.output[0]) == wanted and not graph.is_output(node.output[0]):
                return moves, str(node.output[0])
    return moves, ""


def _moved(
    graph: EditableGraph, moves: Sequence[Any], start: str, end: str, numbers: NDArray[Any]
) -> NDArray[Any]:
    """Let some nodes move numbers."""
    import onnxruntime as ort
    from onnx import helper

    used = {name for node in moves for name in node.input}
    element = helper.np_dtype_to_tensor_dtype(numbers.dtype)
    begin = helper.make_tensor_value_info(start, element, numbers.shape)
    finish = helper.make_tensor_value_info(end, element, None)
    constants = [weight for name, weight in graph.constants.items() if name in used]
    model = helper.make_model(
        helper.make_graph(list(moves), "moves", [begin], [finish], constants),
        opset_imports=graph.model.opset_import,
        ir_version=graph.model.ir_version,
    )
    settings = ort.SessionOptions()
    settings.log_severity_level = 4
    settings.intra_op_num_threads = 1
    settings.enable_cpu_mem_arena = False  # what a node has read is let go at once
    session = ort.InferenceSession(
        model.SerializeToString(), settings, providers=["CPUExecutionProvider"]
    )
    return np.asarray(session.run([end], {start: numbers})[0])
