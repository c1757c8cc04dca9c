"""A model bundle as a denoiser: one session, one frame shape, no allocation per frame.

Owns the buffers that the session reads and writes, the warm-up, and the refusal of frames that
the model was not built for. Which processor runs it is settled in `providers`.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .bundle import Bundle, open_bundle
from .errors import BundleError, FrameMismatchError, InferenceError
from .graph import INPUT, OUTPUTS, GraphContract, read_contract
from .providers import Precision, Provider, RunningSession, open_session

WARM_UP_RUNS = 3
"""The first plans the memory, the second uses the plan, the third is as fast as the rest."""


class OnnxDenoiser:
    """Denoise frames of one shape with the model of a bundle.

    The session is built, bound and warmed up here; the first frame is as fast as the last. Use it
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
        fp32 everywhere.
    threads
        Of the CPU provider; None leaves one core to camera and GUI.

    Attributes
    ----------
    provider
        Asked of the session, by ONNX Runtime's name (`CPUExecutionProvider`).
    device
        The processor, for a person.
    remark
        Why a GPU that is there is not used; empty otherwise.
    model_sha256, noise_model_sha256
        What ran, for reports and denoised images.

    Raises
    ------
    BundleError
        If the bundle cannot be used.
    ProviderError
        If the provider asked for is not the one that would run.
    """

    def __init__(
        self,
        bundle: Bundle | Path | str,
        frame_shape: tuple[int, int],
        *,
        provider: Provider = "auto",
        precision: Precision = "fp32",
        threads: int | None = None,
    ) -> None:
        self.bundle = bundle if isinstance(bundle, Bundle) else open_bundle(bundle)
        self.precision = precision
        self._frame_shape = _checked_shape(frame_shape)
        contract = _matching_contract(self.bundle)
        self.pixel_type = np.dtype(contract.pixel_type)
        self._observations = np.zeros((1, contract.observations, *frame_shape), self.pixel_type)
        self._outputs = [np.empty((1, 1, *frame_shape), np.float32) for _ in OUTPUTS]
        self._running: RunningSession | None = open_session(
            self.bundle.model_path,
            provider=provider,
            free_dimensions=contract.overrides(1, frame_shape),
            threads=threads,
        )
        self.provider = self._running.provider
        self.device = self._running.device
        self.remark = self._running.remark
        self._binding = self._bind(self._running.session)
        self._warm_up()

    @property
    def frame_shape(self) -> tuple[int, int]:
        """(Y, X) in pixels."""
        return self._frame_shape

    @property
    def context_frames(self) -> int:
        """How many preceding frames the model wants."""
        return int(self._observations.shape[1]) - 1

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
        np.copyto(self._observations[0], observations)
        self._run()
        for plane, output in zip(out, self._outputs, strict=True):
            np.copyto(plane, output[0, 0])

    def bare_run(self, observations: NDArray[Any]) -> Callable[[], object]:
        """Return the session's own `run` on these observations, for comparison in benchmarks."""
        session = self._session()
        feeds = {INPUT: observations[np.newaxis]}
        return lambda: session.run(None, feeds)

    def close(self) -> None:
        """Release the session. May be called more than once."""
        self._binding = None
        self._running = None

    def __enter__(self) -> OnnxDenoiser:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _bind(self, session: Any) -> Any:
        import onnxruntime as ort

        binding = session.io_binding()
        binding.bind_cpu_input(INPUT, self._observations)
        for name, array in zip(OUTPUTS, self._outputs, strict=True):
            binding.bind_ortvalue_output(name, ort.OrtValue.ortvalue_from_numpy(array))
        return binding

    def _warm_up(self) -> None:
        for _ in range(WARM_UP_RUNS):
            self._run()

    def _run(self) -> None:
        session = self._session()
        try:
            session.run_with_iobinding(self._binding)
        except Exception as error:  # ONNX Runtime raises its own types, one per status code
            reason = str(error).strip().splitlines()[0]
            raise InferenceError(
                f"{self.bundle.path}: running the model on {self.device} failed ({reason}); "
                "free memory, choose a smaller region, or pass --provider cpu"
            ) from error

    def _session(self) -> Any:
        if self._running is None:
            raise InferenceError(f"{self.bundle.path}: the denoiser was closed; open it again")
        return self._running.session

    def _require_fit(self, observations: NDArray[Any], out: NDArray[np.float32]) -> None:
        expected = self._observations.shape[1:]
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


def _checked_shape(frame_shape: tuple[int, int]) -> tuple[int, int]:
    rows, columns = (int(size) for size in frame_shape)
    if rows < 1 or columns < 1:
        raise FrameMismatchError(f"frame shape is {frame_shape}, expected at least one pixel")
    return rows, columns


def _matching_contract(bundle: Bundle) -> GraphContract:
    contract = read_contract(bundle.model_path)
    manifest = bundle.manifest
    declared = (manifest.pixel_type, 1 + manifest.context_frames)
    if (contract.pixel_type, contract.observations) != declared:
        raise BundleError(
            f"{bundle.path}: its graph takes {contract.observations} frames of "
            f"{contract.pixel_type}, its manifest says {declared[1]} of {declared[0]}; "
            "train the model anew"
        )
    return contract
