"""A model bundle as a denoiser: one session, one frame shape, no allocation per frame.

Owns the refusal of frames that the model was not built for, and the way of a frame through the
session's buffers. Opening the session is done in `session_opening`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...calibration.pixel_maps import Region
from ..bundle import Bundle, open_bundle
from ..errors import BundleError, FrameMismatchError, InferenceError
from ..graph.inspection import INPUT, PIXEL_MAPS, GraphContract, read_contract
from ..graph.precision import Precision
from .camera_pixels import maps_of_frames
from .pipeline import BlockingLane, FramePipeline
from .providers import Provider, option_name, working_provider
from .session_opening import ReadySession, SessionOpening


class OnnxDenoiser:
    """Denoise frames of one shape with the model of a bundle.

    The session is built, bound, warmed up and checked against the bundle's golden output when the
    denoiser is; the first frame is as fast as the last. Use it from one thread at a time; several
    instances run side by side.

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
    golden_output_difference
        How far the golden output was missed, see `golden_output`; None if the bundle holds none.
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
        opening = SessionOpening(
            self.bundle, self._contract, asked, precision, threads
        ).with_engines(self._frame_shape, may_compile=may_compile)
        self.missing_engines = opening.provider != asked
        self._ready: ReadySession | None = opening.ready(self._frame_shape, self.pixel_maps)
        self.provider = self._ready.running.provider
        self.device = self._ready.running.device
        try:
            self.golden_output_difference = opening.check_golden_output()
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
    def noise_model_sha256(self) -> str | None:
        """SHA-256 of the noise model inside it; None where it is not known."""
        return self.bundle.noise_model_sha256

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

    def _run(self, ready: ReadySession) -> None:
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

    def _open_session(self) -> ReadySession:
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


def _settled(provider: Provider) -> tuple[Provider, str]:
    """Return the provider that `auto` means here, and a remark if a GPU lies idle."""
    if provider != "auto":
        return provider, ""
    found, remark = working_provider()
    return option_name(found), remark


def _checked_shape(frame_shape: tuple[int, int]) -> tuple[int, int]:
    rows, columns = (int(size) for size in frame_shape)
    if rows < 1 or columns < 1:
        raise FrameMismatchError(f"frame shape is {frame_shape}, expected at least one pixel")
    return rows, columns


def _matching_contract(bundle: Bundle) -> GraphContract:
    contract = read_contract(bundle.model_path)
    declared = (bundle.manifest.pixel_type, 1 + bundle.further_frames)
    if (contract.pixel_type, contract.observations) != declared:
        raise BundleError(
            f"{bundle.path}: its graph takes {contract.observations} frames of "
            f"{contract.pixel_type}, its manifest says {declared[1]} of {declared[0]}; "
            "train the model anew"
        )
    return contract
