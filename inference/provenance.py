"""What a denoised image says about its origin, and what a recording says about its camera.

Owns the one schema for both roads, offline and live, and the reading of it; images that were
written before a key existed read as well. Where it is put, and when, is decided by who writes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from ..calibration.fingerprint import CameraFingerprint
from ..storage.stack import Stack
from ..version import __version__
from .bundle import Bundle
from .errors import InferenceError

ATTRIBUTES = "quietscope"
"""Under this key OME-Zarr images carry what they came from."""

M = TypeVar("M", bound=BaseModel)


class _Said(BaseModel):
    # A later version may say more: what is known here is read all the same.
    model_config = ConfigDict(extra="ignore", frozen=True, protected_namespaces=())


class ModelIdentity(_Said):
    """Which model denoised an image; a store is resumed only if it agrees."""

    model_sha256: str
    noise_model_sha256: str | None
    algorithm: str
    context_frames: int

    @classmethod
    def of(cls, bundle: Bundle) -> Self:
        """Return what identifies the model of a bundle."""
        return cls(
            model_sha256=bundle.model_sha256,
            noise_model_sha256=bundle.noise_model_sha256,
            algorithm=bundle.manifest.algorithm,
            context_frames=bundle.manifest.context_frames,
        )


class ModelChange(_Said):
    """A model that took another's place while the image was made.

    Attributes
    ----------
    from_frame
        The first frame that it denoised, by its index in the run's frame log.
    channel
        The name of the channel; `*` for all that have no model of their own.
    model
        Which it is.
    """

    from_frame: int
    channel: str
    model: ModelIdentity


class Provenance(_Said):
    """What is written into each denoised image.

    Attributes
    ----------
    kind, unit
        Estimates of the signal, in ADU.
    source
        The name of what was denoised.
    model_sha256, noise_model_sha256
        Of the first of `models`; None where no bundle denoised it.
    models
        By the names of the channels.
    model_changes
        Models that took the place of these in the course of a live run, oldest first.
    method
        The classical filter that denoised it, with its settings; None where a model did.
    samples, estimate
        How many samples of the posterior were drawn, and which estimate of them this is; None
        where none were, or where they stand along an axis of their own.
    provider, precision
        What ran.
    simulated
        Whether the camera was a simulated one; None where that is not known.
    forced
        How the camera differed from the model's, where it was used all the same.
    quietscope_version
        Of the program; None in images of before.
    """

    kind: Literal["denoised"] = "denoised"
    unit: Literal["ADU"] = "ADU"
    source: str
    model_sha256: str | None = None
    noise_model_sha256: str | None = None
    models: dict[str, ModelIdentity] = {}
    model_changes: tuple[ModelChange, ...] = ()
    method: dict[str, str | int | float | None] | None = None
    samples: int | None = None
    estimate: str | None = None
    provider: str | None = None
    precision: str | None = None
    simulated: bool | None = None
    forced: tuple[str, ...] = ()
    quietscope_version: str | None = None

    @classmethod
    def of(cls, source: str, models: Mapping[str, ModelIdentity], **ran: Any) -> Self:
        """Return what an image says that these models denoised; `ran` are further fields."""
        first = next(iter(models.values()), None)
        return cls(
            source=source,
            model_sha256=None if first is None else first.model_sha256,
            noise_model_sha256=None if first is None else first.noise_model_sha256,
            models=dict(models),
            quietscope_version=__version__,
            **ran,
        )

    def attributes(self) -> dict[str, Any]:
        """Return the attributes of the image."""
        said = self.model_dump(mode="json")
        rare = ("method", "simulated", "forced", "model_changes")
        empty = {name for name in rare if said[name] in (None, [])}
        return {ATTRIBUTES: {name: value for name, value in said.items() if name not in empty}}

    def same_models(self, other: Provenance) -> bool:
        """Whether two images were denoised by the same models or method."""
        return (self.models, self.model_changes, self.method) == (
            other.models,
            other.model_changes,
            other.method,
        )


def provenance_of(stack: Stack) -> Provenance | None:
    """Return what an image says about its origin; None if it is no denoised one.

    Raises
    ------
    InferenceError
        If that cannot be read.
    """
    said = _said_by(stack)
    if said.get("kind") != "denoised":
        return None
    return _read(Provenance, said, stack, "its record of origin")


def recorded_camera(stack: Stack) -> CameraFingerprint:
    """Return what the recording says about its camera; mostly nothing, or its name alone.

    Raises
    ------
    InferenceError
        If that cannot be read.
    """
    said = _said_by(stack).get("camera")
    if not isinstance(said, Mapping):
        return CameraFingerprint(camera=stack.camera if stack.camera_is_label else None)
    return _read(CameraFingerprint, said, stack, "its camera record")


def _said_by(stack: Stack) -> Mapping[str, Any]:
    said = (stack.attributes or {}).get(ATTRIBUTES)
    return said if isinstance(said, Mapping) else {}  # another program's, or nobody's


def _read(kind: type[M], said: Mapping[str, Any], stack: Stack, what: str) -> M:
    try:
        return kind.model_validate(said)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        raise InferenceError(
            f"{stack.path}: {what} cannot be read ({place}: {first['msg']}); update quietscope"
        ) from error
