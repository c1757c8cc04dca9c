"""Which denoiser works on which frame: one per channel and frame shape.

Owns the models of a run: they are opened, checked against the camera, and turned into sessions
here. Which frame is denoised when is decided in `denoise_stage`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ...calibration.fingerprint import CameraFingerprint
from ...calibration.pixel_maps import Region
from ...inference.bundle import Bundle, open_bundle
from ...inference.denoiser import Denoiser
from ...inference.errors import BundleError, FrameMismatchError
from ...inference.model_choice import Models, OpenModel, open_models
from ...inference.provenance import ModelIdentity
from ...inference.runtime.camera_pixels import maps_of_frames
from ...inference.runtime.onnx_denoiser import OnnxDenoiser
from ...inference.runtime.pipeline import BlockingLane, FramePipeline
from ...inference.runtime.providers import Provider
from ...storage.axis_map import channel_of


class ChannelDenoisers:
    """The denoisers of one run.

    Parameters
    ----------
    models
        None, one model for every channel, or a model for each channel by the channel's name (with
        several cameras also by the camera's, or by both as the store names the channel).
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
        self._choice = open_models(models)
        self._sessions: dict[tuple[str, tuple[int, int], Region | None], OnnxDenoiser] = {}
        self._built: dict[tuple[int, tuple[int, int]], Denoiser] = {}
        self._pipelines: dict[int, FramePipeline] = {}
        self._first_times: dict[int, int] = {}

    def __bool__(self) -> bool:
        return bool(self._choice)

    @property
    def bundles(self) -> dict[str, Bundle]:
        """The bundles by channel; own denoisers have none."""
        return self._choice.bundles()

    def model(self, channel: int | str | None) -> OpenModel | None:
        """Return what denoises a channel, None if nothing does."""
        return self._choice.of(channel)

    def named(
        self, axes: Mapping[str, int | str], metadata: Mapping[str, Any]
    ) -> int | str | None:
        """Return the name by which a frame finds its model: its channel, its camera, or both.

        With several cameras `{"Left": …, "Right": …}` gives each camera a model.
        """
        camera = str(metadata.get("Camera", ""))
        own = self._choice.first_named((channel_of({"camera": camera, **axes}), camera))
        return axes.get("channel") if own is None else own

    def bundle_of(self, channel: int | str | None) -> Bundle | None:
        """Return the bundle of a channel, None if it has none."""
        model = self.model(channel)
        return model if isinstance(model, Bundle) else None

    def identities(self, channel_names: Sequence[str]) -> dict[str, ModelIdentity]:
        """Return what identifies each bundle: by these channels, and by the names it was given."""
        return self._choice.identities(channel_names)

    def context_frames(self, channel: int | str | None) -> int:
        """Return how many preceding frames the model of a channel wants."""
        model = self.model(channel)
        if isinstance(model, Bundle):
            return model.manifest.context_frames
        return 0 if model is None else model.context_frames

    def other_channels(self, channel: int | str | None) -> tuple[str, ...]:
        """Return the other channels whose newest frames the model of a channel wants."""
        bundle = self.bundle_of(channel)
        return () if bundle is None else bundle.manifest.other_channels

    def frames_back(self, channel: int | str | None, stored: str) -> int:
        """Return how many frames of a channel have to be kept for the models of the run.

        `stored` is its name in the store: with several cameras the other channels are named by it.
        """
        named = {name for b in self.bundles.values() for name in b.manifest.other_channels}
        return max(self.context_frames(channel), int(bool(named & {str(channel or 0), stored})))

    def require_other_channels(
        self, channel: int | str | None, known: Sequence[str], time_point: int
    ) -> None:
        """Refuse to go on where another channel did not come with the first time point.

        `known` are the channels of a part of the run, always the same list.

        Raises
        ------
        FrameMismatchError
            Naming the channels that the model of this one misses.
        """
        first = self._first_times.setdefault(id(known), time_point)  # a script may begin at any
        missing = [
            name for name in self.other_channels(channel) if channel_place(name, known) is None
        ]
        if missing and time_point > first:
            raise FrameMismatchError(
                f"channel {channel}: its model also looks at {', '.join(missing)}, which this run "
                f"does not record (it has {', '.join(known)}); record that channel too, or use a "
                "model without --other-channel"
            )

    def denoiser(
        self,
        channel: int | str | None,
        frame_shape: tuple[int, int],
        region: Region | None = None,
        *,
        ahead: bool = False,
    ) -> Denoiser:
        """Return the denoiser of a channel for frames of this shape; built when first asked for.

        `region` of the sensor matters to models that know every pixel of the camera. `ahead` of
        the first frame there is time to compile an engine (TensorRT), afterwards there is none.

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
            return self._session(model, frame_shape, region, ahead=ahead)
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

    def require_match(
        self,
        running: CameraFingerprint,
        *,
        force: bool,
        frame_shape: tuple[int, int] | None = None,
    ) -> list[str]:
        """Refuse models of another camera; with `force`, return how they differ.

        Raises
        ------
        CameraMismatchError
            Naming every property that differs.
        FrameMismatchError
            If a model knows every pixel of another region than the one in use.
        """
        remarks = self._choice.require_camera(running, force=force)
        for bundle in self._choice.distinct_bundles():
            if frame_shape is not None:
                maps_of_frames(bundle, frame_shape, running.roi)
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
        for pipeline in self._pipelines.values():
            pipeline.close()
        for session in (*self._sessions.values(), *self._built.values()):
            session.close()
        for session in self._sessions.values():
            session.compile_missing_engines()

    def pipeline(
        self,
        channel: int | str | None,
        frame_shape: tuple[int, int],
        region: Region | None = None,
    ) -> FramePipeline:
        """Return the way for many frames through `denoiser`, with the same errors."""
        denoiser = self.denoiser(channel, frame_shape, region)
        if id(denoiser) not in self._pipelines:
            self._pipelines[id(denoiser)] = (
                denoiser.pipeline()
                if isinstance(denoiser, OnnxDenoiser)
                else FramePipeline([BlockingLane(denoiser)])
            )
        return self._pipelines[id(denoiser)]

    def _session(
        self,
        bundle: Bundle,
        frame_shape: tuple[int, int],
        region: Region | None,
        *,
        ahead: bool,
    ) -> OnnxDenoiser:
        key = (bundle.model_sha256, frame_shape, region)
        if key not in self._sessions:
            present = open_bundle(bundle.path)
            if present.model_sha256 != bundle.model_sha256:
                raise BundleError(
                    f"{bundle.path}: was replaced by another model since this run began; run "
                    "`quietscope denoise` afterwards with the one that you want"
                )
            self._sessions[key] = OnnxDenoiser(
                present,
                frame_shape,
                provider=self._provider,
                may_compile=ahead,
                region=region,
            )
        return self._sessions[key]


def channel_place(name: str, known: Sequence[str]) -> int | None:
    """Return the place of a channel among those that a run knows so far, None if it has not come.

    A channel that is but a number has no name and stands at its number.
    """
    if name in known:
        return known.index(name)
    return int(name) if name.isdigit() else None


def require_finite(estimate: np.ndarray[Any, np.dtype[np.float32]], what: str) -> None:
    """Raise FrameMismatchError if a denoiser gave NaN or infinity."""
    # The sum is not finite if any element is not, and it needs no array of its own.
    if not np.isfinite(estimate.sum(dtype=np.float64)):
        raise FrameMismatchError(
            f"{what}: the denoiser gave NaN or infinite pixels; the raw frame is kept. Train the "
            "model anew, or check that it fits this camera"
        )
