"""A small answer stored with the model, so that every machine can prove it computes the same.

Owns the file `golden.npz` of a bundle: how it is written at export and how it is checked when a
denoiser is built. The trainer's processor, another provider, a reduced precision and a broken
driver all have to give this answer.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...calibration.bounded_npz import read_npz
from ...calibration.errors import CalibrationError
from ..bundle import GOLDEN_OUTPUT, MODEL
from ..errors import BundleError, ProviderError, unusable_model
from ..graph.inspection import INPUT, OUTPUTS, PIXEL_MAPS, read_contract
from ..graph.precision import Precision
from .providers import RunningSession, open_session

if TYPE_CHECKING:
    from ..bundle import Bundle

EDGE = 96
"""Pixels; large enough for every layer to see more than its border."""

LARGEST_DIFFERENCE: dict[Precision, float] = {"fp32": 2e-3, "fp16": 2e-2}
"""Root-mean-square difference, as a share of the scatter of the observation.

GPUs round float32 products to 10 bits (TF32), which costs up to 1e-3.
"""


def write_golden_output(
    staging: Path, observations: NDArray[Any], pixel_maps: NDArray[np.float32] | None = None
) -> None:
    """Run the model in `staging` on a piece of a real frame and store the answer beside it.

    To be called between the export of `model.onnx`, which has been compared with PyTorch, and
    `seal`.

    Parameters
    ----------
    staging
        The directory that becomes the bundle.
    observations
        (1 + T, Y, X) in the camera's pixel type, newest first.
    pixel_maps
        (1, 3, Y, X) of these frames, for models that know every pixel of the camera.
    """
    feeds = {INPUT: np.ascontiguousarray(_middle(observations[np.newaxis]))}
    if pixel_maps is not None:
        feeds[PIXEL_MAPS] = np.ascontiguousarray(_middle(pixel_maps))
    contract = read_contract(staging / MODEL)
    running = open_session(
        staging / MODEL,
        provider="cpu",
        free_dimensions=contract.overrides(1, feeds[INPUT].shape[2:]),
    )
    answer = np.stack(running.session.run(list(OUTPUTS), feeds))[:, 0, 0]
    _save(staging, {name: piece[0] for name, piece in feeds.items()}, answer)


def save_golden_output(
    staging: Path, observations: NDArray[Any], answer: NDArray[np.float32]
) -> None:
    """Store an answer that is known, of a model made elsewhere.

    Parameters
    ----------
    staging
        The directory that becomes the bundle.
    observations
        (1 + T, Y, X) in the camera's pixel type, newest first.
    answer
        (2, Y, X): estimate and standard deviation.
    """
    _save(staging, {INPUT: observations}, answer)


def _save(staging: Path, feeds: dict[str, NDArray[Any]], answer: NDArray[np.float32]) -> None:
    arrays: dict[str, Any] = {**feeds, **dict(zip(OUTPUTS, answer, strict=True))}
    np.savez_compressed(staging / GOLDEN_OUTPUT, **arrays)


def _middle(observations: NDArray[Any]) -> NDArray[Any]:
    starts = [max(0, (size - EDGE) // 2) for size in observations.shape[2:]]
    rows, columns = (slice(start, start + EDGE) for start in starts)
    return observations[:, :, rows, columns]


class GoldenOutput:
    """The stored answer of a bundle.

    Attributes
    ----------
    observations
        (1 + T, Y, X).
    feeds
        What the session is given: the observations, and pixel maps where the model has them.
    expected
        (2, Y, X) float32: estimate and standard deviation, ADU.
    """

    def __init__(self, bundle: Bundle) -> None:
        try:
            stored = read_npz(bundle.path / GOLDEN_OUTPUT, (INPUT, PIXEL_MAPS, *OUTPUTS))
            self.feeds = {
                name: stored[name][np.newaxis] for name in (INPUT, PIXEL_MAPS) if name in stored
            }
            self.observations = self.feeds[INPUT][0]
            self.expected = np.stack([stored[name] for name in OUTPUTS]).astype(np.float32)
            _require_alike(self.observations, self.expected)
        except (CalibrationError, ValueError, KeyError) as error:
            raise BundleError(
                f"{bundle.path}: its {GOLDEN_OUTPUT} cannot be read ({type(error).__name__}); "
                "restore the bundle or train the model anew"
            ) from error

    @property
    def frame_shape(self) -> tuple[int, int]:
        """(Y, X) of the stored piece."""
        return int(self.observations.shape[1]), int(self.observations.shape[2])

    def require(self, running: RunningSession, bundle: Bundle, precision: Precision) -> float:
        """Run the piece in a session built for its shape and compare.

        Returns
        -------
        float
            The difference found, as a share of the scatter of the observation.

        Raises
        ------
        ProviderError
            If the answer differs by more than rounding can.
        """
        try:
            found = np.stack(running.session.run(list(OUTPUTS), self.feeds))[:, 0, 0]
        except Exception as error:  # ONNX Runtime raises its own types, one per status code
            raise unusable_model(bundle.model_path, error) from error
        scatter = max(float(self.observations[0].std()), 1.0)
        difference = float(np.sqrt(((found - self.expected) ** 2).mean())) / scatter
        if not difference <= LARGEST_DIFFERENCE[precision]:
            raise ProviderError(
                f"{running.provider} on {running.device} does not compute what the trainer "
                f"computed with {bundle.path} (differs by {difference:.1e} of the frame's scatter "
                f"in {precision}, expected at most {LARGEST_DIFFERENCE[precision]:.0e}); update "
                "its driver, or pass --provider cpu --precision fp32"
            )
        return difference


def _require_alike(observations: NDArray[Any], expected: NDArray[np.float32]) -> None:
    shape = observations.shape
    if len(shape) != 3 or 0 in shape or expected.shape != (len(OUTPUTS), *shape[1:]):
        raise ValueError(f"observations {shape} and an answer {expected.shape}")
