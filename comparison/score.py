"""What one denoiser is worth on the frames that are scored.

Owns the figures of a row and which frame is shown. Scores are those of `evaluate` and of the split
of noise; nothing is defined here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..calibration.gaussian_mixture import GaussianMixtureNoiseModel
from ..inference.denoiser import Denoiser
from ..inference.evaluation.blind_scoring import BlindScoring
from ..inference.evaluation.metrics import spectral_flatness
from ..inference.evaluation.references import References, references
from ..inference.evaluation.scoring import Scoring
from ..inference.runtime.camera_pixels import CameraPixels
from ..inference.trust import NoiseVariance
from ..storage.stack import Stack
from .micro_ssim import micro_ssim

FloatImage = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Ruler:
    """By what all contestants are measured: the same frames, truth and noise.

    Attributes
    ----------
    stack
        The whole recording, of one channel: frames before those that are scored are read from it.
    scored
        Indices of the frames.
    shown
        Which of them is kept as a picture.
    truth, static
        As of `evaluate`; neither where the truth is not known.
    noise_model
        Of the camera.
    """

    stack: Stack
    scored: tuple[int, ...]
    shown: int
    truth: Stack | None
    static: bool
    noise_model: GaussianMixtureNoiseModel

    @property
    def knows_truth(self) -> bool:
        """Whether estimates can be compared with the signal."""
        return self.truth is not None or self.static


@dataclass(frozen=True, slots=True, eq=False)
class Picture:
    """The frame that is shown, ADU.

    Attributes
    ----------
    estimate
        (2, Y, X): estimate and standard deviation.
    raw, truth
        (Y, X), as the denoiser was given it; the truth is None where it is not known.
    """

    estimate: FloatImage
    raw: FloatImage
    truth: FloatImage | None


@dataclass(frozen=True, slots=True, eq=False)
class Measured:
    """The figures of one contestant, and one of its pictures.

    Attributes
    ----------
    figures
        By name, means over the frames; None for what does not exist for it. MicroSSIM and
        MicroMS3IM are of the frame that is shown.
    per_frame
        The scores of each frame, by name.
    picture
        Of the frame that is shown.
    remarks
        On the truth.
    coverage
        Share of the pixels found within what is stated, by the percent stated; None where nothing
        is stated, or no truth known.
    """

    figures: dict[str, float | None]
    per_frame: dict[str, list[float]]
    picture: Picture
    remarks: tuple[str, ...]
    coverage: dict[str, float] | None


def measured(
    ruler: Ruler, denoiser: Denoiser, on_frame: Callable[[int, int], None] | None = None
) -> Measured:
    """Score a denoiser on every frame of a comparison.

    Parameters
    ----------
    ruler
        By what.
    denoiser
        Of the stack's frame shape.
    on_frame
        Called with (frames done, frames in total).
    """
    pixels = CameraPixels.of(denoiser, ruler.noise_model)
    noise_variance = NoiseVariance(ruler.noise_model)
    truths = (
        references(
            ruler.stack,
            ruler.truth,
            static=ruler.static,
            pixels=pixels,
            noise_variance=noise_variance,
        )
        if ruler.knows_truth
        else None
    )
    scoring = Scoring(ruler.stack, denoiser, truths, noise_variance, pixels, with_blurs=False)
    blind = BlindScoring(ruler.noise_model, pixels)
    split, flatness, kept = [], [], {}
    for done, index in enumerate(ruler.scored, start=1):
        scoring.add(index)
        if (found := spectral_flatness(scoring.residual)) is not None:
            flatness.append(found)
        if index == ruler.shown:
            kept[index] = _picture(scoring, truths, index)
        split.append(blind.score(denoiser, scoring.observations(index), index))
        if on_frame is not None:
            on_frame(done, len(ruler.scored))
    picture = kept[ruler.shown]
    per_frame = _columns(scoring.scores) | _columns(split)
    figures: dict[str, float | None] = {
        name: float(np.mean(values)) for name, values in per_frame.items()
    }
    if picture.truth is not None:
        figures |= micro_ssim(picture.estimate[0], picture.truth)
    return Measured(
        figures=figures
        | {
            "variance_ratio": scoring.variance_ratio,
            "residual_correlation": scoring.residual_correlation,
            "residual_flatness": float(np.mean(flatness)) if flatness else None,
            "uncertainty_z_std": scoring.uncertainty_z_std,
            "ms_per_frame": scoring.ms_per_frame,
        },
        per_frame=per_frame,
        picture=picture,
        remarks=tuple(truths.remarks()) if truths is not None else (),
        coverage=scoring.coverage.result(),
    )


def _picture(scoring: Scoring, truths: References | None, index: int) -> Picture:
    raw = scoring.residual + scoring.estimate[0]
    truth = None if truths is None else truths.of(index, scoring.preceding_frames).signal
    return Picture(
        estimate=scoring.estimate.copy(),
        raw=raw.astype(np.float32),
        truth=None if truth is None else truth.astype(np.float32),
    )


def _columns(rows: Sequence[Any]) -> dict[str, list[float]]:
    """Return the fields of frames' scores as lists, one value per frame."""
    plain = [asdict(row) for row in rows]
    names = [name for name in (plain[0] if plain else {}) if name != "index"]
    return {name: [row[name] for row in plain] for name in names}
