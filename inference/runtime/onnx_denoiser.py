"""A model bundle as a denoiser: one session, one frame shape, no allocation per frame.

Owns the buffers that the session reads and writes, the warm-up, and the refusal of frames that
the model was not built for. Which processor runs it is settled in `providers`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from traceback import clear_frames
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...calibration.pixel_maps import Region, part_of
from ..bundle import Bundle, open_bundle
from ..errors import BundleError, FrameMismatchError, InferenceError
from ..graph.fixed_shape import graph_for_frames
from ..graph.inspection import (
    INPUT,
    PIXEL_MAPS,
    GraphContract,
    load_model,
    read_contract,
    read_pixel_maps,
)
from ..graph.precision import half_precision, require_precision
from .buffers import Buffers, CudaBuffers, HostBuffers
from .cuda_runtime import CudaRuntime
from .golden_output import Golden
from .pipeline import BlockingLane, FramePipeline, Lane, Streams, copying_lanes
from .providers import (
    Precision,
    Provider,
    RunningSession,
    cuda_options,
    open_session,
    option_name,
    require_libraries,
    working_provider,
)
from .tensorrt_engines import Engine, machine, runs_instead

logger = logging.getLogger(__name__)

WARM_UP_RUNS = 3
"""The first plans the memory, the second uses the plan, the third is as fast as the rest."""


class OnnxDenoiser:
    """Denoise frames of one shape with the model of a bundle.

    The session is built, bound, warmed up and checked against the bundle's golden answer here; the
    first frame is as fast as the last. Use it
    from one thread at a time; several instances run side by side.

    Parameters
    ----------
    bundle
        The model, opened or as a path.
    frame_shape
        (Y, X) in pixels. Another region of the sensor needs another denoiser.
    provider
        What must run it. `auto` takes CUDA where it works and the CPU elsewhere.
    precision
        fp32 everywhere; fp16 on GPU: the network alone is reduced.
    threads
        Of the CPU provider; None leaves one core to camera and GUI.
    may_compile
        Whether TensorRT may take minutes to compile an engine for this frame shape. Where it may
        not and there is none, CUDA runs the session; `missing_engines` says so.
    region
        x, y, width, height of the frames in unbinned sensor pixels, where known. It matters to
        models that know every pixel of the camera: without it frames must be of the shape of the
        calibrated region.
    pixel_maps
        (1, 3, Y, X), what the model knows of these pixels; by default cut out by `region`.

    Attributes
    ----------
    provider
        Asked of the session, by ONNX Runtime's name (`CPUExecutionProvider`).
    device
        The processor, for a person.
    remark
        Why a GPU that is there is not used; empty otherwise.
    missing_engines
        Whether TensorRT was asked for and CUDA runs, for want of an engine.
    golden_difference
        How far the golden answer was missed, see `golden`; None if the bundle holds none.
    model_sha256, noise_model_sha256
        What ran, for reports and denoised images.

    Raises
    ------
    BundleError
        If the bundle cannot be used.
    ProviderError
        If the provider asked for is not the one that would run, or computes something else.
    FrameMismatchError
        If the model knows every pixel of the camera, and not those of such frames.
    """

    def __init__(
        self,
        bundle: Bundle | Path | str,
        frame_shape: tuple[int, int],
        *,
        provider: Provider = "auto",
        precision: Precision = "fp32",
        threads: int | None = None,
        may_compile: bool = True,
        region: Region | None = None,
        pixel_maps: NDArray[np.float32] | None = None,
    ) -> None:
        self.bundle = bundle if isinstance(bundle, Bundle) else open_bundle(bundle)
        self.precision = precision
        self._frame_shape = _checked_shape(frame_shape)
        self._contract = _matching_contract(self.bundle)
        self.pixel_type = np.dtype(self._contract.pixel_type)
        self.pixel_maps = (
            maps_of_frames(self.bundle, self._frame_shape, region)
            if pixel_maps is None
            else pixel_maps
        )
        asked, self.remark = _settled(provider)
        opening = _Opening(self.bundle, self._contract, asked, precision, threads).with_engines(
            self._frame_shape, may_compile=may_compile
        )
        self.missing_engines = opening.provider != asked
        self._ready: _Ready | None = opening.ready(self._frame_shape, self.pixel_maps)
        self.provider = self._ready.running.provider
        self.device = self._ready.running.device
        try:
            self.golden_difference = opening.check_golden()
        except Exception:
            self.close()
            raise

    @property
    def frame_shape(self) -> tuple[int, int]:
        """(Y, X) in pixels."""
        return self._frame_shape

    @property
    def context_frames(self) -> int:
        """How many preceding frames the model wants."""
        return self._contract.observations - 1

    @property
    def model_sha256(self) -> str:
        """SHA-256 of the graph that runs."""
        return self.bundle.model_sha256

    @property
    def noise_model_sha256(self) -> str:
        """SHA-256 of the noise model inside it."""
        return self.bundle.manifest.sha256[self.bundle.noise_model_path.name]

    def denoise(self, observations: NDArray[Any], out: NDArray[np.float32]) -> None:
        """Estimate the signal of the newest frame; see `Denoiser.denoise`.

        Raises
        ------
        FrameMismatchError
            If shape or pixel type is not what the model was built for.
        InferenceError
            If the denoiser was closed or the run failed.
        """
        self._require_fit(observations, out)
        self._denoise(observations, out)

    def denoise_part(
        self, observations: NDArray[Any], maps: NDArray[np.float32], out: NDArray[np.float32]
    ) -> None:
        """Do the same for frames of another part of the sensor, with its pixel maps."""
        self._require_fit(observations, out)
        ready = self._open_session()
        ready.buffers.bind_maps(maps, ready.binding)
        self._denoise(observations, out)

    def _denoise(self, observations: NDArray[Any], out: NDArray[np.float32]) -> None:
        ready = self._open_session()
        np.copyto(ready.buffers.observations[0], observations)
        written = ready.buffers.write_to(out, ready.binding)
        self._run(ready)
        if not written:
            for plane, output in zip(out, ready.buffers.outputs, strict=True):
                np.copyto(plane, output[0, 0])

    def pipeline(self) -> FramePipeline:
        """Return a way for many frames, on which copies overlap computation where there are any.

        Close it before the denoiser; `denoise` must not be called while frames are on their way.
        """
        lanes = self._open_session().lanes()
        return FramePipeline(lanes or [BlockingLane(self)])

    def compile_missing_engines(self) -> None:
        """Compile what TensorRT lacked, for the next run; takes minutes, once."""
        if self.missing_engines:
            OnnxDenoiser(
                self.bundle,
                self._frame_shape,
                provider="tensorrt",
                precision=self.precision,
                pixel_maps=self.pixel_maps,
            ).close()

    def bare_run(self, observations: NDArray[Any]) -> Callable[[], object]:
        """Return the session's own `run` on these observations, for comparison in benchmarks."""
        session = self._open_session().running.session
        feeds = {INPUT: observations[np.newaxis]}
        if self.pixel_maps is not None:
            feeds[PIXEL_MAPS] = self.pixel_maps
        return lambda: session.run(None, feeds)

    def close(self) -> None:
        """Release the session. May be called more than once."""
        if self._ready is not None:
            self._ready.close()
            self._ready = None

    def __enter__(self) -> OnnxDenoiser:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run(self, ready: _Ready) -> None:
        try:
            ready.buffers.upload()
            ready.running.session.run_with_iobinding(ready.binding)
            ready.buffers.download()
        except Exception as error:  # ONNX Runtime raises its own types, one per status code
            reason = str(error).strip().splitlines()[0]
            raise InferenceError(
                f"{self.bundle.path}: running the model on {self.device} failed ({reason}); "
                "free memory, choose a smaller region, or pass --provider cpu"
            ) from error

    def _open_session(self) -> _Ready:
        if self._ready is None:
            raise InferenceError(f"{self.bundle.path}: the denoiser was closed; open it again")
        return self._ready

    def _require_fit(self, observations: NDArray[Any], out: NDArray[np.float32]) -> None:
        expected = (self._contract.observations, *self._frame_shape)
        if observations.shape != expected:
            raise FrameMismatchError(
                f"observations have shape {observations.shape}, the model takes {expected} "
                "(1 + context frames, Y, X); build a denoiser for this shape"
            )
        if observations.dtype != self.pixel_type:
            raise FrameMismatchError(
                f"observations are {observations.dtype}, the model was trained on "
                f"{self.pixel_type}; train one for this pixel type or set the camera back"
            )
        if out.shape != (2, *expected[1:]) or out.dtype != np.float32:
            raise FrameMismatchError(
                f"out is {out.dtype} {out.shape}, expected float32 {(2, *expected[1:])}"
            )


