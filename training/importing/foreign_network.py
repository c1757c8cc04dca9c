"""A network made elsewhere inside the graph that every bundle has.

Owns what stands between both: the camera's pixels as float32, the scaling before and after, the
order of the axes, frames that are not a multiple of what the network takes, and an uncertainty of
zero where it states none. Which scaling it is, is told by who read the network's description.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from math import lcm
from typing import Any

import numpy as np

from ...errors import one_line
from ...inference.graph.inspection import INPUT, OUTPUTS, PERIOD
from ...inference.graph.rewriting import drop_exporter_traces
from ..errors import ExportError
from .nodes import Nodes
from .scaling import Step, Undo

LOWEST_OPSET = 18
IR_VERSION = 10
"""What ONNX Runtime 1.24 reads."""
OURS = "ncyx"


@dataclass(frozen=True, slots=True)
class ForeignNetwork:
    """A network, and how its maker feeds it.

    Attributes
    ----------
    model
        `onnx.ModelProto` of one input; its first output is the estimate.
    axes
        The order of its input's dimensions, of the letters n, c, y, x and z.
    output_axes
        The same of its output.
    planes
        Frames that it is given: the newest, then those before it.
    least, step
        Of height and width: the smallest, and by what they grow. A step of 0 is one size alone.
    before, after
        What is done to the frame before it, and to the estimate after.
    states_uncertainty
        Whether its second output is a standard deviation.
    """

    model: Any
    axes: str = OURS
    output_axes: str = OURS
    planes: int = 1
    least: tuple[int, int] = (1, 1)
    step: tuple[int, int] = (1, 1)
    before: tuple[Step, ...] = ()
    after: tuple[Step, ...] = ()
    states_uncertainty: bool = False
    undo: bool = False
    """Whether the scaling is undone at the end, because whoever packed it did not."""

    def undone(self) -> ForeignNetwork:
        """Return it with its scaling undone, so that the estimate is in the camera's units."""
        return replace(self, undo=True)


def graph_of(network: ForeignNetwork, pixel_type: str) -> Any:
    """Return the `onnx.ModelProto` of a bundle around a network.

    Parameters
    ----------
    network
        Its model is not changed.
    pixel_type
        Of the camera: uint8, uint16 or float32.

    Raises
    ------
    ExportError
        If the network is of operations that cannot be had here, or the whole is no sound graph.
    """
    import onnx
    from onnx import checker, helper

    inner = _prepared(network.model)
    parts = _Parts(network, inner)
    parts.write()
    element = helper.np_dtype_to_tensor_dtype(np.dtype(pixel_type))
    sizes: list[int | str] = ["N", network.planes, "Y", "X"]
    for letter, place in (("y", 2), ("x", 3)):
        if not network.step["yx".index(letter)]:
            sizes[place] = network.least["yx".index(letter)]
    image = [sizes[0], 1, *sizes[2:]]
    graph = helper.make_graph(
        parts.nodes,
        "imported",
        [helper.make_tensor_value_info(INPUT, element, sizes)],
        [helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, image) for name in OUTPUTS],
        parts.constants,
    )
    whole = helper.make_model(
        graph, opset_imports=inner.opset_import, ir_version=min(IR_VERSION, onnx.IR_VERSION)
    )
    whole.functions.extend(inner.functions)
    helper.set_model_props(whole, {PERIOD: str(lcm(*(max(1, size) for size in network.step)))})
    try:
        checker.check_model(whole, full_check=True)
    except Exception as error:  # onnx raises types of its own
        raise ExportError(
            f"the network cannot be put into a bundle ({one_line(error)[:200]}); "
            "export it anew with `torch.onnx.export`, opset 18"
        ) from error
    return whole


