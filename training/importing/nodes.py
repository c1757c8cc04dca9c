"""ONNX nodes that are written one after the other, and the constants that they use.

Owns their names. What is computed is decided by who writes them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


class Nodes:
    """A growing part of a graph.

    Attributes
    ----------
    nodes, constants
        `onnx.NodeProto` in an order that can be run, and `onnx.TensorProto`.
    """

    def __init__(self, prefix: str) -> None:
        self.prefix = prefix
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def add(
        self, operation: str, *inputs: str, called: str | None = None, **attributes: Any
    ) -> str:
        """Write a node of one output, and return the output's name."""
        from onnx import helper

        output = called or f"{self.prefix}.{len(self.nodes)}.{operation.lower()}"
        self.nodes.append(helper.make_node(operation, inputs, [output], **attributes))
        return output

    def floats(self, values: Any) -> str:
        """Write a constant of float32, and return its name."""
        return self._constant(np.asarray(values, np.float32))

    def whole(self, values: Any) -> str:
        """Write a constant of int64, and return its name."""
        return self._constant(np.asarray(values, np.int64))

    def _constant(self, values: NDArray[Any]) -> str:
        from onnx import numpy_helper

        name = f"{self.prefix}.constant.{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(values, name))
        return name