@dataclass(eq=False)
class _Ready:
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
class _Opening:
    """How a session for a bundle is opened, whatever the frame shape."""

    bundle: Bundle
    contract: GraphContract
    provider: Provider
    precision: Precision
    threads: int | None

    def ready(self, frame_shape: tuple[int, int], maps: NDArray[np.float32] | None) -> _Ready:
        """Open a session, bind its memory, warm it up. Faster options first, if they work."""
        model = self._model(frame_shape)
        *attempts, last = self._options(frame_shape)
        for options in attempts:
            try:
                return self._attempt(model, frame_shape, maps, options)
            except Exception as error:  # capturing a CUDA graph fails in ways of its own
                logger.info("%s does not run with %s: %s", self.provider, options, error)
        began = time.monotonic()
        found = self._attempt(model, frame_shape, maps, last)
        self._note_engine(frame_shape, began)
        return found

    def check_golden(self) -> float | None:
        """Compare with the bundle's stored answer; None if it holds none."""
        if not self.bundle.has_golden:
            return None
        golden = Golden(self.bundle)
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
    ) -> _Ready:
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
    ) -> _Ready:
        if streams is not None:
            options = {**options, "user_compute_stream": str(streams.compute)}
        running = self._open(model, frame_shape, options)
        buffers, binding = self._buffers(frame_shape, streams), running.session.io_binding()
        try:
            buffers.bind(binding)
        except Exception:
            buffers.close()
            raise
        return _Ready(running, buffers, binding, streams)

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

    def with_engines(self, frame_shape: tuple[int, int], *, may_compile: bool) -> _Opening:
        """Return how a session is opened now, with the TensorRT engines that there are."""
        if self.provider != "tensorrt":
            return self
        engines = [self._engine(frame_shape)]
        if self.bundle.has_golden:
            engines.append(self._engine(Golden(self.bundle).frame_shape))
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


