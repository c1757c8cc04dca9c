"""Rewrite an exported graph into one that computes the same and runs faster.

Owns the knowledge of what ONNX Runtime is slow at in the graphs that training exports. Applied
once, at export, before the graph is compared with PyTorch and hashed: what is checked is what
runs. A pattern that is not found is left alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .graph_editing import EditableGraph, attribute, set_attributes

_UNSHUFFLE_BY_TWO = [0, 1, 3, 5, 2, 4]
"""How (N, C, Y/2, 2, X/2, 2) becomes (N, C, 2, 2, Y/2, X/2)."""

_KEEP_CHANNELS = ("Add", "Relu", "LeakyRelu", "Resize", "MaxPool", "AveragePool")


def rewrite_for_speed(model: Any) -> list[str]:
    """Rewrite `model` (an onnx.ModelProto) in place and return the rules that applied.

    The results differ in the last digits, as sums are taken in another order. What it saves is
    measured by `benchmarks/inference_speed.py`.
    """
    applied = []
    rules: dict[str, Callable[[EditableGraph], int]] = {
        "unshuffle-into-convolution": _fold_unshuffle,
        "concatenation-into-convolutions": _split_concatenation,
        "gather-from-table": _gather_from_table,
    }
    for name, rule in rules.items():
        graph = EditableGraph(model)
        if rule(graph):
            graph.remove_dead()
            applied.append(name)
    return applied


# --------------------------------------------------------------------------------- rule one


def _fold_unshuffle(graph: EditableGraph) -> int:
    """Take 2×2 sub-lattices apart inside the convolution that reads them.

    A 3×3 convolution of a pixel-unshuffled image is a 6×6 convolution of stride 2 of the image
    itself; channels that were cut away become zeros of its kernel. Saves a six-dimensional
    transposition, which the runtime does slowly.
    """
    return sum(_fold_one_unshuffle(graph, node) for node in list(graph.proto.node))


def _fold_one_unshuffle(graph: EditableGraph, convolution: Any) -> bool:
    if convolution.op_type != "Conv" or not _is_plain(convolution):
        return False
    kernel = graph.value(convolution.input[1])
    source, first_channel = _channels_from(graph, convolution.input[0])
    transposition = graph.source(graph.through_reshapes(source), "Transpose")
    if kernel is None or transposition is None:
        return False
    if attribute(transposition, "perm") != _UNSHUFFLE_BY_TWO:
        return False
    image = graph.through_reshapes(transposition.input[0])
    outputs, channels, height, width = kernel.shape
    if (channels + first_channel) % 4 or height != width:
        return False
    whole = np.zeros((outputs, first_channel + channels, height, width), kernel.dtype)
    whole[:, first_channel:] = kernel
    folded = (
        whole.reshape(outputs, -1, 2, 2, height, width)
        .transpose(0, 1, 4, 2, 5, 3)
        .reshape(outputs, -1, 2 * height, 2 * width)
    )
    convolution.input[0] = image
    convolution.input[1] = graph.add_constant(f"{convolution.input[1]}.unshuffled", folded)
    padding = attribute(convolution, "pads") or [0, 0, 0, 0]
    set_attributes(
        convolution,
        pads=[2 * margin for margin in padding],
        strides=[2, 2],
        kernel_shape=[2 * height, 2 * width],
    )
    return True


def _channels_from(graph: EditableGraph, name: str) -> tuple[str, int]:
    """Follow a slice that cuts the first channels away; return its input and how many."""
    node = graph.source(name, "Slice")
    if node is None or len(node.input) < 4:
        return name, 0
    start, axes = graph.value(node.input[1]), graph.value(node.input[3])
    end = graph.value(node.input[2])
    if start is None or axes is None or end is None or axes.tolist() != [1]:
        return name, 0
    if start[0] < 0 or end[0] < 1 << 31:
        return name, 0
    return node.input[0], int(start[0])


# --------------------------------------------------------------------------------- rule two


def _split_concatenation(graph: EditableGraph) -> int:
    """Convolve two concatenated tensors apart and add: the copy into one is saved.

    ONNX Runtime adds into the output of the second convolution at no cost.
    """
    return sum(_split_one_concatenation(graph, node) for node in list(graph.proto.node))


def _split_one_concatenation(graph: EditableGraph, convolution: Any) -> bool:
    from onnx import helper

    if convolution.op_type != "Conv" or not _is_plain(convolution):
        return False
    joined = graph.source(convolution.input[0], "Concat")
    kernel = graph.value(convolution.input[1])
    if joined is None or kernel is None or len(joined.input) != 2:
        return False
    if attribute(joined, "axis") != 1:
        return False
    widths = [_channels_of(graph, name) for name in joined.input]
    if None in widths or sum(width or 0 for width in widths) != kernel.shape[1]:
        return False
    split, output, bias = int(widths[0] or 0), convolution.output[0], list(convolution.input[2:])
    parts = []
    for number, part in enumerate((kernel[:, :split], kernel[:, split:])):
        node = helper.make_node(
            "Conv",
            [
                joined.input[number],
                graph.add_constant(f"{convolution.input[1]}.part{number}", part),
                *(bias if number == 0 else []),
            ],
            [f"{output}.part{number}"],
            name=f"{convolution.name}.part{number}",
        )
        node.attribute.extend(convolution.attribute)
        parts.append(node)
    total = helper.make_node("Add", [part.output[0] for part in parts], [output])
    # The deeper branch first, so that the addition goes into the convolution that runs last.
    graph.replace(convolution, parts[1], parts[0], total)
    return True


def _channels_of(graph: EditableGraph, name: str) -> int | None:
    """Return the channels of a tensor that a convolution made, perhaps some steps before."""
    while (node := graph.producers.get(name)) is not None:
        if node.op_type == "Conv":
            kernel = graph.value(node.input[1])
            return None if kernel is None else int(kernel.shape[0])
        if node.op_type not in _KEEP_CHANNELS:
            return None
        name = node.input[0]
    return None


# ------------------------------------------------------------------------------- rule three


def _gather_from_table(graph: EditableGraph) -> int:
    """Look numbers up in a one-dimensional table with Gather, which uses all cores."""
    from onnx import helper

    found = 0
    for node in graph.proto.node:
        if node.op_type != "GatherND" or attribute(node, "batch_dims"):
            continue
        table, index = graph.value(node.input[0]), graph.source(node.input[1], "Unsqueeze")
        if table is None or table.ndim != 1 or index is None:
            continue
        axes = graph.value(index.input[1])
        if axes is None or axes.tolist() != [-1]:
            continue
        node.op_type = "Gather"
        node.input[1] = index.input[0]
        del node.attribute[:]
        node.attribute.append(helper.make_attribute("axis", 0))
        found += 1
    return found


# ------------------------------------------------------------------------------- attributes


def _is_plain(convolution: Any) -> bool:
    """Whether a convolution has stride 1, no dilation, no groups and explicit padding."""
    return (
        set(attribute(convolution, "strides") or [1]) == {1}
        and set(attribute(convolution, "dilations") or [1]) == {1}
        and (attribute(convolution, "group") or 1) == 1
        and (attribute(convolution, "auto_pad") or b"NOTSET") == b"NOTSET"
    )
