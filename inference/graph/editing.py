"""An ONNX graph with the look-ups and small changes that rewriting needs.

Owns no rule: what is rewritten, and why, is in `graph_rewriting` (at export, whatever the frame
shape) and in `fixed_shape` (when a session is opened for one frame shape).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(eq=False)
class EditableGraph:
    """The graph of a model (`onnx.ModelProto`) with the look-ups that pattern matching needs.

    They describe the graph as it was when this object was made; make another after a rewriting.
    """

    model: Any
    producers: dict[str, Any] = field(init=False)
    users: dict[str, list[Any]] = field(init=False)
    constants: dict[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        self.producers = {name: node for node in self.proto.node for name in node.output}
        self.users = {}
        for node in self.proto.node:
            for name in dict.fromkeys(node.input):
                self.users.setdefault(name, []).append(node)
        fed = {value.name for value in self.proto.input}  # an initializer may be only a default
        self.constants = {w.name: w for w in self.proto.initializer if w.name not in fed}

    @property
    def proto(self) -> Any:
        """The `onnx.GraphProto`."""
        return self.model.graph

    def source(self, name: str, operation: str) -> Any | None:
        """Return the node that makes `name`, if it is an `operation`."""
        node = self.producers.get(name)
        return node if node is not None and node.op_type == operation else None

    def value(self, name: str) -> NDArray[Any] | None:
        """Return a constant, None if `name` is none."""
        from onnx import numpy_helper

        if name not in self.constants:
            return None
        return np.asarray(numpy_helper.to_array(self.constants[name]))

    def input_value(self, node: Any, place: int) -> NDArray[Any] | None:
        """Return the constant that enters `node` at `place`, None if there is none."""
        return self.value(node.input[place]) if len(node.input) > place else None

    def add_constant(self, name: str, value: NDArray[Any]) -> str:
        """Add a constant and return its name."""
        from onnx import numpy_helper

        self.proto.initializer.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def is_output(self, name: str) -> bool:
        """Tell whether the graph gives `name` to its caller."""
        return any(output.name == name for output in self.proto.output)

    def use_instead(self, name: str, other: str) -> None:
        """Let everything that read `name` read `other`."""
        for node in self.proto.node:
            for place, read in enumerate(node.input):
                if read == name:
                    node.input[place] = other

    def replace(self, node: Any, *others: Any) -> None:
        """Put other nodes where `node` is; the list stays in an order that can be run."""
        place = list(self.proto.node).index(node)
        self.proto.node.remove(node)
        for other in reversed(others):
            self.proto.node.insert(place, other)

    def remove_dead(self) -> None:
        """Remove nodes and constants that nothing uses any more."""
        while True:
            used = {name for node in self.proto.node for name in node.input}
            used |= {output.name for output in self.proto.output}
            dead = [n for n in self.proto.node if not used.intersection(n.output)]
            for node in dead:
                self.proto.node.remove(node)
            if not dead:
                break
        for weight in [w for w in self.constants.values() if w.name not in used]:
            self.proto.initializer.remove(weight)
        # Shapes that were noted for tensors of before no longer hold.
        del self.proto.value_info[:]


def attribute(node: Any, name: str) -> Any:
    """Return an attribute's value (a list where it holds several), None if it is not given."""
    from onnx import helper

    found = next((given for given in node.attribute if given.name == name), None)
    if found is None:
        return None
    value = helper.get_attribute_value(found)
    several = hasattr(value, "__len__") and not isinstance(value, bytes)
    return list(value) if several else value
