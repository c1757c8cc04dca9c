"""The bundle of a model that was made elsewhere.

Owns the proof that it does here what it did there, what units its estimate is in, and what the
manifest says of it. How the network is read is the business of `from_package` and
`from_careamics`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from ...calibration.fingerprint import CameraFingerprint
from ...calibration.gaussian_mixture import GaussianMixtureNoiseModel
from ...calibration.noise_files import save_noise_model
from ...errors import one_line
from ...inference.bundle import (
    MODEL,
    NOISE_MODEL,
    Bundle,
    Manifest,
    PixelType,
    TrainingRecord,
    new_bundle,
    seal,
)
from ...inference.graph.inspection import INPUT, OUTPUTS, read_contract
from ...inference.runtime.golden_output import save_golden_output
from ...inference.runtime.onnx_denoiser import OnnxDenoiser
from ..errors import ExportError, TrainingError
from .foreign_network import ForeignNetwork, graph_of

ALGORITHM = "imported"
LARGEST_DIFFERENCE = 1e-3
"""Between the test tensors and what is computed here, as a share of their scatter."""
SCALES_ALIKE = 2.0
"""The estimate's contrast may be this many times the camera's, or the camera's the estimate's."""


@dataclass(frozen=True, slots=True)
class Example:
    """What the model was given by its maker, and what it gave.

    Attributes
    ----------
    observations
        (1 + T, Y, X), in the camera's units.
    estimate
        (Y, X), in those of the model; None where the maker left none.
    """

    observations: NDArray[Any]
    estimate: NDArray[np.float32] | None


@dataclass(frozen=True, slots=True)
class Import:
    """A model that was read, before it is a bundle.

    Attributes
    ----------
    source
        What the user gave.
    network
        With its scaling.
    example
        From its maker.
    facts
        Who made it, where it is from, its hash; for the manifest.
    """

    source: Path
    network: ForeignNetwork
    example: Example
    facts: dict[str, str | int | float | bool | None]
    in_camera_units: bool = False
    """Whether that is known; otherwise the example has to show it."""


def write_import(
    found: Import,
    out: Path,
    *,
    noise_model: GaussianMixtureNoiseModel | None = None,
    pixel_type: str | None = None,
    undo_scaling: bool = False,
    overwrite: bool = False,
    on_remark: Callable[[str], object] = lambda _: None,
) -> Bundle:
    """Write the bundle of an imported model.

    Parameters
    ----------
    found
        The model.
    out
        The bundle's directory.
    noise_model
        Of the camera; without one the noise is not known, and nothing is said about it later.
    pixel_type
        Of the camera; None takes uint16 where the example is of whole numbers.
    undo_scaling
        Bring the estimate back to the camera's units, where its maker has not.
    overwrite
        Replace what stands at `out`.
    on_remark
        Called with sentences for the user.

    Raises
    ------
    TrainingError
        If the model does not give what its maker says, or in other units than the camera's.
    OutputError
        If `out` exists or cannot be written.
    """
    if undo_scaling and found.in_camera_units:
        raise TrainingError(
            f"{found.source}: its estimate is in the camera's units already, and undoing its "
            "scaling would take it out of them; leave out --undo-scaling"
        )
    pixels = pixel_type or _pixel_type_of(found.example.observations)
    with new_bundle(out, overwrite=overwrite) as staging:
        difference = _proven(found, staging / MODEL)
        network = found.network.undone() if undo_scaling else found.network
        given = np.asarray(found.example.observations, np.float32)
        estimate = _run(staging / MODEL, graph_of(network, "float32"), given)
        if not found.in_camera_units:
            _require_camera_units(found.source, given[0], estimate[0], undone=undo_scaling)
        graph = graph_of(network, pixels)
        seen = _as_pixels(given, pixels)
        if not np.array_equal(seen, given):
            estimate = _run(staging / MODEL, graph, seen)
            on_remark(
                f"its example was rounded to {pixels}; --pixel-type float32 keeps it as it is"
            )
        _save(staging / MODEL, graph)
        save_golden_output(staging, seen, estimate)
        if noise_model is not None:
            save_noise_model(noise_model, staging / NOISE_MODEL)
        manifest = seal(staging, _manifest(found, network, noise_model, pixels, difference))
        bundle = Bundle(out, manifest)
        with OnnxDenoiser(Bundle(staging, manifest), seen.shape[1:], provider="cpu"):
            pass  # it opens, and gives the golden output
    return bundle


def _proven(found: Import, path: Path) -> float | None:
    """Return how far the estimate is from its maker's, as a share of its scatter."""
    expected = found.example.estimate
    if expected is None:
        return None
    given = np.asarray(found.example.observations, np.float32)
    (estimate, _) = _run(path, graph_of(found.network, "float32"), given)
    if estimate.shape != expected.shape:
        raise TrainingError(
            f"{found.source}: gives an image of {estimate.shape}, its maker one of "
            f"{expected.shape}; import a model whose estimate is as large as its frame"
        )
    scatter = float(expected.std()) or 1.0
    difference = float(np.abs(estimate - expected).max()) / scatter
    if not difference <= LARGEST_DIFFERENCE:
        raise TrainingError(
            f"{found.source}: gives other values here than its own test tensors say (differs by "
            f"{difference:.1e} of their scatter, expected at most {LARGEST_DIFFERENCE:.0e}); ask "
            "its authors"
        )
    return difference


