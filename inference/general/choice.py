"""Which model serves a recording or a run, the general one included, and by which calibration.

Owns the one rule for `live` and `denoise`: the model that was named; else the one that is in use
in the library; else, where that has none for this camera, setting and channel, the general model,
if a calibration of the camera is at hand: the one that was given, one that the library holds, or
(for what is recorded already) one bootstrapped from the recording. What the rule came to is said.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ...calibration.bootstrap import bootstrap_noise_model
from ...calibration.errors import CalibrationError
from ...calibration.fingerprint import CameraFingerprint
from ...calibration.gaussian_mixture import GaussianMixtureNoiseModel
from ...calibration.noise_files import load_noise_model
from ...calibration.pixel_maps import part_of
from ...storage.stack import Stack
from ..bundle import NOISE_MODEL, Bundle, read_manifest
from ..errors import BundleError, InferenceError
from ..library import Library, library_near, models_in_use
from ..model_choice import EVERY_CHANNEL, parse_models
from ..provenance import recorded_camera
from .for_camera import SENTENCE, general_bundle
from .shipped import CONTEXTS

GENERAL = Path("general")
"""What `--model` calls it. A bundle in a folder of this name is given by its whole path."""
MOST_NOISE_MODELS = 32
"""In a library, that are opened to find one of this camera."""

Named = Path | dict[str | int, Path]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What models are wanted for.

    Attributes
    ----------
    camera
        What is known of it.
    channels
        That there will be; None where that is not known.
    pixel_type
        Of the frames; None takes that of the calibration.
    near
        Places around which the library lies, if it is not named.
    library
        The library that was named.
    noise_model
        The calibration that was given, or its file.
    recording
        From which a noise model may be bootstrapped; None of a run that is to come.
    """

    camera: CameraFingerprint
    channels: Sequence[str] | None
    pixel_type: str | None
    near: Sequence[Path]
    library: Path | None = None
    noise_model: Path | GaussianMixtureNoiseModel | None = None
    recording: Stack | None = None

    @classmethod
    def for_recording(
        cls,
        stack: Stack,
        *,
        near: Sequence[Path] = (),
        library: Path | None = None,
        noise_model: Path | GaussianMixtureNoiseModel | None = None,
    ) -> Wanted:
        """Return what a recording wants."""
        return cls(
            camera=recorded_camera(stack),
            channels=stack.channel_labels,
            pixel_type=stack.dtype.name,
            near=[stack.path, *near],
            library=library,
            noise_model=noise_model,
            recording=stack,
        )


def chosen_models(given: Sequence[str] | None, wanted: Wanted) -> tuple[Named, list[str]]:
    """Return the models to use and, unless they were all named, a sentence that says which.

    Parameters
    ----------
    given
        What `--model` was given, see `parse_models`; `general` is the general model.
    wanted
        For what.

    Raises
    ------
    InferenceError
        If nothing serves, or a calibration was given that nothing has a use for.
    CalibrationError
        If the calibration that was given is not of this camera, or cannot be read.
    """
    if given:
        return _with_general(parse_models(given), wanted)
    try:
        found, words = models_in_use(
            wanted.camera, wanted.channels, library=wanted.library, near=wanted.near
        )
    except BundleError:
        raise
    except InferenceError as error:
        return _general_instead(wanted, error)
    if _serves_all(found, wanted):
        _require_use(wanted.noise_model)
        return found, [words]
    try:
        bundle, said = general_for(wanted)
    except NoCalibrationError:
        return found, [words]  # channels without a model stay as they are
    except (InferenceError, CalibrationError) as error:
        if wanted.noise_model is not None:
            raise
        return found, [words, f"other channels have no model: {error}"]
    return {**found, EVERY_CHANNEL: bundle.path}, [words, f"other channels: {said}"]


def one_model(given: Path, wanted: Wanted) -> tuple[Path, list[str]]:
    """Return the bundle that was named, for a command that takes one, and words for it."""
    if given == GENERAL:
        bundle, said = general_for(wanted)
        return bundle.path, [said]
    _require_use(wanted.noise_model)
    return given, []


def general_for(wanted: Wanted) -> tuple[Bundle, str]:
    """Return the general model for a camera, and a sentence that says what it is.

    Raises
    ------
    InferenceError
        If no calibration is at hand.
    CalibrationError
        If the recording does not let its noise be told.
    """
    noise_model, source = _calibration(wanted)
    pixel_type = wanted.pixel_type or noise_model.fingerprint.pixel_type or "uint16"
    stack = wanted.recording
    alone = stack is not None and stack.sizes.get("time", 1) == 1
    bundle = general_bundle(
        noise_model,
        pixel_type,
        context_frames=CONTEXTS[0] if alone else CONTEXTS[-1],
        with_maps=_knows_pixels(noise_model, wanted),
    )
    return bundle, f"{SENTENCE}; camera noise {source}"