def _settled(provider: Provider) -> tuple[Provider, str]:
    """Return the provider that `auto` means here, and a remark if a GPU lies idle."""
    if provider != "auto":
        return provider, ""
    found, remark = working_provider()
    return option_name(found), remark


def maps_of_frames(
    bundle: Bundle, frame_shape: tuple[int, int], region: Region | None
) -> NDArray[np.float32] | None:
    """Return the pixel maps (1, 3, Y, X) of frames; None for models without.

    Raises
    ------
    FrameMismatchError
        If the model holds no maps for such frames, or where they lie on the sensor is not known.
    """
    maps = read_pixel_maps(bundle.model_path)
    if maps is None:
        return None
    held, calibrated = (maps.shape[2], maps.shape[3]), bundle.manifest.camera.roi
    part = part_of(calibrated, held, region, frame_shape)
    if part is None:
        raise FrameMismatchError(
            f"frames are {_described(frame_shape, region)}, the model {bundle.path} knows every "
            f"pixel of {_described(held, calibrated)}; set the camera's region to "
            "that or within it, or train with --no-pixel-maps"
        )
    return np.ascontiguousarray(maps[:, :, part[0], part[1]])


def _described(shape: tuple[int, int], region: Region | None) -> str:
    size = f"{shape[1]}×{shape[0]} pixels"
    return size if region is None else f"{size} at x = {region[0]}, y = {region[1]}"


def _checked_shape(frame_shape: tuple[int, int]) -> tuple[int, int]:
    rows, columns = (int(size) for size in frame_shape)
    if rows < 1 or columns < 1:
        raise FrameMismatchError(f"frame shape is {frame_shape}, expected at least one pixel")
    return rows, columns


def _matching_contract(bundle: Bundle) -> GraphContract:
    contract = read_contract(bundle.model_path)
    manifest = bundle.manifest
    frames = 1 + manifest.context_frames + len(manifest.other_channels)
    declared = (manifest.pixel_type, frames)
    if (contract.pixel_type, contract.observations) != declared:
        raise BundleError(
            f"{bundle.path}: its graph takes {contract.observations} frames of "
            f"{contract.pixel_type}, its manifest says {declared[1]} of {declared[0]}; "
            "train the model anew"
        )
    return contract
