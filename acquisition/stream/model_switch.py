"""Another model takes the place of one while the run lasts.

Owns when it may, and what is written down of it. Loading it beside the running one, and the moment
between two frames at which it takes over, belong to `channel_denoisers` and `denoise_stage`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...calibration.pixel_maps import Region
from ...inference.bundle import MODEL, Bundle
from ...inference.errors import InferenceError
from ...inference.provenance import ModelChange, ModelIdentity
from ...inference.runtime.onnx_denoiser import OnnxDenoiser

LARGEST_GRAPH_BYTES = 256 * 2**20
"""Of a model that is loaded beside the images. Its graph is read and rewritten with the
interpreter held, and the hook waits meanwhile: up to 2 ms a MiB at a time on two busy cores, which
Micro-Manager's buffer bridges for half a second. Pixel maps of 4096 × 4096 take 192 MiB."""

Shown = tuple[tuple[int, int], Region | None]
"""The frame shape and the region of the sensor that a model was last asked for."""


@dataclass(frozen=True, slots=True, eq=False)
class Successor:
    """A model that was found to fit and waits for the next frame.

    Attributes
    ----------
    bundle
        The model.
    names
        The names of the channels whose model it becomes.
    denoiser, shown
        Its session, loaded for what the run shows at present; None where no frame has come.
    """

    bundle: Bundle
    names: tuple[str, ...]
    denoiser: OnnxDenoiser | None = None
    shown: Shown | None = None

    def close(self) -> None:
        """Release it, where its frame will not come."""
        if self.denoiser is not None:
            self.denoiser.close()


@dataclass(frozen=True, slots=True, eq=False)
class ModelSwitch:
    """A model that took another's place.

    Attributes
    ----------
    from_frame
        The first frame that it denoises, by order of arrival.
    channel
        The name that the models were given for.
    before, after
        The models.
    """

    from_frame: int
    channel: str
    before: Bundle
    after: Bundle

    def line(self) -> str:
        """Return it for the log."""
        of = "" if self.channel == "*" else f" of {self.channel}"
        return (
            f"frame {self.from_frame}: the model{of} is {self.after.path.name} from here on, in "
            f"place of {self.before.path.name}"
        )

    def result(self) -> dict[str, Any]:
        """Return it as reports take it."""
        return {
            "from_frame": self.from_frame,
            "channel": self.channel,
            "before": self.before.path.name,
            "after": self.after.path.name,
            "before_sha256": self.before.model_sha256,
            "after_sha256": self.after.model_sha256,
        }

    def change(self) -> ModelChange:
        """Return it as denoised images take it."""
        return ModelChange(
            from_frame=self.from_frame,
            channel=self.channel,
            model=ModelIdentity.of(self.after),
        )


def names_for(bundle: Bundle, channel: str | None, running: Mapping[str, Bundle]) -> list[str]:
    """Return the names of the channels whose model a bundle is to become.

    `channel` is the name that was asked for; None where the models themselves have to say. Then it
    is those of its channel and its camera, or the only one that there is.

    Raises
    ------
    InferenceError
        If there is none.
    """
    if not running:
        raise InferenceError(
            "this run is not denoised by a model bundle, so none can be exchanged; begin a run "
            "with --model"
        )
    if channel is not None:
        if channel not in running:
            raise InferenceError(
                f"no model was given for channel {channel}; this run has models for "
                f"{', '.join(running)}"
            )
        return [channel]
    manifest = bundle.manifest
    found = [
        name
        for name, old in running.items()
        if old.manifest.channel == manifest.channel
        and not old.manifest.camera.differences(manifest.camera)
    ]
    if not found and len(running) > 1:
        raise InferenceError(
            f"{bundle.path.name}: is for channel {manifest.channel or 'every'} of another camera "
            f"or channel than the models of this run; name one of {', '.join(running)}"
        )
    return found or list(running)


def require_light(place: Path) -> None:
    """Refuse a model that would keep images waiting while it is loaded; nothing of it is read.

    Raises
    ------
    InferenceError
        With its size.
    """
    try:
        size = (place / MODEL).stat().st_size
    except OSError:  # whoever opens it says so
        return
    if size > LARGEST_GRAPH_BYTES:
        raise InferenceError(
            f"{place.name}: its {MODEL} has {size / 2**20:.0f} MiB, and reading more than "
            f"{LARGEST_GRAPH_BYTES / 2**20:.0f} MiB would keep the camera's images waiting; it "
            "can be used by the next run"
        )


def require_fit(bundle: Bundle, before: Bundle) -> None:
    """Refuse a model that cannot take another's place between two frames.

    Raises
    ------
    InferenceError
        With the first reason.
    """
    for what, new, old in _needs(bundle, before):
        if new != old:
            raise InferenceError(
                f"{bundle.path.name}: {what} {_words(new)}, the model of this run "
                f"{before.path.name} {_words(old)}; it can be used by the next run"
            )


def _needs(bundle: Bundle, before: Bundle) -> Iterator[tuple[str, Any, Any]]:
    """Yield what both have to have in common, with both values."""
    new, old = bundle.manifest, before.manifest
    if new.channel is not None and old.channel is not None:
        yield "is for channel", new.channel, old.channel
    yield "takes pixels of type", new.pixel_type, old.pixel_type
    # What waits for the denoiser was put together for the model of before.
    yield "looks at preceding frames:", new.context_frames, old.context_frames
    yield "looks at planes on either side:", new.planes, old.planes
    yield "looks at other channels:", new.other_channels, old.other_channels


def _words(value: object) -> str:
    if isinstance(value, tuple):
        return ", ".join(map(str, value)) or "none"
    return str(value)
