"""The graph as a CPU runs it fastest, once the size of the frames is known.

Owns the rewritings that need sizes, or that suit a CPU only: what moves pixels about without
computing anything is taken out or moved into weights. Applied when a session is opened; the golden
answer of the bundle is checked on a graph that went through the same rules. A pattern that is not
found is left alone.

`graph_rewriting` holds what helps at any size and on every processor.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from .depth_to_space import depth_to_space_as_convolution, space_to_depth_as_convolution
from .editing import EditableGraph, attribute
from .operations import Shapes, model_at_shape, tensor_shapes

_INT32, _INT64 = 6, 7
"""Element types of ONNX."""

_TABLE_ROWS = 64
_MOST_RUNS = 4


def graph_for_frames(model: Path, frame_shape: tuple[int, int]) -> bytes:
    """Return the graph of `model` for frames of one shape, as a CPU runs it fastest.

    Parameters
    ----------
    model
        The ONNX file of a bundle.
    frame_shape
        (Y, X) in pixels.
    """
    fixed = model_at_shape(model, frame_shape)
    rewrite_for_frames(fixed)
    return bytes(fixed.SerializeToString())


def rewrite_for_frames(model: Any) -> list[str]:
    """Rewrite `model` (an onnx.ModelProto whose shapes are all known) in place.

    Returns the rules that applied. Numbers change in the last digit only, as sums are taken in
    another order. What it saves is measured by `benchmarks/inference_speed.py`.
    """
    shapes = tensor_shapes(model.graph)
    rules: dict[str, Callable[[EditableGraph, Shapes], int]] = {
        "identity": _drop_identities,
        "difference-table": _tabulate_differences,
        "short-index": _shorten_indices,
        "table-rows": _look_up_in_rows,
        "space-to-depth": space_to_depth_as_convolution,
        "depth-to-space": depth_to_space_as_convolution,
        "runs": _copy_runs,
    }
    applied = []
    for name, rule in rules.items():
        graph = EditableGraph(model)
        if rule(graph, shapes):
            graph.remove_dead()
            applied.append(name)
    return applied


# -------------------------------------------------------------------------- moves of nothing


def _drop_identities(graph: EditableGraph, shapes: Shapes) -> int:
    """Take out paddings by index and crops that, at this size, change nothing."""
    dropped = 0
    for node in list(graph.proto.node):
        unchanged = (
            _gathers_all(node, graph, shapes)
            or _keeps_all(node, graph, shapes)
            or _multiplies_by_one(node, graph, shapes)
        )
        if unchanged and not graph.is_output(node.output[0]):
            graph.use_instead(node.output[0], node.input[0])
            dropped += 1
    return dropped


def _gathers_all(node: Any, graph: EditableGraph, shapes: Shapes) -> bool:
    if node.op_type != "Gather" or node.input[0] not in shapes:
        return False
    index, axis = graph.value(node.input[1]), attribute(node, "axis") or 0
    length = shapes[node.input[0]][axis]
    return index is not None and np.array_equal(index, np.arange(length))


def _keeps_all(node: Any, graph: EditableGraph, shapes: Shapes) -> bool:
    if node.op_type != "Slice" or shapes.get(node.input[0]) != shapes.get(node.output[0]):
        return False
    steps = graph.input_value(node, 4)
    return node.input[0] in shapes and (steps is None or bool((steps == 1).all()))


def _multiplies_by_one(node: Any, graph: EditableGraph, shapes: Shapes) -> bool:
    if node.op_type != "Mul" or shapes.get(node.input[0]) != shapes.get(node.output[0]):
        return False
    factor = graph.value(node.input[1])
    return factor is not None and bool((factor == 1).all())


def _copy_runs(graph: EditableGraph, shapes: Shapes) -> int:
    """Extend an image by pieces of itself instead of gathering it pixel by pixel."""
    return sum(
        _copy_runs_of(graph, node, shapes)
        for node in list(graph.proto.node)
        if node.op_type == "Gather"
    )


def _copy_runs_of(graph: EditableGraph, node: Any, shapes: Shapes) -> bool:
    from onnx import helper

    index, axis = graph.value(node.input[1]), attribute(node, "axis") or 0
    shape = shapes.get(node.input[0], ())
    if index is None or index.ndim != 1 or not shape or index.size < _MOST_RUNS or index.min() < 0:
        return False
    breaks = np.flatnonzero(np.diff(index) != 1) + 1
    runs = np.split(index, breaks)
    if len(runs) > _MOST_RUNS:
        return False
    name, nodes, pieces = node.output[0], [], []
    for number, run in enumerate(runs):
        if len(run) == shape[axis]:
            pieces.append(node.input[0])
            continue
        pieces.append(f"{name}.run{number}")
        ends = [run[0], run[-1] + 1, axis]
        nodes.append(
            helper.make_node(
                "Slice",
                [
                    node.input[0],
                    *(
                        graph.add_constant(f"{name}.run{number}.{what}", np.array([end]))
                        for what, end in zip(("start", "end", "axis"), ends, strict=True)
                    ),
                ],
                [pieces[-1]],
            )
        )
    joined = helper.make_node("Concat", pieces, [name], axis=axis)
    graph.replace(node, *nodes, joined)
    return True


# -------------------------------------------------------------------------------- look-ups


def _tabulate_differences(graph: EditableGraph, shapes: Shapes) -> int:
    """Interpolate in one table and one of its differences: an addition and a subtraction less.

    table[i + 1] − table[i] is differences[i]; the same rounding, done once.
    """
    return sum(
        _tabulate_difference(graph, node)
        for node in list(graph.proto.node)
        if node.op_type == "Sub"
    )


def _tabulate_difference(graph: EditableGraph, difference: Any) -> bool:
    from onnx import helper

    above, below = (graph.source(name, "Gather") for name in difference.input)
    if above is None or below is None or above.input[0] != below.input[0]:
        return False
    table, step = graph.value(below.input[0]), graph.source(above.input[1], "Add")
    if table is None or table.ndim != 1 or step is None or step.input[0] != below.input[1]:
        return False
    one = graph.input_value(step, 1)
    if one is None or one.size != 1 or one.item() != 1:
        return False
    name = f"{below.input[0]}.differences"
    if name not in graph.constants:
        graph.add_constant(name, np.append(np.diff(table), table.dtype.type(0)))
    node = helper.make_node("Gather", [name, below.input[1]], list(difference.output), axis=0)
    graph.replace(difference, node)
    return True


def _shorten_indices(graph: EditableGraph, shapes: Shapes) -> int:
    """Let computed indices have 32 bits instead of 64: half the memory to go through."""
    from onnx import helper

    found = 0
    for cast in graph.proto.node:
        if cast.op_type != "Cast" or attribute(cast, "to") != _INT64:
            continue
        users = graph.users.get(cast.output[0], [])
        if users and all(_takes_any_integer(user, cast.output[0]) for user in users):
            del cast.attribute[:]
            cast.attribute.append(helper.make_attribute("to", _INT32))
            found += 1
    return found


def _takes_any_integer(user: Any, name: str) -> bool:
    return user.op_type == "Cast" or (user.op_type == "Gather" and name != str(user.input[0]))


def _look_up_in_rows(graph: EditableGraph, shapes: Shapes) -> int:
    """Look numbers up with GatherElements, which the runtime does four times as fast as Gather.

    It wants a table for every row of indices: the same one, `_TABLE_ROWS` times, one for each of
    as many cores.
    """
    return sum(
        _look_one_up_in_rows(graph, node, shapes)
        for node in list(graph.proto.node)
        if node.op_type == "Gather"
    )


def _look_one_up_in_rows(graph: EditableGraph, node: Any, shapes: Shapes) -> bool:
    from onnx import helper

    table, shape = graph.value(node.input[0]), shapes.get(node.input[1])
    if table is None or table.ndim != 1 or shape is None or prod(shape) < _TABLE_ROWS:
        return False
    rows = next(count for count in range(_TABLE_ROWS, 0, -1) if prod(shape) % count == 0)
    name = node.output[0]
    nodes = [
        helper.make_node(
            "Reshape",
            [node.input[1], graph.add_constant(f"{name}.rows", np.array([rows, -1]))],
            [f"{name}.indices"],
        ),
        helper.make_node(
            "GatherElements",
            [
                graph.add_constant(f"{name}.tables", np.tile(table, (rows, 1))),
                f"{name}.indices",
            ],
            [f"{name}.found"],
            axis=1,
        ),
        helper.make_node(
            "Reshape",
            [f"{name}.found", graph.add_constant(f"{name}.shape", np.array(shape))],
            [name],
        ),
    ]
    graph.replace(node, *nodes)
    return True
