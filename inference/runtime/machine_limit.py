"""What this machine can do at most: the best rate of any convolution or product it is given.

Owns the workloads and their timing. A single matrix product is no limit: on some processors
ONNX Runtime's convolutions, or products of another size, run at 1.7 times its rate. So all kinds
are tried, over sizes and channel counts, on the same provider, threads and number type as the
model, and the fastest ones are run again and again while the model is.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..graph.precision import Precision
from .providers import Provider, open_session

GEMM_EDGE = 2048
PRODUCT_EDGES = (512, 1024, GEMM_EDGE)
CONVOLUTIONS = ((16, 512), (32, 256), (64, 128), (128, 64))
"""Channels, and edge of the image in pixels: about 5 GFLOP each."""
CHAINED = 4
"""Convolutions in a row, as in a network: what is rearranged before and after counts little."""
GPU_FACTOR = 4
"""Edges are this many times as long where a processor is that much faster."""
SURVEY_RUNS = 3
FASTEST = 3
"""How many of the workloads are run again while the model is measured."""


class Workload:
    """One graph with operands in place, run by ONNX Runtime.

    Attributes
    ----------
    name
        For a person.
    gflop
        Operations of one run, in units of 10⁹.
    values
        Operands and result, as the session is bound to them.
    """

    def __init__(
        self,
        name: str,
        gflop: float,
        model: Any,
        operands: Sequence[tuple[str, NDArray[Any]]],
        result: tuple[int, ...],
        provider: Provider,
        threads: int,
    ) -> None:
        import onnxruntime as ort

        self.name, self.gflop = name, gflop
        self._session = open_session(
            model.SerializeToString(), provider=provider, threads=threads
        ).session
        self._binding = self._session.io_binding()
        device = "cuda" if provider in ("cuda", "tensorrt") else "cpu"
        # Kept: on the CPU the runtime reads and writes this very memory.
        self.values = [ort.OrtValue.ortvalue_from_numpy(array, device) for _, array in operands]
        for (operand, _), value in zip(operands, self.values, strict=True):
            self._binding.bind_ortvalue_input(operand, value)
        self.values.append(
            ort.OrtValue.ortvalue_from_shape_and_type(result, operands[0][1].dtype.type, device)
        )
        self._binding.bind_ortvalue_output("result", self.values[-1])
        self.run()

    def run(self) -> None:
        """Compute once and wait for it."""
        self._session.run_with_iobinding(self._binding)

    def timed(self) -> float:
        """Return the seconds that one run takes."""
        began = time.perf_counter()
        self.run()
        return time.perf_counter() - began


def matrix_product(
    provider: Provider, threads: int, precision: Precision, edge: int = GEMM_EDGE
) -> Workload:
    """Return the product of two square matrices."""
    from onnx import helper

    dtype = _number_type(provider, precision)
    operands = np.random.default_rng(0).standard_normal((2, edge, edge)).astype(dtype)
    nodes = [helper.make_node("MatMul", ["a", "b"], ["result"])]
    shape = (edge, edge)
    return Workload(
        f"matrix product of edge {edge}",
        2 * edge**3 / 1e9,
        _model(nodes, {"a": shape, "b": shape}, shape, dtype),
        [("a", operands[0]), ("b", operands[1])],
        shape,
        provider,
        threads,
    )


def convolution(
    provider: Provider, threads: int, precision: Precision, channels: int, edge: int
) -> Workload:
    """Return a few 3×3 convolutions in a row, which keep the number of channels."""
    from onnx import helper

    dtype = _number_type(provider, precision)
    random = np.random.default_rng(0)
    shape = (1, channels, edge, edge)
    # Of unit gain, so that nothing overflows in half precision.
    scale = (9 * channels) ** -0.5
    kernels = [
        (scale * random.standard_normal((channels, channels, 3, 3))).astype(dtype)
        for _ in range(CHAINED)
    ]
    between = ["image", *(f"step{number}" for number in range(1, CHAINED)), "result"]
    nodes = [
        helper.make_node(
            "Conv", [between[i], f"kernel{i}"], [between[i + 1]], pads=[1, 1, 1, 1], name=f"{i}"
        )
        for i in range(CHAINED)
    ]
    image = random.standard_normal(shape).astype(dtype)
    return Workload(
        f"3×3 convolutions of {channels} channels at {edge}²",
        CHAINED * 2 * 9 * channels**2 * edge**2 / 1e9,
        _model(nodes, {"image": shape}, shape, dtype, kernels),
        [("image", image)],
        shape,
        provider,
        threads,
    )


def _number_type(provider: Provider, precision: Precision) -> type[np.floating[Any]]:
    return np.float16 if provider != "cpu" and precision == "fp16" else np.float32


def _model(
    nodes: Sequence[Any],
    inputs: dict[str, tuple[int, ...]],
    result: tuple[int, ...],
    dtype: type[np.floating[Any]],
    kernels: Sequence[NDArray[Any]] = (),
) -> Any:
    from onnx import helper, numpy_helper

    element = helper.np_dtype_to_tensor_dtype(np.dtype(dtype))
    graph = helper.make_graph(
        list(nodes),
        "workload",
        [helper.make_tensor_value_info(name, element, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info("result", element, result)],
        [numpy_helper.from_array(kernel, f"kernel{i}") for i, kernel in enumerate(kernels)],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def _workloads(provider: Provider, threads: int, precision: Precision) -> Iterator[Workload]:
    factor = 1 if provider == "cpu" else GPU_FACTOR
    for edge in PRODUCT_EDGES:
        yield matrix_product(provider, threads, precision, factor * edge)
    for channels, edge in CONVOLUTIONS:
        yield convolution(provider, threads, precision, channels, factor * edge)


@dataclass(slots=True)
class _Timed:
    workload: Workload
    seconds: list[float] = field(default_factory=list)

    def again(self) -> None:
        self.seconds.append(self.workload.timed())

    @property
    def best_gflops(self) -> float:
        return self.workload.gflop / min(self.seconds)

    @property
    def median_gflops(self) -> float:
        return self.workload.gflop / float(np.median(self.seconds))


class MachineLimit:
    """The rates that this machine reaches, measured while it does something else in between.

    All workloads are surveyed when it is made; `run` repeats the fastest ones and the large matrix
    product.
    """

    def __init__(self, provider: Provider, threads: int, precision: Precision) -> None:
        surveyed = []
        for workload in _workloads(provider, threads, precision):
            found = _Timed(workload)
            for _ in range(SURVEY_RUNS):
                found.again()
            surveyed.append(found)
        self._product = surveyed[len(PRODUCT_EDGES) - 1]
        # The others are let go: each holds a session and its operands.
        self._fastest = sorted(surveyed, key=lambda found: -found.best_gflops)[:FASTEST]

    def run(self) -> None:
        """Time the fastest workloads once more, and the large product."""
        for found in {id(found): found for found in (*self._fastest, self._product)}.values():
            found.again()

    @property
    def gflops(self) -> float:
        """The best rate that any workload reached in any run, 10⁹ operations per second."""
        return max(found.best_gflops for found in self._fastest)

    @property
    def reached_by(self) -> str:
        """Which workload that was."""
        return max(self._fastest, key=lambda found: found.best_gflops).workload.name

    @property
    def gemm_gflops(self) -> float:
        """The median rate of the large matrix product."""
        return self._product.median_gflops