def _run(path: Path, graph: Any, observations: NDArray[Any]) -> NDArray[np.float32]:
    """Return estimate and uncertainty, (2, Y, X), of a graph that is saved at `path`."""
    import onnxruntime

    _save(path, graph)
    read_contract(path)  # bounded, and within our contract, before it is run
    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(
            str(path), settings, providers=["CPUExecutionProvider"]
        )
        outputs = session.run(list(OUTPUTS), {INPUT: observations[np.newaxis]})
        return np.stack([output[0, 0] for output in outputs])
    except Exception as error:  # ONNX Runtime raises its own types, one per status code
        raise ExportError(
            f"the network does not run on its own example ({one_line(error)[:200]}); "
            "ask its authors for one that does"
        ) from error


def _save(path: Path, graph: Any) -> None:
    import onnx

    onnx.save(graph, str(path))


def _require_camera_units(
    source: Path, frame: NDArray[np.float32], estimate: NDArray[np.float32], *, undone: bool
) -> None:
    """Refuse an estimate in other units than the frame's."""
    scatter = float(estimate.std())
    contrast = (
        float(((frame - frame.mean()) * (estimate - estimate.mean())).mean()) / scatter**2
        if scatter > 0
        else 0.0
    )
    shift = abs(float(frame.mean()) - float(estimate.mean()))
    alike = 1 / SCALES_ALIKE <= contrast <= SCALES_ALIKE and shift <= float(frame.std())
    if not alike:
        what_to_do = (
            "its scaling, undone, does not lead there: ask its authors in which units it is"
            if undone
            else "pass --undo-scaling, which takes back what it does to the frame first"
        )
        raise TrainingError(
            f"{source}: its estimate is not in the camera's units (mean {estimate.mean():.3g} for "
            f"frames of mean {frame.mean():.3g}); {what_to_do}"
        )


def _pixel_type_of(observations: NDArray[Any]) -> str:
    """Return the type of a camera that could have seen this."""
    if observations.dtype in (np.uint8, np.uint16):
        return str(observations.dtype)
    whole = np.array_equal(observations, np.rint(observations))
    fits = observations.min() >= 0 and observations.max() < 2**16
    return "uint16" if whole and fits else "float32"


def _as_pixels(observations: NDArray[np.float32], pixel_type: str) -> NDArray[Any]:
    if pixel_type == "float32":
        return observations
    limits = np.iinfo(pixel_type)
    return np.clip(np.rint(observations), limits.min, limits.max).astype(pixel_type)


def _manifest(
    found: Import,
    network: ForeignNetwork,
    noise_model: GaussianMixtureNoiseModel | None,
    pixel_type: str,
    difference: float | None,
) -> Manifest:
    parameters = sum(
        int(np.prod(weight.dims)) for weight in network.model.graph.initializer if weight.dims
    )
    return Manifest(
        algorithm=ALGORITHM,
        preset="live",
        context_frames=network.planes - 1,
        pixel_type=cast(PixelType, pixel_type),
        camera=CameraFingerprint() if noise_model is None else noise_model.fingerprint,
        noise_model="unknown" if noise_model is None else noise_model.source,
        states_uncertainty=network.states_uncertainty,
        training=TrainingRecord(
            stacks=(),
            steps=0,
            seconds=0.0,
            seed=0,
            parameters=parameters,
            validation_loss=None,
            options=found.facts,
        ),
        figures={"test_tensor_max_relative_error": difference},
    )
