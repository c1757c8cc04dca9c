"""Which denoiser works on which frame: one per channel and frame shape.

Owns the models of a run: they are opened, checked against the camera, and turned into sessions
here. Which frame is denoised when is decided in `denoise_stage`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ..calibration.fingerprint import CameraFingerprint
from ..inference.bundle import Bundle, open_bundle
from ..inference.denoiser import Denoiser
from ..inference.errors import BundleError, FrameMismatchError
from ..inference.onnx_denoiser import OnnxDenoiser
from ..inference.providers import Provider


class DenoiserFactory(Protocol):
    """Builds a denoiser for a frame shape: a class, say, whose argument is the shape."""

    context_frames: int

    def __call__(self, frame_shape: tuple[int, int], /) -> Denoiser:
        """Return a denoiser for frames (Y, X)."""
        ...


Model = Bundle | Path | str | Denoiser | DenoiserFactory
Models = Model | Mapping[str | int, Model] | None

EVERY_CHANNEL = "*"


class ChannelDenoisers:
    """The denoisers of one run.

    Parameters
    ----------
    models
        None, one model for every channel, or a model for each channel by the channel's name.
        A model is a bundle, a path to one, any object that is a `Denoiser`, or a class (or
        function with `context_frames`) that builds one for a frame shape.
    provider
        What must run the bundles.

    Raises
    ------
    BundleError
        If a bundle is missing, incomplete or altered.
    """

    def __init__(self, models: Models, *, provider: Provider = "auto") -> None:
        self._provider = provider
        self._models = {
            channel: _opened(model)
            for channel, model in (
                models.items()
                if isinstance(models, Mapping)
                else []
                if models is None
                else [(EVERY_CHANNEL, models)]
            )
        }
        self._sessions: dict[tuple[str, tuple[int, int]], OnnxDenoiser] = {}
        self._built: dict[tuple[int, tuple[int, int]], Denoiser] = {}

    def __bool__(self) -> bool:
        return bool(self._models)

    @property
    def bundles(self) -> dict[str | int, Bundle]:
        """The bundles by channel; own denoisers have none."""
        return {c: model for c, model in self._models.items() if isinstance(model, Bundle)}

    def model(self, channel: int | str | None) -> Bundle | Denoiser | DenoiserFactory | None:
        """Return what denoises a channel, None if nothing does."""
        key = 0 if channel is None else channel
        return self._models.get(key, self._models.get(EVERY_CHANNEL))

    def bundle_of(self, channel: int | str | None) -> Bundle | None:
        """Return the bundle of a channel, None if it has none."""
        model = self.model(channel)
        return model if isinstance(model, Bundle) else None

    def context_frames(self, channel: int | str | None) -> int:
        """Return how many preceding frames the model of a channel wants."""
        model = self.model(channel)
        if isinstance(model, Bundle):
            return model.manifest.context_frames
        return 0 if model is None else model.context_frames

    def denoiser(self, channel: int | str | None, frame_shape: tuple[int, int]) -> Denoiser:
        """Return the denoiser of a channel for frames of this shape; built when first asked for.

        Raises
        ------
        BundleError
            If the bundle was replaced since the run began.
        FrameMismatchError
            If a denoiser that was handed in takes frames of another shape.
        """
        model = self.model(channel)
        if model is None:
            raise FrameMismatchError(f"channel {channel} has no model; give it one")
        if isinstance(model, Bundle):
            return self._session(model, frame_shape)
        if isinstance(model, type) or not isinstance(model, Denoiser):
            key = (id(model), frame_shape)
            if key not in self._built:
                self._built[key] = model(frame_shape)
            return self._built[key]
        if tuple(model.frame_shape) != frame_shape:
            raise FrameMismatchError(
                f"frames are {frame_shape}, the denoiser takes {tuple(model.frame_shape)}; give a "
                "model bundle, which adapts itself, or set the camera's region back"
            )
        return model

    def require_match(self, running: CameraFingerprint, *, force: bool) -> list[str]:
        """Refuse models of another camera; with `force`, return how they differ.

        Raises
        ------
        CameraMismatchError
            Naming every property that differs.
        """
        remarks = []
        for bundle in {bundle.path: bundle for bundle in self.bundles.values()}.values():
            if not force:
                bundle.manifest.camera.require_match(running, what=f"the model {bundle.path}")
            remarks += bundle.manifest.camera.differences(running)
        return remarks

    def result(self) -> dict[str, Any]:
        """Return what ran, as reports take it."""
        hashes = {str(channel): bundle.model_sha256 for channel, bundle in self.bundles.items()}
        running = list(self._sessions.values())
        return {
            "provider": running[0].provider if running else None,
            "device": running[0].device if running else None,
            "model_sha256": next(iter(hashes.values()))
            if len(set(hashes.values())) == 1
            else None,
            "models": hashes,
        }

    def close(self) -> None:
        """Release what was built here, not the denoisers that were handed in."""
        for session in (*self._sessions.values(), *self._built.values()):
            session.close()

    def _session(self, bundle: Bundle, frame_shape: tuple[int, int]) -> OnnxDenoiser:
        key = (bundle.model_sha256, frame_shape)
        if key not in self._sessions:
            present = open_bundle(bundle.path)
            if present.model_sha256 != bundle.model_sha256:
                raise BundleError(
                    f"{bundle.path}: was replaced by another model since this run began; run "
                    "`quietscope denoise` afterwards with the one that you want"
                )
            self._sessions[key] = OnnxDenoiser(present, frame_shape, provider=self._provider)
        return self._sessions[key]


def _opened(model: Model) -> Bundle | Denoiser | DenoiserFactory:
    return open_bundle(model) if isinstance(model, str | Path) else model


def require_finite(estimate: np.ndarray[Any, np.dtype[np.float32]], what: str) -> None:
    """Raise FrameMismatchError if a denoiser gave NaN or infinity."""
    # The sum is not finite if any element is not, and it needs no array of its own.
    if not np.isfinite(estimate.sum(dtype=np.float64)):
        raise FrameMismatchError(
            f"{what}: the denoiser gave NaN or infinite pixels; the raw frame is kept. Train the "
            "model anew, or check that it fits this camera"
        )
