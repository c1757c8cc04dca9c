"""Open a session for a bundle and make it ready: memory bound, warmed up, proven right.

Owns the order in which a session's options are tried, the warm-up, and the release of sessions,
memory and streams in the order in which they depend on each other. Which processor a provider
means is settled in `providers`; frames are run by `onnx_denoiser`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from traceback import clear_frames
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import QuietscopeError
from ..bundle import Bundle
from ..errors import unusable_model
from ..graph.fixed_shape import graph_for_frames
from ..graph.inspection import GraphContract, load_model
from ..graph.precision import Precision, half_precision, require_precision
from .buffers import Buffers, CudaBuffers, HostBuffers
from .cuda_runtime import CudaRuntime
from .golden_output import GoldenOutput
from .pipeline import Lane, Streams, copying_lanes
from .providers import Provider, RunningSession, cuda_options, open_session, require_libraries
from .tensorrt_engines import Engine, machine, runs_instead

logger = logging.getLogger(__name__)

WARM_UP_RUNS = 3
"""The first plans the memory, the second uses the plan, the third is as fast as the rest."""


@dataclass(eq=False)
class ReadySession:
    """An open session, the memory it is bound to, and the streams it works in (GPU only)."""

    running: RunningSession
    buffers: Buffers
    binding: Any
    streams: Streams | None = None

    def lanes(self) -> list[Lane]:
        """Return what lets copies overlap computation; nothing where there are no copies."""
        if self.streams is None or not isinstance(self.buffers, CudaBuffers):
            return []
        import onnxruntime as ort

        at_once = ort.RunOptions()
        at_once.add_run_config_entry("disable_synchronize_execution_providers", "1")
        return copying_lanes(
            self.streams,
            lambda: self.running.session.run_with_iobinding(self.binding, at_once),
            observations=self.buffers.observations[0],
            bound=self.buffers.device,
        )

    def close(self) -> None:
        """Release the session, then its memory, then the streams it worked in."""
        # The binding holds the session's memory: first to go.
        del self.binding, self.running
        self.buffers.close()
        if self.streams is not None:
            self.streams.close()


@dataclass(frozen=True, slots=True)
class SessionOpening:
    """How a session for a bundle is opened, whatever the frame shape."""

    bundle: Bundle
    contract: GraphContract
    provider: Provider
    precision: Precision
    threads: int | None

    def ready(
        self, frame_shape: tuple[int, int], maps: NDArray[np.float32] | None
    ) -> ReadySession:
        """Open a session, bind its memory, warm it up. Faster options first, if they work."""
        model = self._model(frame_shape)
        *attempts, last = self._options(frame_shape)
        for options in attempts:
            try:
                return self._attempt(model, frame_shape, maps, options)
            except Exception as error:  # capturing a CUDA graph fails in ways of its own
                logger.info("%s does not run with %s: %s", self.provider, options, error)
        began = time.monotonic()
        try:
            found = self._attempt(model, frame_shape, maps, last)
        except QuietscopeError:
            raise
        except Exception as error:  # ONNX Runtime raises its own types, one per status code
            raise unusable_model(self.bundle.model_path, error) from error
        self._note_engine(frame_shape, began)
        return found

    def check_golden_output(self) -> float | None:
        """Compare with the bundle's stored answer; None if it holds none."""
        if not self.bundle.has_golden_output:
            return None
        golden = GoldenOutput(self.bundle)
        shape = golden.frame_shape
        began = time.monotonic()
        running = self._open(self._model(shape), shape, self._options(shape)[-1])
        difference = golden.require(running, self.bundle, self.precision)
        self._note_engine(shape, began)
        return difference

    def _attempt(
        self,
        model: Path | bytes,
        frame_shape: tuple[int, int],
        maps: NDArray[np.float32] | None,
        options: Mapping[str, str],
    ) -> ReadySession:
        streams, ready = self._streams(), None
        try:
            ready = self._bound(model, frame_shape, options, streams)
            if maps is not None:
                ready.buffers.bind_maps(maps, ready.binding)
            for _ in range(WARM_UP_RUNS):
                ready.running.session.run_with_iobinding(ready.binding)
        except Exception as error:
            # What the error came through holds the session, which has to go before its streams.
            clear_frames(error.__traceback__)
            if ready is not None:
                ready.close()
            elif streams is not None:
                streams.close()
            raise
        return ready

    def _streams(self) -> Streams | None:
        if self.provider not in ("cuda", "tensorrt"):
            return None
        require_libraries(self.provider)
        return Streams(CudaRuntime())

    def _bound(
        self,
        model: Path | bytes,
        frame_shape: tuple[int, int],
        options: Mapping[str, str],
        streams: Streams | None,
    ) -> ReadySession:
        if streams is not None:
            options = {**options, "user_compute_stream": str(streams.compute)}
        running = self._open(model, frame_shape, options)
        buffers, binding = self._buffers(frame_shape, streams), running.session.io_binding()
        try:
            buffers.bind(binding)
        except Exception:
            buffers.close()
            raise
        return ReadySession(running, buffers, binding, streams)

    def _buffers(self, frame_shape: tuple[int, int], streams: Streams | None) -> Buffers:
        shape = (1, self.contract.observations, *frame_shape)
        pixel_type = np.dtype(self.contract.pixel_type)
        if streams is None:
            return HostBuffers(shape, pixel_type)
        return CudaBuffers(shape, pixel_type, streams.runtime, streams.compute)

    def _open(
        self,
        model: Path | bytes,
        frame_shape: tuple[int, int],
        options: Mapping[str, str],
    ) -> RunningSession:
        return open_session(
            model,
            provider=self.provider,
            free_dimensions=self.contract.overrides(1, frame_shape),
            threads=self.threads,
            options=options,
        )

    def _model(self, frame_shape: tuple[int, int]) -> Path | bytes:
        require_precision(self.precision, self.provider)
        if self.provider == "cpu":
            return graph_for_frames(self.bundle.model_path, frame_shape)
        if self.precision == "fp32":
            return self.bundle.model_path
        return half_precision(load_model(self.bundle.model_path))

    def with_engines(self, frame_shape: tuple[int, int], *, may_compile: bool) -> SessionOpening:
        """Return how a session is opened now, with the TensorRT engines that there are."""
        if self.provider != "tensorrt":
            return self
        engines = [self._engine(frame_shape)]
        if self.bundle.has_golden_output:
            engines.append(self._engine(GoldenOutput(self.bundle).frame_shape))
        return replace(
            self, provider=runs_instead(self.provider, engines, may_compile=may_compile)
        )

    def _options(self, frame_shape: tuple[int, int]) -> list[dict[str, str]]:
        """Return the provider's options to try, the fastest first."""
        if self.provider == "tensorrt":
            return [self._engine(frame_shape).options()]
        return cuda_options() if self.provider == "cuda" else [{}]

    def _engine(self, frame_shape: tuple[int, int]) -> Engine:
        return Engine(self.bundle.model_sha256, frame_shape, self.precision, machine())

    def _note_engine(self, frame_shape: tuple[int, int], began: float) -> None:
        """Remember that TensorRT has an engine for this shape: a session with it has run."""
        if self.provider == "tensorrt" and not self._engine(frame_shape).is_built:
            self._engine(frame_shape).mark_built(time.monotonic() - began)