@dataclass
class _Parts:
    """The nodes of the whole, in their order."""

    network: ForeignNetwork
    inner: Any
    nodes: list[Any] = field(default_factory=list)
    constants: list[Any] = field(default_factory=list)

    def write(self) -> None:
        """Write what comes before the network, the network, and what comes after."""
        before, after = Nodes("before"), Nodes("after")
        raw, fed, undoes = self._before(before)
        names = {self.inner.graph.input[0].name: fed}
        given = [output.name for output in self.inner.graph.output]
        self._after(after, raw, given, undoes if self.network.undo else [])
        for node in self.inner.graph.node:
            for place, name in enumerate(node.input):
                node.input[place] = names.get(name, name)
        self.nodes = [*before.nodes, *self.inner.graph.node, *after.nodes]
        self.constants = [*before.constants, *self.inner.graph.initializer, *after.constants]

    def _before(self, nodes: Nodes) -> tuple[str, str, list[Undo]]:
        raw = nodes.add("Cast", INPUT, to=_FLOAT)
        x, undoes = _scaled(nodes, self.network.before, raw, raw)
        x = _padded(nodes, x, self.network)
        x = _arranged(nodes, x, OURS, self.network.axes)
        element = self.inner.graph.input[0].type.tensor_type.elem_type
        return raw, x if element == _FLOAT else nodes.add("Cast", x, to=element), undoes

    def _after(self, nodes: Nodes, raw: str, given: list[str], undoes: list[Undo]) -> None:
        y = self._image(nodes, given[0], raw)
        y, _ = _scaled(nodes, self.network.after, y, raw)
        for undo in reversed(undoes):
            y = undo(nodes, y)
        nodes.add("Identity", y, called=OUTPUTS[0])
        if self.network.states_uncertainty:
            nodes.add("Identity", self._image(nodes, given[1], raw), called=OUTPUTS[1])
        else:
            nodes.add("ConstantOfShape", nodes.add("Shape", y), called=OUTPUTS[1])

    def _image(self, nodes: Nodes, name: str, raw: str) -> str:
        """Bring an output of the network to (N, 1, Y, X), of the size of the frame."""
        y = nodes.add("Cast", name, to=_FLOAT)
        y = _arranged(nodes, y, self.network.output_axes, OURS)
        if not _pads(self.network):
            return y
        size = nodes.add("Shape", raw, start=2, end=4)
        return nodes.add("Slice", y, nodes.whole([0, 0]), size, nodes.whole([2, 3]))


def _prepared(model: Any) -> Any:
    """Return a copy with names of its own, without functions, of an opset that has our nodes."""
    import onnx
    from onnx import compose, inliner, version_converter

    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    drop_exporter_traces(copy)
    try:
        copy = inliner.inline_local_functions(copy)
        version = next(entry.version for entry in copy.opset_import if not entry.domain)
        if version < LOWEST_OPSET:
            copy = version_converter.convert_version(copy, LOWEST_OPSET)
        return compose.add_prefix(copy, "network/")
    except Exception as error:  # onnx raises types of its own
        raise ExportError(
            f"the network cannot be read as opset {LOWEST_OPSET} or later "
            f"({one_line(error)[:200]}); export it anew with a later opset"
        ) from error


def _scaled(nodes: Nodes, steps: tuple[Step, ...], x: str, raw: str) -> tuple[str, list[Undo]]:
    undoes = []
    for step in steps:
        x, undo = step.write(nodes, x, raw)
        undoes += [] if undo is None else [undo]
    return x, undoes


def _pads(network: ForeignNetwork) -> bool:
    return network.least != (1, 1) or max(network.step) > 1


def _padded(nodes: Nodes, x: str, network: ForeignNetwork) -> str:
    """Repeat the last row and column until the network takes the frame."""
    if not _pads(network) or not all(network.step):
        return x
    size = nodes.add("Shape", x, start=2, end=4)
    short = nodes.add("Sub", nodes.whole(network.least), size)
    missing = nodes.add("Max", short, nodes.add("Mod", short, nodes.whole(network.step)))
    pads = nodes.add("Concat", nodes.whole([0] * 6), missing, axis=0)
    return nodes.add("Pad", x, pads, mode="edge")


def _arranged(nodes: Nodes, x: str, given: str, wanted: str) -> str:
    """Bring axes of one order to another; those that one of them lacks have a single place."""
    gone = [place for place, letter in enumerate(given) if letter not in wanted]
    if gone:
        x = nodes.add("Squeeze", x, nodes.whole(gone))
    there = [letter for letter in given if letter in wanted]
    order = [there.index(letter) for letter in wanted if letter in there]
    if order != sorted(order):
        x = nodes.add("Transpose", x, perm=order)
    new = [place for place, letter in enumerate(wanted) if letter not in given]
    return nodes.add("Unsqueeze", x, nodes.whole(new)) if new else x


_FLOAT = 1
"""Of `onnx.TensorProto`."""
