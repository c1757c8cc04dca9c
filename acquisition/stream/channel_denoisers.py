"""Which denoiser works on which frame: one per channel and frame shape.

Owns the models of a run: they are opened, checked against the camera, turned into sessions and
exchanged here. Which frame is denoised when is decided in `denoise_stage`, which model may take
another's place in `model_switch`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from ...calibration.errors import CameraMismatchError
from ...calibration.fingerprint import CameraFingerprint
from ...calibration.pixel_maps import Region
from ...errors import QuietscopeError
from ...inference.bundle import Bundle, open_bundle
from ...inference.denoiser import Denoiser
from ...inference.errors import BundleError, FrameMismatchError
from ...inference.general.for_camera import SENTENCE, is_general
from ...inference.model_choice import ModelChoice, Models, OpenModel, open_models
from ...inference.provenance import ModelIdentity
from ...inference.runtime.camera_pixels import maps_of_frames
from ...inference.runtime.onnx_denoiser import OnnxDenoiser
from ...inference.runtime.pipeline import FramePipeline
from ...inference.runtime.providers import Provider
from ...storage.axis_map import channel_of
from .camera_settings import camera_label
from .model_switch import ModelSwitch, Shown, Successor, names_for, require_fit
from .session_cache import Session, SessionCache

LEAST_SESSIONS = 8
"""Kept open at the same time; each frame shape and region of the sensor has one per model, of some
12 MB and more. Beyond that the one that was used longest ago is closed."""
MAX_JUDGED = 256
MAX_REMARKS = 100
"""A script may set the camera anew for hours."""


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
    force
        Use models of another camera.

    Attributes
    ----------
    remarks
        How models differ from the camera that they are used with all the same.
    switches
        The models that took another's place, oldest first.

    Raises
    ------
    BundleError
        If a bundle is missing, incomplete or altered.
    """

    def __init__(
        self, models: Models, *, provider: Provider = "auto", force: bool = False
    ) -> None:
        self._provider = provider
        self._force = force
        self._choice = open_models(models)
        self._sessions = SessionCache(max(LEAST_SESSIONS, 2 * len(self._choice.models)))
        self._judged: dict[tuple[str, CameraFingerprint, tuple[int, int]], QuietscopeError | None]
        self._judged = {}
        self._first_times: dict[int, int] = {}
        self._came: set[str | int] = set()
        self._ran: tuple[str, str] | None = None
        self._shown: dict[str, Shown] = {}
        self._settings: dict[str, CameraFingerprint] = {}
        self._successors: deque[Successor] = deque()
        self._choices = [(0, self._choice)]
        self.switches: list[ModelSwitch] = []
        self.remarks: list[str] = []

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

        Called with every frame of the run.

        With several cameras `{"Left": …, "Right": …}` gives each camera a model.
        """
        camera = camera_label(metadata)
        own = self._choice.first_named((channel_of({"camera": camera, **axes}), camera))
        channel = axes.get("channel") if own is None else own
        self._came.add("0" if channel is None else str(channel))
        return channel

    def names_without_frames(self) -> list[str]:
        """Return the names to which models were given and of which no frame has come."""
        return [name for name in self._choice.names if name not in self._came]

    def require_channels(self, planned: Sequence[str], cameras: Sequence[str]) -> None:
        """Refuse a model for a channel that will not come.

        Parameters
        ----------
        planned
            The channels of the run, none if its frames have no channel.
        cameras
            The cameras that take an image at the same time; none if there is but one.

        Raises
        ------
        InferenceError
            Naming the channels that there are.
        """
        both = [str(channel_of({"channel": c, "camera": k})) for c in planned for k in cameras]
        known = [*planned, *cameras, *both] or ["0"]
        if self._choice.names:
            unnamed = " (0: no --channel was given)" if known == ["0"] else ""
            self._choice.require_channels(known, where=f"the run that is planned{unnamed}")

    def bundle_of(self, channel: int | str | None) -> Bundle | None:
        """Return the bundle of a channel, None if it has none."""
        model = self.model(channel)
        return model if isinstance(model, Bundle) else None

    def identities(self, channel_names: Sequence[str]) -> dict[str, ModelIdentity]:
        """Return what identifies each bundle: by these channels, and by the names it was given.

        Those that the run began with; what took their place is in `switches`.
        """
        return self._choices[0][1].identities(channel_names)

    def context_frames(self, channel: int | str | None) -> int:
        """Return how many preceding frames the model of a channel wants."""
        model = self.model(channel)
        if isinstance(model, Bundle):
            return model.manifest.context_frames
        return 0 if model is None else model.context_frames

    def planes(self, channel: int | str | None) -> int:
        """Return how many planes on either side the model of a channel wants."""
        bundle = self.bundle_of(channel)
        return 0 if bundle is None else bundle.manifest.planes

    def other_channels(self, channel: int | str | None) -> tuple[str, ...]:
        """Return the other channels whose newest frames the model of a channel wants."""
        bundle = self.bundle_of(channel)
        return () if bundle is None else bundle.manifest.other_channels

    def frames_back(self, channel: int | str | None, stored: str) -> int:
        """Return how many frames of a channel have to be kept for the models of the run.

        `stored` is its name in the store: with several cameras the other channels are named by it.
        """
        named = {name for b in self.bundles.values() for name in b.manifest.other_channels}
        wanted = bool(named & {str(channel or 0), stored}) or self.planes(channel) > 0
        return max(self.context_frames(channel), int(wanted))

    def require_other_channels(
        self, channel: int | str | None, known: Sequence[str], *, part: int, time_point: int
    ) -> None:
        """Refuse to go on where another channel did not come with the first time point.

        `known` are the channels so far of that part of the run.

        Raises
        ------
        FrameMismatchError
            Naming the channels that the model of this one misses.
        """
        first = self._first_times.setdefault(part, time_point)  # a script may begin at any
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
        return self._session(channel, frame_shape, region, ahead=ahead).denoiser

    def pipeline(
        self,
        channel: int | str | None,
        frame_shape: tuple[int, int],
        region: Region | None = None,
    ) -> FramePipeline:
        """Return the way for many frames through `denoiser`, with the same errors.

        The pipeline that was returned before stays open, so that its frames can be finished.
        """
        return self._session(channel, frame_shape, region).pipeline()

    def _session(
        self,
        channel: int | str | None,
        frame_shape: tuple[int, int],
        region: Region | None,
        *,
        ahead: bool = False,
    ) -> Session:
        model = self.model(channel)
        if model is None:
            raise FrameMismatchError(f"channel {channel} has no model; give it one")
        if isinstance(model, Bundle):
            self._shown[model.model_sha256] = (frame_shape, region)
            return self._sessions.get(
                (model.model_sha256, frame_shape, region),
                lambda: Session(self._opened_bundle(model, frame_shape, region, ahead), own=True),
            )
        named = str(0 if channel is None else channel)
        if isinstance(model, type) or not isinstance(model, Denoiser):
            return self._sessions.get(
                (named, frame_shape, None), lambda: Session(model(frame_shape), own=True)
            )
        if tuple(model.frame_shape) != frame_shape:
            raise FrameMismatchError(
                f"frames are {frame_shape}, the denoiser takes {tuple(model.frame_shape)}; give a "
                "model bundle, which adapts itself, or set the camera's region back"
            )
        return self._sessions.get((named, frame_shape, None), lambda: Session(model, own=False))

    def _opened_bundle(
        self, bundle: Bundle, frame_shape: tuple[int, int], region: Region | None, ahead: bool
    ) -> OnnxDenoiser:
        present = open_bundle(bundle.path)
        if present.model_sha256 != bundle.model_sha256:
            raise BundleError(
                f"{bundle.path}: was replaced by another model since this run began; run "
                "`quietscope denoise` afterwards with the one that you want"
            )
        return self._denoiser_of(present, frame_shape, region, ahead)

    def _denoiser_of(
        self, bundle: Bundle, frame_shape: tuple[int, int], region: Region | None, ahead: bool
    ) -> OnnxDenoiser:
        denoiser = OnnxDenoiser(
            bundle, frame_shape, provider=self._provider, may_compile=ahead, region=region
        )
        self._ran = self._ran or (denoiser.provider, denoiser.device)
        return denoiser

    # ------------------------------------------------------- another one while the run lasts

    def prepare(
        self, bundle: Bundle, channel: str | None, running: CameraFingerprint
    ) -> Successor:
        """Load a model beside the one whose place it is to take. Called from any thread.

        `bundle` was opened just now, and is not verified once more while frames come.
        `channel` is the name that the model of before was given for, None to find it; `running`
        the camera, for as long as no frame has said how it is set.

        Raises
        ------
        QuietscopeError
            If it does not fit; nothing has changed then.
        """
        present = self.bundles
        names = names_for(bundle, channel, present)
        for name in names:
            before = present[name].model_sha256
            require_fit(bundle, present[name])
            misfit = self._judge(bundle, self._settings.get(before, running))
            if misfit is not None:
                raise misfit
        self._remark(ModelChoice({"": bundle}).worth())
        shown = self._shown.get(present[names[0]].model_sha256)
        denoiser = None if shown is None else self._denoiser_of(bundle, *shown, ahead=False)
        return Successor(bundle, tuple(names), denoiser, shown)

    def put_forward(self, successor: Successor) -> None:
        """Let a model take over with the next frame."""
        self._successors.append(successor)

    @property
    def successor_waits(self) -> bool:
        """Whether a model is to take over. Asked before every frame."""
        return bool(self._successors)

    def take_over(self, from_frame: int) -> list[ModelSwitch]:
        """Let the models take over that wait, from a frame on; none may be on its way.

        Called from the thread that denoises.
        """
        switched = []
        while self._successors:
            successor = self._successors.popleft()
            present = self.bundles
            switched += [
                ModelSwitch(from_frame, name, present[name], successor.bundle)
                for name in successor.names
            ]
            self._choice = self._choice.replaced(dict.fromkeys(successor.names, successor.bundle))
            self._adopt(successor)
            self._release_unused(present[name] for name in successor.names)
        self._choices.append((from_frame, self._choice))
        self.switches += switched
        return switched

    def _adopt(self, successor: Successor) -> None:
        denoiser, shown = successor.denoiser, successor.shown
        if denoiser is not None and shown is not None:
            key = (successor.bundle.model_sha256, *shown)
            session = Session(denoiser, own=True)
            if self._sessions.get(key, lambda: session) is not session:
                session.close()  # it is denoised by that very model already

    def _release_unused(self, bundles: Iterator[Bundle]) -> None:
        used = {bundle.model_sha256 for bundle in self.bundles.values()}
        for bundle in bundles:
            if bundle.model_sha256 not in used:
                self._sessions.drop(bundle.model_sha256)

    @contextmanager
    def as_they_were(self) -> Iterator[Callable[[int], None]]:
        """Yield what brings back the models that a frame had, by its order of arrival."""
        present = self._choice

        def at(frame: int) -> None:
            self._choice = next(
                choice for first, choice in reversed(self._choices) if first <= frame
            )

        try:
            yield at
        finally:
            self._choice = present

    # ---------------------------------------------------------------------- do they fit

    def require_match(
        self, running: CameraFingerprint, frame_shape: tuple[int, int] | None = None
    ) -> None:
        """Refuse models of another camera before the run; forced ones are noted in `remarks`.

        Raises
        ------
        CameraMismatchError
            Naming every property that differs.
        FrameMismatchError
            If a model knows every pixel of another region than the one in use.
        """
        self._remark(
            [*self._choice.require_camera(running, force=self._force), *self._choice.worth()]
        )
        for bundle in self._choice.distinct_bundles():
            if frame_shape is not None:
                maps_of_frames(bundle, frame_shape, running.roi)

    def misfit(
        self,
        channel: int | str | None,
        settings: CameraFingerprint,
        frame_shape: tuple[int, int],
    ) -> QuietscopeError | None:
        """Return why the model of a channel cannot denoise frames of these settings.

        None if it can, or if nobody knows. Judged once for each setting, from memory alone: the
        recorder asks. What only building the session brings to light is told by `note_misfit`.
        """
        bundle = self.bundle_of(channel)
        if bundle is None:
            return None
        self._settings[bundle.model_sha256] = settings
        key = (bundle.model_sha256, settings, frame_shape)
        if key not in self._judged:
            if len(self._judged) >= MAX_JUDGED:
                self._judged.clear()
            self._judged[key] = self._judge(bundle, settings)
        return self._judged[key]

    def note_misfit(
        self,
        channel: int | str | None,
        settings: CameraFingerprint,
        frame_shape: tuple[int, int],
        error: BundleError | FrameMismatchError,
    ) -> None:
        """Remember that the model of a channel cannot denoise such frames."""
        bundle = self.bundle_of(channel)
        if bundle is not None:
            self._judged[bundle.model_sha256, settings, frame_shape] = error

    def _judge(self, bundle: Bundle, settings: CameraFingerprint) -> QuietscopeError | None:
        try:
            self._remark(ModelChoice({"": bundle}).require_camera(settings, force=self._force))
        except CameraMismatchError as error:
            return error
        expected = bundle.manifest.pixel_type
        if settings.pixel_type not in (None, expected):
            return FrameMismatchError(
                f"frames are {settings.pixel_type}, the model {bundle.path} was trained on "
                f"{expected}; set the camera back, or train a model for this pixel type"
            )
        return None

    def _remark(self, differences: Sequence[str]) -> None:
        new = [remark for remark in differences if remark not in self.remarks]
        self.remarks += new[: MAX_REMARKS - len(self.remarks)]

    @property
    def provider(self) -> str | None:
        """What runs the bundles; None before the first was opened. Asked with every picture."""
        return None if self._ran is None else self._ran[0]

    def result(self) -> dict[str, Any]:
        """Return what ran, as reports take it."""
        hashes = {str(channel): bundle.model_sha256 for channel, bundle in self.bundles.items()}
        provider, device = self._ran or (None, None)
        return {
            "provider": provider,
            "device": device,
            "model_sha256": next(iter(hashes.values()))
            if len(set(hashes.values())) == 1
            else None,
            "models": hashes,
            "model_switches": [switch.result() for switch in self.switches],
            "general_model": SENTENCE if any(map(is_general, self.bundles.values())) else None,
        }

    def close(self) -> None:
        """Release what was built here, not the denoisers that were handed in."""
        self._sessions.close()
        while self._successors:  # whose frame never came
            self._successors.popleft().close()


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
