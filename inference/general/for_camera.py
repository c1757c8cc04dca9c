"""The general model as an ordinary bundle for one camera.

Owns what is put into the graph for a camera (three constants, and maps where its pixels differ)
and where such bundles are kept: in the user's cache, under a name that follows from everything
that is in them, so that the same camera has the same model, byte by byte. What runs them does not
know that they are any different.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from ...calibration.fingerprint import CameraFingerprint
from ...calibration.gaussian_mixture import GaussianMixtureNoiseModel
from ...calibration.noise_files import save_noise_model
from ...calibration.photon_transfer import PhotonTransfer
from ...calibration.straight_line import Interval
from ...errors import QuietscopeError
from ...storage.atomic_output import OutputError
from ...storage.directory_lock import owned
from ..bundle import (
    MODEL,
    NOISE_MODEL,
    Bundle,
    Manifest,
    PixelType,
    TrainingRecord,
    new_bundle,
    open_bundle,
    seal,
)
from ..errors import InferenceError
from ..graph.inspection import PIXEL_MAPS
from ..runtime.golden_output import EDGE, write_golden_output
from .camera_constants import CameraConstants
from .shipped import CAMERA, CONTEXTS, FOLDER, ShippedManifest, read_shipped, shipped_graph

ALGORITHM = "general"
SENTENCE = "general model: has never seen your specimen"
_ANOTHER_CACHE = (
    "run as a user who may write there"
    if sys.platform in ("win32", "darwin")
    else "set XDG_CACHE_HOME to a folder that you may write to"
)
LEAST_OWN_SHARE = 0.01
"""Of D, that the quietest pixel has, so that there is a logarithm of it."""
LOCK_WAIT_S = 60.0
"""Another program makes the same bundle: a second or two, many megabytes of maps included."""


def general_bundle(
    noise_model: GaussianMixtureNoiseModel,
    pixel_type: str,
    *,
    context_frames: int = CONTEXTS[-1],
    with_maps: bool = True,
    camera: CameraFingerprint | None = None,
    kept_in: Path | None = None,
    shipped: Path = FOLDER,
) -> Bundle:
    """Return the general model for a camera, made where it is not there yet.

    Parameters
    ----------
    noise_model
        Calibrated or bootstrapped.
    pixel_type
        Of the camera: uint8, uint16 or float32.
    context_frames
        Preceding frames that it takes, one of CONTEXTS.
    with_maps
        Take each pixel as its own where the calibration knows them and they differ.
    camera
        To which it belongs; None takes the noise model's.
    kept_in
        The folder in which bundles are kept; None takes the user's cache.
    shipped
        Where the files of the general model lie.

    Raises
    ------
    BundleError
        If a shipped file is damaged.
    InferenceError
        If the bundle cannot be kept anywhere, or the pixels are of another type.
    """
    if pixel_type not in PixelType.__args__:  # type: ignore[attr-defined]
        raise InferenceError(
            f"pixels are {pixel_type}, the general model takes uint8, uint16 or float32; convert "
            "the recording with `quietscope export --pixel-type`"
        )
    manifest = read_shipped(shipped)
    constants = CameraConstants.of(noise_model)
    maps = _maps(noise_model, constants) if with_maps else None
    belongs_to = camera or noise_model.fingerprint
    if maps is not None:
        belongs_to = belongs_to.model_copy(update={"roi": noise_model.fingerprint.roi})
    name = _name(manifest, noise_model, constants, maps, belongs_to, pixel_type, context_frames)
    path = (kept_in or _cache()) / name
    if (kept := _sound(path)) is not None:
        return kept  # without the lock: a cache that is only read serves as well
    try:
        with owned(path, wait_s=LOCK_WAIT_S):
            if (found := _sound(path)) is not None:
                return found
            if path.exists():  # under a name of ours, and of no use in whatever state
                shutil.rmtree(path)
            with new_bundle(path) as staging:
                _fill(staging, noise_model, constants, maps, pixel_type, context_frames, shipped)
                seal(
                    staging,
                    _manifest(
                        manifest, constants, noise_model, belongs_to, pixel_type, context_frames
                    ),
                )
    except (OSError, OutputError) as error:
        raise InferenceError(
            f"{path}: the general model for this camera cannot be kept there ({_reason(error)}); "
            f"make room, or {_ANOTHER_CACHE}"
        ) from error
    return open_bundle(path)


def nominal_camera() -> GaussianMixtureNoiseModel:
    """Return a noise model of no camera in particular: how long a frame takes depends on none."""
    gain, offset, read = 1.0, 100.0, 1.5
    signal = np.array([offset, 65535.0])
    law = PhotonTransfer(
        gain=Interval(gain, gain, gain),
        intercept_adu2=read**2 - gain * offset,
        offset=Interval(offset, offset, offset),
        read_noise=Interval(read, read, read),
        dark_variance_adu2=read**2,
        saturation_adu=65535.0,
    )
    one = np.ones((1, 1))
    return GaussianMixtureNoiseModel(
        signal, law.variance(signal), signal[:1], one, 0 * one, one, law
    )


def is_general(bundle: Bundle) -> bool:
    """Whether a bundle is the general model of some camera."""
    return bundle.manifest.algorithm == ALGORITHM


def _cache() -> Path:
    from platformdirs import user_cache_path

    return user_cache_path("quietscope", appauthor=False) / "general"


def _reason(error: OSError | OutputError) -> str:
    return str(error.__cause__ or error) if isinstance(error, OutputError) else str(error)


def _sound(path: Path) -> Bundle | None:
    """Return the bundle that is kept; None where it is not there or no longer whole."""
    try:
        return open_bundle(path)
    except QuietscopeError:
        return None


def _name(
    manifest: ShippedManifest,
    noise_model: GaussianMixtureNoiseModel,
    constants: CameraConstants,
    maps: NDArray[np.float32] | None,
    camera: CameraFingerprint,
    pixel_type: str,
    context_frames: int,
) -> str:
    """Return a name that follows from everything that is in the bundle."""
    content = hashlib.sha256()
    content.update(json.dumps([manifest.model_dump(), camera.model_dump(mode="json")]).encode())
    for table in (
        constants.as_input(),
        noise_model.signal_adu,
        noise_model.variance_adu2,
        noise_model.shape_weights,
        noise_model.shape_variances,
        np.zeros(0) if maps is None else maps,
    ):
        content.update(np.ascontiguousarray(table).tobytes())
    return f"{content.hexdigest()[:16]}-{pixel_type}-{context_frames}"


def _maps(
    noise_model: GaussianMixtureNoiseModel, constants: CameraConstants
) -> NDArray[np.float32] | None:
    """Return the maps of the calibrated region, (3, Y, X), in what is dark to the constants.

    These may take a part of the noise without light for light. A pixel has of its own, beside
    that light, as much more than D as it has more than the law: D + v - d.
    """
    maps, law = noise_model.maps, noise_model.photon_transfer
    if maps is None or law.offset_adu is None or not maps.uneven:
        return None
    dark = noise_model.least_variance_adu2
    found = maps.correction(
        offset_adu=law.offset_adu, dark_variance_adu2=dark, range_adu=law.saturation_adu
    )
    more = dark * np.expm1(found[2].astype(np.float64)) / constants.dark_variance_adu2()
    found[2] = np.log1p(np.maximum(more, LEAST_OWN_SHARE - 1))
    return found


def _fill(
    staging: Path,
    noise_model: GaussianMixtureNoiseModel,
    constants: CameraConstants,
    maps: NDArray[np.float32] | None,
    pixel_type: str,
    context_frames: int,
    shipped: Path,
) -> None:
    """Write the graph, the noise model and the answer that every machine has to give."""
    import onnx

    model = shipped_graph(context_frames, with_maps=maps is not None, folder=shipped)
    graph = model.graph
    constant = onnx.numpy_helper.from_array(constants.as_input(), CAMERA)
    graph.initializer.append(constant)
    graph.input.remove(next(value for value in graph.input if value.name == CAMERA))
    pixels = onnx.helper.np_dtype_to_tensor_dtype(np.dtype(pixel_type))
    graph.input[0].type.tensor_type.elem_type = pixels
    if maps is not None:
        graph.initializer.append(onnx.numpy_helper.from_array(maps[np.newaxis], PIXEL_MAPS))
    onnx.save(model, str(staging / MODEL))
    save_noise_model(noise_model, staging / NOISE_MODEL)
    piece = None if maps is None else np.ascontiguousarray(maps[np.newaxis, :, :EDGE, :EDGE])
    shape = (EDGE, EDGE) if piece is None else (piece.shape[2], piece.shape[3])
    write_golden_output(staging, _seen(constants, pixel_type, (1 + context_frames, *shape)), piece)


def _seen(
    constants: CameraConstants, pixel_type: str, shape: tuple[int, int, int]
) -> NDArray[Any]:
    """Return frames of a made-up scene as this camera sees it: a bright spot on a dim field."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[: shape[1], : shape[2]] - EDGE / 2
    signal = 3 + 40 * np.exp(-(y**2 + x**2) / 200)
    electrons = rng.poisson(signal, shape) + rng.normal(0, constants.read_variance_e2**0.5, shape)
    pixels = constants.offset_adu + constants.gain_adu_per_e * electrons
    if pixel_type == "float32":
        return pixels.astype(np.float32)
    return np.clip(np.rint(pixels), 0, np.iinfo(pixel_type).max).astype(pixel_type)


def _manifest(
    shipped: ShippedManifest,
    constants: CameraConstants,
    noise_model: GaussianMixtureNoiseModel,
    camera: CameraFingerprint,
    pixel_type: str,
    context_frames: int,
) -> Manifest:
    return Manifest(
        algorithm=ALGORITHM,
        preset="live",
        context_frames=context_frames,
        pixel_type=cast(PixelType, pixel_type),
        camera=camera,
        noise_model=noise_model.source,
        training=TrainingRecord(
            stacks=(),
            steps=shipped.steps,
            seconds=shipped.seconds,
            seed=shipped.seed,
            parameters=shipped.parameters,
            validation_loss=None,
            options={"recipe": shipped.recipe, "general_sha256": shipped.identity},
        ),
        figures={
            "offset_adu": constants.offset_adu,
            "gain_adu_per_e": constants.gain_adu_per_e,
            "read_variance_e2": constants.read_variance_e2,
        },
    )