def _knows_pixels(noise_model: GaussianMixtureNoiseModel, wanted: Wanted) -> bool:
    """Whether it is known which of the calibrated pixels the frames show."""
    calibrated, region = noise_model.fingerprint.roi, wanted.camera.roi
    if noise_model.maps is None:
        return False
    if wanted.recording is not None:
        shape = noise_model.maps.offset_adu.shape
        frame_shape = wanted.recording.frame_shape
        return part_of(calibrated, (shape[0], shape[1]), region, frame_shape) is not None
    return calibrated is not None and calibrated == region


def _general_instead(wanted: Wanted, refusal: InferenceError) -> tuple[Named, list[str]]:
    try:
        bundle, said = general_for(wanted)
    except NoCalibrationError as error:
        raise InferenceError(
            f"{refusal}; or --noise-model with a calibration of the camera, for the general model"
        ) from error
    return bundle.path, [said]


def _with_general(named: Named, wanted: Wanted) -> tuple[Named, list[str]]:
    """Put the bundle of this camera where the general model was named."""
    places = list(named.values()) if isinstance(named, Mapping) else [named]
    if GENERAL not in places:
        _require_use(wanted.noise_model)
        return named, []
    bundle, said = general_for(wanted)
    if not isinstance(named, Mapping):
        return bundle.path, [said]
    return {name: bundle.path if path == GENERAL else path for name, path in named.items()}, [said]


def _serves_all(found: Mapping[str | int, Path], wanted: Wanted) -> bool:
    if EVERY_CHANNEL in found:
        return True
    return wanted.channels is not None and set(wanted.channels) <= set(map(str, found))


def _require_use(noise_model: Path | GaussianMixtureNoiseModel | None) -> None:
    if noise_model is not None:
        raise InferenceError(
            f"--noise-model {_called(noise_model)}: a trained model brings its own; leave it out, "
            "or take the general model with --model general"
        )


class NoCalibrationError(InferenceError):
    """No calibration of a camera is at hand."""


def _calibration(wanted: Wanted) -> tuple[GaussianMixtureNoiseModel, str]:
    """Return a noise model of the camera and where it is from.

    Raises
    ------
    NoCalibrationError
        If there is none.
    """
    if (given := wanted.noise_model) is not None:
        known = load_noise_model(given) if isinstance(given, Path) else given
        known.fingerprint.require_match(wanted.camera, what=f"the noise model {_called(given)}")
        return known, f"from {_called(given)}"
    shelf = Library(wanted.library) if wanted.library else library_near(wanted.near)
    if shelf is not None and wanted.camera.camera is not None:
        for path in _noise_models(shelf):
            if (found := _if_of(path, wanted.camera)) is not None:
                return found, f"from {path}"
    if wanted.recording is None:
        raise NoCalibrationError(
            "--model general: no calibration of this camera is at hand; give --noise-model "
            "(`quietscope calibrate` or `fit-noise` write one)"
        )
    told = bootstrap_noise_model([wanted.recording])
    return told, "told from the recording itself (calibrate the camera to be surer)"


def _called(noise_model: Path | GaussianMixtureNoiseModel) -> str:
    return str(noise_model) if isinstance(noise_model, Path) else "that was given"


def _noise_models(shelf: Library) -> Iterator[Path]:
    """Yield files that may hold noise models: calibrations first, then those of models."""
    calibrations = sorted(shelf.path.glob("*.npz"))
    of_bundles = [
        bundle / NOISE_MODEL for bundle in reversed(shelf.models()) if _is_calibrated(bundle)
    ]
    yield from [*calibrations, *of_bundles][:MOST_NOISE_MODELS]


def _is_calibrated(bundle: Path) -> bool:
    try:
        return read_manifest(bundle).noise_model == "calibrated"
    except BundleError:
        return False


def _if_of(path: Path, camera: CameraFingerprint) -> GaussianMixtureNoiseModel | None:
    """Return the noise model of a file if it is one of this very camera and setting."""
    try:
        model = load_noise_model(path)
    except CalibrationError:
        return None
    theirs = model.fingerprint
    same = theirs.camera is not None and not theirs.differences(camera)
    return model if same and model.source == "calibrated" else None
