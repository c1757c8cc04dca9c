"""Rewrite an exported graph into one that computes the same and runs faster.

Owns the knowledge of what ONNX Runtime is slow at in the graphs that training exports. Applied
once, at export, before the graph is compared with PyTorch and hashed: what is checked is what
runs. A pattern that is not found is left alone.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .editing import EditableGraph, attribute

_KEEP_CHANNELS = ("Add", "Relu", "LeakyRelu", "Resize", "MaxPool", "AveragePool")


def rewrite_for_speed(model: Any) -> list[str]:
    """Rewrite `model` (an onnx.ModelProto) in place and return the rules that applied.

    The results differ in the last digits, as sums are taken in another order. What it saves is
    measured by `benchmarks/inference_speed.py`.
    """
    applied = []
    rules: dict[str, Callable[[EditableGraph], int]] = {
        "concatenation-into-convolutions": _split_concatenation,
        "gather-from-table": _gather_from_table,
    }
    for name, rule in rules.items():
        graph = EditableGraph(model)
        if rule(graph):
            graph.remove_dead()
            applied.append(name)
    return applied


def drop_exporter_traces(model: Any) -> None:
    """Take out what the exporter notes beside every node: lines of source, paths of a machine.

    A bundle is handed on, and these notes are three quarters of it.
    """
    graph = model.graph
    nodes = [*graph.node, *(node for function in model.functions for node in function.node)]
    values = [*graph.input, *graph.output, *graph.value_info, *graph.initializer]
    for noted in (model, graph, *model.functions, *nodes, *values):
        del noted.metadata_props[:]
        noted.doc_string = ""


# ---------------------------------------------------------------------------------- rule one


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


# ------------------------------------------------------------------------------- rule two


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
