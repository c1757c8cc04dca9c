"""The same model in numbers of fewer bits, where a processor computes those faster.

Owns which parts of a graph may be reduced: the network between its first and its last convolution.
Camera pixels, normalisation, the noise model and the posterior stay in float32 (a 16-bit camera
counts further than half precision does). What it costs is measured by
`benchmarks/inference_precision.py`.
"""

from __future__ import annotations

from typing import Any, Literal, get_args

import numpy as np

from ..errors import InferenceError

Precision = Literal["fp32", "fp16", "int8"]

_ELEMENTWISE = ("Relu", "LeakyRelu", "MaxPool", "AveragePool", "Resize")
_JOINING = ("Add", "Concat")


def require_precision(precision: str, provider: str) -> None:
    """Raise InferenceError if no such precision is offered on this provider."""
    if precision not in get_args(Precision):
        raise InferenceError(
            f"precision is {precision!r}, expected one of {', '.join(get_args(Precision))}"
        )
    if precision == "int8":
        raise InferenceError(
            "precision int8 is not offered: it saves less time than a smaller preset and loses "
            "more (docs/inference.md); pass --precision fp32, or train with --preset fast"
        )
    if precision == "fp16" and provider == "cpu":
        raise InferenceError(
            "precision fp16 is for GPUs, a CPU computes it through float32 and slower; pass "
            "--precision fp32"
        )


def half_precision(model: Any) -> bytes:
    """Convert the network inside `model` (an onnx.ModelProto) to float16.

    Written here because ONNX Runtime's own converter gives two nodes one name where a tensor
    crosses the border more than once.
    """
    name_nodes(model)
    graph = model.graph
    inner = [node for node in graph.node if node.name in network_nodes(graph)]
    made_inside = {name for node in inner for name in node.output}
    _halve_weights(graph, inner)
    nodes, entered = [], set()
    for node in graph.node:
        if node in inner:
            for place, name in _tensors_in(node):
                if name not in made_inside and not name.endswith(_HALF):
                    if name not in entered:
                        nodes.append(_cast(name, name + _HALF))
                        entered.add(name)
                    node.input[place] = name + _HALF
        else:
            for place, name in enumerate(node.input):
                if name in made_inside:
                    node.input[place] = name + _WHOLE
        nodes.append(node)
        if node in inner:
            nodes += [_cast(name, name + _WHOLE) for name in node.output]
    kept = _used_only(nodes, graph.output)
    del graph.node[:]
    graph.node.extend(kept)
    del graph.value_info[:]
    return bytes(model.SerializeToString())


_HALF, _WHOLE = ".half", ".whole"


def _tensors_in(node: Any) -> list[tuple[int, str]]:
    """Return place and name of the inputs whose numbers are reduced (not a Resize's scales)."""
    places = 1 if node.op_type in _ELEMENTWISE else len(node.input)
    return [(place, node.input[place]) for place in range(places)]


def _halve_weights(graph: Any, inner: list[Any]) -> None:
    from onnx import numpy_helper

    weights = {weight.name: weight for weight in graph.initializer}
    halved = set()
    for node in inner:
        for place, name in _tensors_in(node):
            if name not in weights:
                continue
            if name not in halved:
                half = numpy_helper.to_array(weights[name]).astype(np.float16)
                graph.initializer.append(numpy_helper.from_array(half, name + _HALF))
                halved.add(name)
            node.input[place] = name + _HALF


def _cast(source: str, target: str) -> Any:
    from onnx import TensorProto, helper

    to = TensorProto.FLOAT16 if target.endswith(_HALF) else TensorProto.FLOAT
    return helper.make_node("Cast", [source], [target], name=f"Cast_{target}", to=to)


def _used_only(nodes: list[Any], outputs: Any) -> list[Any]:
    used = {name for node in nodes for name in node.input} | {output.name for output in outputs}
    return [node for node in nodes if used.intersection(node.output)]


def network_nodes(graph: Any) -> set[str]:
    """Return the names of the nodes between the first and the last convolution.

    Every node needs a name of its own; see `name_nodes`.
    """
    convolutions = [node for node in graph.node if node.op_type in ("Conv", "ConvTranspose")]
    consumers: dict[str, list[Any]] = {}
    for node in graph.node:
        for name in node.input:
            consumers.setdefault(name, []).append(node)
    makers = {name: node for node in graph.node for name in node.output}
    inner: dict[str, Any] = {node.name: node for node in convolutions}
    for node in graph.node:
        sources = [makers.get(name) for name in node.input if name in makers]
        inside = bool(sources) and all(s is not None and s.name in inner for s in sources)
        if inside and node.op_type in (*_ELEMENTWISE, *_JOINING):
            inner[node.name] = node
    first = {n.name for n in convolutions if not _made_inside(n, makers, inner)}
    last = {n.name for n in convolutions if not _used_inside(n, consumers, inner)}
    return set(inner) - first - last


def _made_inside(node: Any, makers: dict[str, Any], inner: dict[str, Any]) -> bool:
    maker = makers.get(node.input[0])
    return maker is not None and maker.name in inner


def _used_inside(node: Any, consumers: dict[str, list[Any]], inner: dict[str, Any]) -> bool:
    return any(user.name in inner for user in consumers.get(node.output[0], []))


def name_nodes(model: Any) -> None:
    """Give every node of an onnx.ModelProto a name of its own."""
    for number, node in enumerate(model.graph.node):
        node.name = f"{node.op_type}_{number}"
