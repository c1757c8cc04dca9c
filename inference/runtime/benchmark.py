"""How fast a model runs on this machine, and how far that is from what the machine can do.

Owns the measurement: latency from host array to host array, the bare session on the same graph,
and what the machine reaches at best, all in turn within one run, so that whatever else the machine
does meets them alike. What is timed finds the caches as the frame before left them. Counting
operations is `operations`' business, the machine's workloads are in `machine_limit`.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from numpy.typing import NDArray

from ..bundle import Bundle
from ..graph.operations import count_gflop
from ..graph.precision import Precision
from .machine_limit import MachineLimit
from .onnx_denoiser import OnnxDenoiser
from .providers import Provider, all_cores, option_name

LIMIT_INTERVAL = 10
"""Frames between two looks at the machine: they meet the same load, and seldom the caches."""
_SIGNAL_LEVEL = 300.0
"""ADU of the Poisson frames that are run: speed does not depend on them, denormals might."""


@dataclass(frozen=True, slots=True)
class Benchmark:
    """What `quietscope bench` measured; see `result` for the keys."""

    provider: str
    device: str
    shape: tuple[int, int]
    precision: str
    latencies_s: tuple[float, ...]
    session_run_s: tuple[float, ...]
    gemm_gflops: float
    workload_gflops: float
    workload: str
    gflop_per_frame: float
    peak_rss_mb: float

    @property
    def limit_gflops(self) -> float:
        """The best rate that any convolution or product of the runtime reached in this run.

        The model's own convolutions are among them, in its fastest run.
        """
        own = self.gflop_per_frame / min(*self.latencies_s, *self.session_run_s)
        return max(self.workload_gflops, own)

    def result(self) -> dict[str, Any]:
        """Return the JSON object of `quietscope bench`."""
        median = float(np.median(self.latencies_s))
        latency = np.percentile(self.latencies_s, (50, 95, 99, 100)) * 1e3
        achieved = self.gflop_per_frame / median
        return {
            "provider": self.provider,
            "device": self.device,
            "shape": list(self.shape),
            "precision": self.precision,
            "frames": len(self.latencies_s),
            "latency_ms": dict(zip(("p50", "p95", "p99", "max"), latency.tolist(), strict=True)),
            "throughput_fps": len(self.latencies_s) / sum(self.latencies_s),
            "session_run_ms_p50": float(np.median(self.session_run_s)) * 1e3,
            "gflop_per_frame": self.gflop_per_frame,
            "achieved_gflops": achieved,
            "gemm_gflops": self.gemm_gflops,
            "limit_gflops": self.limit_gflops,
            "limit_reached_by": self.workload
            if self.limit_gflops == self.workload_gflops
            else "the model itself",
            "share_of_limit": achieved / self.limit_gflops,
            "ns_per_pixel": median * 1e9 / (self.shape[0] * self.shape[1]),
            "peak_rss_mb": self.peak_rss_mb,
        }


def bench(
    bundle: Bundle | Path | str,
    shape: tuple[int, int] = (512, 512),
    *,
    frames: int = 50,
    provider: Provider = "auto",
    precision: Precision = "fp32",
    threads: int | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> Benchmark:
    """Measure a model on this machine.

    Parameters
    ----------
    bundle
        The model.
    shape
        (Y, X) of the frames.
    frames
        How many to time, after the warm-up.
    provider, precision, threads
        See `OnnxDenoiser`; all cores by default.
    on_progress
        Called with (frames done, frames in total).
    """
    threads = threads or all_cores()
    with OnnxDenoiser(
        bundle, shape, provider=provider, precision=precision, threads=threads
    ) as denoiser:
        observations = _observations(denoiser)
        out = np.empty((2, *shape), np.float32)
        bare = denoiser.bare_run(observations)
        limit = MachineLimit(option_name(denoiser.provider), threads, precision)
        latencies, bare_runs = [], []
        for done in range(1, frames + 1):
            if done % LIMIT_INTERVAL == 1:
                limit.run()
                denoiser.denoise(observations, out)
            latencies.append(_timed(lambda: denoiser.denoise(observations, out)))
            bare_runs.append(_timed(bare))
            if on_progress is not None:
                on_progress(done, frames)
        return Benchmark(
            provider=denoiser.provider,
            device=denoiser.device,
            shape=shape,
            precision=precision,
            latencies_s=tuple(latencies),
            session_run_s=tuple(bare_runs),
            gemm_gflops=limit.gemm_gflops,
            workload_gflops=limit.gflops,
            workload=limit.reached_by,
            gflop_per_frame=count_gflop(denoiser.bundle.model_path, shape),
            peak_rss_mb=peak_rss_mb(),
        )


def _timed(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def _observations(denoiser: OnnxDenoiser) -> NDArray[Any]:
    random = np.random.default_rng(0)
    shape = (1 + denoiser.context_frames, *denoiser.frame_shape)
    level = min(_SIGNAL_LEVEL, 100.0) if denoiser.pixel_type == np.uint8 else _SIGNAL_LEVEL
    return random.poisson(level, shape).astype(denoiser.pixel_type)


def peak_rss_mb() -> float:
    """Return the largest resident memory that this process ever had, MB."""
    if sys.platform == "win32":
        return float(psutil.Process().memory_info().peak_wset) / 1e6
    status = Path("/proc/self/status")
    if status.is_file():
        # Not getrusage: on Linux its peak includes that of the program which started this one.
        line = next(x for x in status.read_text("ascii").splitlines() if x.startswith("VmHWM"))
        return int(line.split()[1]) * 1024 / 1e6
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
