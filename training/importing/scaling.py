"""What is done to a frame before a network and to its estimate after, as nodes of the graph.

Owns the steps that BioImage.IO packages and CAREamics know, with their own formulas, and how a
step is undone. Tensors are float32 (N, C, Y, X); statistics are those of one sample, as everyone's
are who denoises frame by frame.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from .nodes import Nodes

Undo = Callable[[Nodes, str], str]
"""Writes what brings a tensor back to the units before a step."""
PLANE, SAMPLE = (2, 3), (1, 2, 3)
"""The axes over which statistics are taken: of each channel, or of all together."""


class Step(Protocol):
    """One thing that is done to a tensor."""

    def write(self, nodes: Nodes, x: str, raw: str) -> tuple[str, Undo | None]:
        """Write it for the tensor `x`; `raw` is the frame as the camera gave it.

        Returns
        -------
        The name of the result, and how it is undone; None where it cannot be or needs not.
        """
        ...


@dataclass(frozen=True, slots=True)
class Linear:
    """(x − shift) / scale, one number for all or one for each channel."""

    shift: tuple[float, ...]
    scale: tuple[float, ...]

    def write(self, nodes: Nodes, x: str, raw: str) -> tuple[str, Undo | None]:
        """See `Step`."""
        shift, scale = (
            nodes.floats([[[[value]] for value in values]]) for values in (self.shift, self.scale)
        )
        return _shifted_and_scaled(nodes, x, shift, scale)


@dataclass(frozen=True, slots=True)
class Standardised:
    """(x − mean) / (standard deviation + eps)."""

    axes: tuple[int, ...]
    eps: float

    def write(self, nodes: Nodes, x: str, raw: str) -> tuple[str, Undo | None]:
        """See `Step`."""
        mean, deviation = _mean_and_deviation(nodes, x, self.axes)
        scale = nodes.add("Add", deviation, nodes.floats(self.eps))
        return _shifted_and_scaled(nodes, x, mean, scale)


@dataclass(frozen=True, slots=True)
class Ranged:
    """(x − low) / (high − low + eps) with two percentiles, interpolated linearly."""

    axes: tuple[int, ...]
    low: float
    high: float
    eps: float

    def write(self, nodes: Nodes, x: str, raw: str) -> tuple[str, Undo | None]:
        """See `Step`."""
        # (N, 1 or C, pixels), in rising order.
        channels = [0, 1, -1] if self.axes == SAMPLE else [0, 0, -1]
        pixels = nodes.add("Reshape", x, nodes.whole(channels))
        count = nodes.add("Shape", pixels, start=2, end=3)
        ordered = _in_order(nodes, pixels, count)
        low, high = (_percentile(nodes, ordered, count, q / 100) for q in (self.low, self.high))
        span = nodes.add("Sub", high, low)
        return _shifted_and_scaled(nodes, x, low, nodes.add("Add", span, nodes.floats(self.eps)))


@dataclass(frozen=True, slots=True)
class Matched:
    """Mean and standard deviation brought to those of the camera's frame."""

    axes: tuple[int, ...]
    eps: float

    def write(self, nodes: Nodes, x: str, raw: str) -> tuple[str, Undo | None]:
        """See `Step`."""
        eps = nodes.floats(self.eps)
        mean, deviation = _mean_and_deviation(nodes, x, self.axes)
        wanted_mean, wanted = _mean_and_deviation(nodes, raw, self.axes)
        flat = nodes.add("Div", nodes.add("Sub", x, mean), nodes.add("Add", deviation, eps))
        scaled = nodes.add("Mul", flat, nodes.add("Add", wanted, eps))
        return nodes.add("Add", scaled, wanted_mean), None


@dataclass(frozen=True, slots=True)
class Clipped:
    """Kept between two values."""

    low: float | None
    high: float | None

    def write(self, nodes: Nodes, x: str, raw: str) -> tuple[str, Undo | None]:
        """See `Step`."""
        if self.low is not None:
            x = nodes.add("Max", x, nodes.floats(self.low))
        if self.high is not None:
            x = nodes.add("Min", x, nodes.floats(self.high))
        return x, None


@dataclass(frozen=True, slots=True)
class Sigmoid:
    """1 / (1 + e⁻ˣ)."""

    def write(self, nodes: Nodes, x: str, raw: str) -> tuple[str, Undo | None]:
        """See `Step`."""
        return nodes.add("Sigmoid", x), None


def _shifted_and_scaled(nodes: Nodes, x: str, shift: str, scale: str) -> tuple[str, Undo]:
    def undo(later: Nodes, y: str) -> str:
        return later.add("Add", later.add("Mul", y, scale), shift)

    return nodes.add("Div", nodes.add("Sub", x, shift), scale), undo


def _mean_and_deviation(nodes: Nodes, x: str, axes: tuple[int, ...]) -> tuple[str, str]:
    over = nodes.whole(axes)
    mean = nodes.add("ReduceMean", x, over)
    difference = nodes.add("Sub", x, mean)
    variance = nodes.add("ReduceMean", nodes.add("Mul", difference, difference), over)
    return mean, nodes.add("Sqrt", variance)


def _in_order(nodes: Nodes, pixels: str, count: str) -> str:
    from onnx import helper

    name = f"{nodes.prefix}.{len(nodes.nodes)}.ordered"
    nodes.nodes.append(
        helper.make_node("TopK", [pixels, count], [name, f"{name}.from"], largest=0, sorted=1)
    )
    return name


def _percentile(nodes: Nodes, ordered: str, count: str, share: float) -> str:
    """Return the value below which this share of the pixels lies, (N, C, 1, 1)."""
    last = nodes.add("Sub", nodes.add("Cast", count, to=_FLOAT), nodes.floats([1]))
    place = nodes.add("Mul", last, nodes.floats([share]))
    below, above = nodes.add("Floor", place), nodes.add("Ceil", place)
    part = nodes.add("Sub", place, below)
    values = [
        nodes.add("Gather", ordered, nodes.add("Cast", end, to=_WHOLE), axis=2)
        for end in (below, above)
    ]
    step = nodes.add("Mul", nodes.add("Sub", values[1], values[0]), part)
    found = nodes.add("Add", values[0], step)
    return nodes.add("Unsqueeze", found, nodes.whole([3]))


_FLOAT, _WHOLE = 1, 7
"""Of `onnx.TensorProto`: float32 and int64."""
