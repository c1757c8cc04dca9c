"""A model bundle: a directory that is written once and never edited.

Owns the manifest, the hashes and the refusal of anything incomplete, altered or of another
version. Knows neither how a model is trained nor how it is run.

::

    bundle/
        manifest.json     what the model is, and the SHA-256 of every other file
        model.onnx        camera pixels in; `denoised` and `uncertainty` out
        noise_model.npz   the noise model that the graph holds, for people and for retraining;
                          absent where a model made elsewhere was imported without one
        checkpoint.pt     weights for resuming and retraining (loaded with weights_only=True)
        sampler.onnx      of models that can: one sample of the signal instead of the mean
        golden.npz        a piece of a frame and the answer that every machine has to give
        losses.csv        the training curve
        trust_reference.json  what held-out frames looked like, and what was removed from them
        report.html       the same for a person
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AliasChoices, BaseModel, ConfigDict, Field, ValidationError

from ..calibration.fingerprint import CameraFingerprint
from ..storage.atomic_output import new_directory
from ..storage.bounded_text import read_text
from ..storage.output_kinds import Kind
from ..version import __version__
from .errors import BundleError

Algorithm = Annotated[str, Field(pattern="^[a-z][a-z0-9_-]*$")]
"""By its name; which there are is known to training."""
Preset = Literal["live", "fast", "best"]
PixelType = Literal["uint8", "uint16", "float32"]
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]

MANIFEST = "manifest.json"
MODEL = "model.onnx"
NOISE_MODEL = "noise_model.npz"
CHECKPOINT = "checkpoint.pt"
SAMPLER = "sampler.onnx"
GOLDEN_OUTPUT = "golden.npz"
LOSSES = "losses.csv"
REPORT = "report.html"
TRUST_REFERENCE = "trust_reference.json"
MOST_FILES = 64
LARGEST_FILE_BYTES = 2 * 2**30
"""What an ONNX file can be at most. Nothing larger is read, not even for its hash."""


class _Record(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, ser_json_inf_nan="null")


class TrainingStack(_Record):
    """One recording that the model learned from."""

    path: str
    frames: int
    """That were read."""
    recorded_frames: int | None = None
    """That there were; None in bundles from before both were told apart."""
    frame_shape: tuple[int, int]
    sha256: Sha256
    """Of the pixels that were read, in order."""


class TrainingRecord(_Record):
    """How the model came to be."""

    stacks: tuple[TrainingStack, ...]
    steps: int
    seconds: float
    seed: int
    parameters: int
    validation_loss: float | None
    options: dict[str, str | int | float | bool | None] = {}


class Manifest(_Record):
    """What a bundle is. Read from disk, so anything unknown in it is refused."""

    schema_version: Literal[1] = 1
    quietscope_version: str = __version__
    created: str = Field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    algorithm: Algorithm
    preset: Preset
    context_frames: int = Field(ge=0)
    planes: int = Field(default=0, ge=0)
    """On either side of a frame in its z-stack, which the model is given after those before it."""
    other_channels: tuple[str, ...] = Field(
        default=(), validation_alias=AliasChoices("other_channels", "companions")
    )
    """Whose newest frames the model is given after the preceding ones. Bundles of before call them
    companions."""
    channel: str | None = None
    pixel_type: PixelType
    camera: CameraFingerprint = CameraFingerprint()
    noise_model: Literal["calibrated", "bootstrapped", "unknown"]
    states_uncertainty: bool = True
    """Whether `uncertainty` means something; a model made elsewhere may state none: then zeros."""
    training: TrainingRecord
    figures: dict[str, float | None] = {}
    """Measured at export: `parity_max_relative_error` and whatever evaluation was made."""
    better_than_trivial: bool | None = None
    """On held-out frames better than its input and than a blur; None in bundles of before."""
    accepted: bool | None = None
    """May be put in use: better than that, or accepted by a person all the same."""
    noise: str | None = None
    """What was found of how pixels share noise, and done about it; None in bundles of before."""
    noise_is_removed: bool | None = None
    """Whether the method can tell such noise from signal."""
    sha256: dict[str, Sha256] = {}
    """File name to hash, for every file but the manifest."""

    @property
    def required_files(self) -> tuple[str, ...]:
        """What a bundle of this kind cannot be without."""
        return (MODEL,) if self.noise_model == "unknown" else (MODEL, NOISE_MODEL)


@dataclass(frozen=True, slots=True)
class Bundle:
    """A bundle on disk whose manifest was read and whose files were checked."""

    path: Path
    manifest: Manifest

    @property
    def model_path(self) -> Path:
        """The ONNX graph."""
        return self.path / MODEL

    @property
    def model_sha256(self) -> str:
        """Identifies the model everywhere: in denoised images, reports and decisions."""
        return self.manifest.sha256[MODEL]

    @property
    def further_frames(self) -> int:
        """How many frames the model is given besides the newest one."""
        manifest = self.manifest
        return manifest.context_frames + 2 * manifest.planes + len(manifest.other_channels)

    @property
    def has_golden_output(self) -> bool:
        """Whether the bundle holds an answer to check this machine against."""
        return GOLDEN_OUTPUT in self.manifest.sha256

    @property
    def noise_model_sha256(self) -> str | None:
        """Identifies the noise model; None where it is not known."""
        return self.manifest.sha256.get(NOISE_MODEL)

    @property
    def identity(self) -> dict[str, str | int | None]:
        """What a denoised image says about its model; a store is resumed only if it agrees."""
        return {
            "model_sha256": self.model_sha256,
            "noise_model_sha256": self.noise_model_sha256,
            "algorithm": self.manifest.algorithm,
            "context_frames": self.manifest.context_frames,
        }

    @property
    def sampler_path(self) -> Path | None:
        """The graph that draws samples; None if the model draws none."""
        return self.path / SAMPLER if SAMPLER in self.manifest.sha256 else None

    @property
    def checkpoint_path(self) -> Path | None:
        """The weights to train on from; None if the bundle holds none whose hash it knows."""
        return self.path / CHECKPOINT if CHECKPOINT in self.manifest.sha256 else None

    @property
    def trust_reference_path(self) -> Path | None:
        """What held-out frames of the training looked like; None in bundles of before."""
        return self.path / TRUST_REFERENCE if TRUST_REFERENCE in self.manifest.sha256 else None

    @property
    def noise_model_path(self) -> Path | None:
        """The noise model of the camera; None where it is not known."""
        return self.path / NOISE_MODEL if NOISE_MODEL in self.manifest.sha256 else None

    @property
    def calibration_path(self) -> Path | None:
        """The noise model, where it was calibrated with the camera and not told from frames."""
        return self.noise_model_path if self.manifest.noise_model == "calibrated" else None

    def require_uncertainty(self) -> None:
        """Refuse to give a standard deviation that the model does not state.

        Raises
        ------
        BundleError
            Where the model was made elsewhere and gives estimates alone.
        """
        if not self.manifest.states_uncertainty:
            raise BundleError(
                f"{self.path}: states no uncertainty (it was imported, and gives estimates "
                "alone); leave the uncertainty out, or train a model here"
            )


def open_bundle(path: Path | str) -> Bundle:
    """Open and verify the bundle at `path`.

    Raises
    ------
    BundleError
        If it is missing, incomplete, altered, or of a version this program does not know.
    """
    path = Path(path)
    manifest = read_manifest(path)
    _verify(path, manifest)
    return Bundle(path, manifest)


def read_manifest(path: Path) -> Manifest:
    """Read what the bundle at `path` says of itself; its other files are not looked at.

    Raises
    ------
    BundleError
        If there is no manifest, or this program cannot use it.
    """
    try:
        text = read_text(path / MANIFEST)
    except OSError as error:
        raise BundleError(
            f"{path}: no model bundle (no readable {MANIFEST} in it); give a directory "
            "that `quietscope train` wrote"
        ) from error
    except ValueError as error:
        raise BundleError(
            f"{path}: no model bundle (its {MANIFEST} {error}); give a directory that "
            "`quietscope train` wrote"
        ) from error
    try:
        return Manifest.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "the file"
        raise BundleError(
            f"{path}: its {MANIFEST} cannot be used ({place}: {first['msg']}); train the model "
            "anew or update quietscope"
        ) from error


def _verify(path: Path, manifest: Manifest) -> None:
    missing = [name for name in manifest.required_files if name not in manifest.sha256]
    if len(manifest.sha256) > MOST_FILES:
        raise BundleError(
            f"{path}: its {MANIFEST} lists {len(manifest.sha256)} files, a bundle has at most "
            f"{MOST_FILES}; train it anew"
        )
    if missing:
        raise BundleError(f"{path}: its {MANIFEST} lists no {', '.join(missing)}; train it anew")
    for name, expected in manifest.sha256.items():
        file = path / name
        if Path(name).name != name or not file.is_file():
            raise BundleError(f"{path}: {name} is missing; restore the bundle or train it anew")
        if file.stat().st_size > LARGEST_FILE_BYTES:
            raise BundleError(
                f"{path}: {name} is larger than {LARGEST_FILE_BYTES / 2**30:g} GiB, which no "
                "model is; train it anew"
            )
        if file_sha256(file) != expected:
            raise BundleError(
                f"{path}: {name} was changed after training (its SHA-256 differs from the "
                f"{MANIFEST}); restore the bundle or train it anew"
            )


@contextmanager
def new_bundle(path: Path | str, *, overwrite: bool = False) -> Iterator[Path]:
    """Yield a staging directory to fill; `seal` it last and it becomes the bundle at `path`."""
    with new_directory(Path(path), Kind.BUNDLE, overwrite=overwrite) as staging:
        yield staging
        if not (staging / MANIFEST).is_file():
            raise BundleError(
                f"{path}: the bundle was not finished; this is a defect of quietscope"
            )
        open_bundle(staging)


def seal(staging: Path, manifest: Manifest) -> Manifest:
    """Hash every file in `staging` and write the manifest. Returns it with its hashes."""
    hashes = {
        file.name: file_sha256(file)
        for file in sorted(staging.iterdir())
        if file.is_file() and file.name != MANIFEST
    }
    sealed = manifest.model_copy(update={"sha256": hashes})
    (staging / MANIFEST).write_text(sealed.model_dump_json(indent=2) + "\n", encoding="utf-8")
    return sealed


def file_sha256(path: Path) -> str:
    """Return the SHA-256 of a file, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
