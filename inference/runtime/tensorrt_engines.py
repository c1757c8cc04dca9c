"""TensorRT engines: compiled ahead for one frame shape, kept, never compiled while frames come.

Owns where an engine is kept, when a kept one can be used (the same model, shape, precision, GPU,
driver and libraries), and what runs instead where there is none and no time to compile one.
Compiling is ONNX Runtime's business.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import logging
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from ...storage.atomic_output import write_json
from ..graph.precision import Precision
from .providers import Provider, cuda_device_name, cuda_driver

logger = logging.getLogger(__name__)

_BUILT = "built.json"
"""Written after an engine was compiled and has run: a compilation that was cut short has none."""


@dataclass(frozen=True, slots=True)
class Engine:
    """The engine of one model for one frame shape and precision; there or not.

    Attributes
    ----------
    model_sha256
        Of the graph.
    frame_shape
        (Y, X) in pixels.
    precision
        fp32 or fp16.
    machine
        GPU, driver and libraries: an engine made with others cannot be used; see `machine`.
    """

    model_sha256: str
    frame_shape: tuple[int, int]
    precision: Precision
    machine: Mapping[str, str]

    @property
    def folder(self) -> Path:
        """Where it is kept; another for everything that an engine depends on."""
        from platformdirs import user_cache_path

        rows, columns = self.frame_shape
        made_on = hashlib.sha256(json.dumps(dict(self.machine), sort_keys=True).encode("utf-8"))
        name = (
            f"{self.model_sha256[:16]}-{rows}x{columns}-{self.precision}-"
            f"{made_on.hexdigest()[:12]}"
        )
        return user_cache_path("quietscope", appauthor=False) / "tensorrt" / name

    @property
    def is_built(self) -> bool:
        """Whether a session can be opened without compiling."""
        return (self.folder / _BUILT).is_file()

    def mark_built(self, seconds: float) -> None:
        """Say that a session was opened with it and has run."""
        write_json(
            self.folder / _BUILT,
            {"model_sha256": self.model_sha256, **self.machine, "seconds": round(seconds, 1)},
        )

    def options(self) -> dict[str, str]:
        """Return the options with which ONNX Runtime finds it, or compiles it into its folder."""
        self.folder.mkdir(parents=True, exist_ok=True)
        return {
            "trt_engine_cache_enable": "1",
            "trt_engine_cache_path": str(self.folder),
            "trt_timing_cache_enable": "1",
            "trt_timing_cache_path": str(self.folder.parent),
            "trt_fp16_enable": "1" if self.precision == "fp16" else "0",
            "trt_cuda_graph_enable": "1",
        }

    def __str__(self) -> str:
        rows, columns = self.frame_shape
        return f"TensorRT engine for frames of {columns}×{rows} pixels in {self.precision}"


def runs_instead(provider: Provider, engines: list[Engine], *, may_compile: bool) -> Provider:
    """Return what runs a session now: `provider`, or CUDA where an engine would be compiled first.

    Parameters
    ----------
    provider
        What was asked for; not `auto`.
    engines
        Those that the session needs.
    may_compile
        Whether there is time for it: True before an acquisition and offline, False within one.
    """
    missing = [engine for engine in engines if not engine.is_built]
    if provider != "tensorrt" or not missing:
        return provider
    if may_compile:
        logger.warning("compiling a %s: takes minutes, once", missing[0])
        return provider
    logger.warning(
        "there is no %s yet, and no compiling while frames come: CUDA runs them", missing[0]
    )
    return "cuda"


@cache
def machine() -> Mapping[str, str]:
    """Return what an engine depends on besides its model: GPU, driver and libraries."""
    import onnxruntime as ort

    return {
        "gpu": cuda_device_name() or "none",
        "driver": _version(cuda_driver(), "cuDriverGetVersion"),
        "tensorrt": _version(_tensorrt(), "getInferLibVersion"),
        "onnxruntime": str(ort.__version__),
    }


def _tensorrt() -> str:
    return "nvinfer_10.dll" if sys.platform == "win32" else "libnvinfer.so.10"


def _version(library: str, function: str) -> str:
    """Ask a library for its version; `none` where there is no such library."""
    try:
        asked = getattr(ctypes.CDLL(library), function)
    except (OSError, AttributeError):
        return "none"
    if function.startswith("cu"):
        version = ctypes.c_int()
        return str(version.value) if asked(ctypes.byref(version)) == 0 else "none"
    return str(asked())
