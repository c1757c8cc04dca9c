"""Two models of a library side by side, for a person.

Owns which runs they are compared on, the words and the page. What is measured is in `comparison`.
`compare_models` returns plain data, for whoever shows it otherwise.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ...calibration.noise_files import load_noise_model
from ...inference.bundle import Bundle, open_bundle
from ...inference.errors import InferenceError
from ...inference.library import Library
from ...reporting.html_report import Page
from ...storage.stack import Stack
from . import run_audit
from .comparison import RunScore, compare
from .gate import Interval, interval
from .pictures import side_by_side
from .slots import Slot, stacks_of

MOST_RUNS = 8
"""The newest that both models take."""


@dataclass(frozen=True, slots=True, eq=False)
class ModelComparison:
    """Two models on the same held-out frames.

    Attributes
    ----------
    models
        A and B.
    scores
        Of each run; A is what `RunScore` calls the candidate, B the model in use.
    gain
        By what share the squared error of A is less than that of B, over all runs.
    stacks
        The runs.
    """

    models: tuple[Bundle, Bundle]
    scores: tuple[RunScore, ...]
    gain: Interval
    stacks: tuple[Stack, ...]

    def better(self, score: RunScore) -> str | None:
        """Return which of them is better on a run, None if that is chance."""
        if abs(score.gain) <= score.least_gain:
            return None
        return "A" if score.gain > 0 else "B"

    def sentence(self) -> str:
        """Return the outcome in words."""
        runs = f"{len(self.scores)} run{'s' if len(self.scores) > 1 else ''}"
        gain = self.gain
        if gain.low > 0 or gain.high < 0:
            first, second = ("A", "B") if gain.gain > 0 else ("B", "A")
            than = "less" if first == "A" else "more"
            low, high = sorted((abs(gain.low), abs(gain.high)))
            return (
                f"{first} is better than {second}: the squared error of A is {than} by "
                f"{abs(gain.gain):.1%} ({low:.1%} to {high:.1%}) on {runs}"
            )
        return (
            f"neither is better: the squared errors differ by {gain.gain:+.1%} "
            f"({gain.low:+.1%} to {gain.high:+.1%}) on {runs}, which may be chance"
        )

    def result(self) -> dict[str, Any]:
        """Return the JSON object of the command."""
        return {
            "a": str(self.models[0].path),
            "b": str(self.models[1].path),
            "relative_gain": self.gain.gain,
            "relative_gain_low": self.gain.low,
            "relative_gain_high": self.gain.high,
            "runs": [self._run(score) for score in self.scores],
            "sentence": self.sentence(),
        }

    def _run(self, score: RunScore) -> dict[str, Any]:
        a, b, raw = (float(mean) for mean in score.means)
        return {
            "run": score.path,
            "frames": score.frames,
            "mse_a_adu2": a,
            "mse_b_adu2": b,
            "mse_raw_adu2": raw,
            "least_difference_adu2": score.least_gain,
            "better": self.better(score),
            **{
                f"{name}_{which}": value
                for number, which in enumerate("ab")
                for name, value in measures_of(score, number).items()
            },
        }


def measures_of(score: RunScore, number: int) -> dict[str, float | None]:
    """Return how far A (0) or B (1) can be believed on a run, by name.

    Raises
    ------
    ValueError
        If nothing but errors was measured.
    """
    if score.measures is None:
        raise ValueError(f"{score.path}: nothing but errors was measured")
    measures = score.measures[number]
    return {
        "z": score.z(number),
        "worst_bias": float(np.abs(measures.bias.mean(axis=0)).max()),
        "residual_correlation": float(measures.correlation.mean()),
        "variance_explained": float(measures.explained.mean()),
        "ms_per_frame": measures.ms_per_frame,
    }


def compare_models(shelf: Library, a: Path, b: Path) -> ModelComparison:
    """Compare two bundles on the newest runs of a library that both take.

    Raises
    ------
    QuietscopeError
        If one cannot be opened, or no run fits both.
    """
    models = open_bundle(a), open_bundle(b)
    channels = {model.manifest.channel for model in models}
    if len(channels) > 1:
        named = " and ".join(sorted(str(channel) for channel in channels))
        raise InferenceError(f"the models are of the channels {named}; compare two of one channel")
    stacks = _runs_of_both(shelf, models)
    calibrated = next(
        (
            load_noise_model(model.calibration_path)
            for model in models
            if model.calibration_path is not None
        ),
        None,
    )
    scores = compare(
        *models,
        stacks,
        partial(run_audit.yardstick, calibrated=calibrated, seed=0),
        channel=models[0].manifest.channel,
    )
    return ModelComparison(models, tuple(scores), interval(scores), tuple(stacks))


def _runs_of_both(shelf: Library, models: tuple[Bundle, Bundle]) -> list[Stack]:
    first, second = (model.manifest for model in models)
    other = Slot(second.channel, second.camera)
    types = {first.pixel_type, second.pixel_type}
    others = tuple(dict.fromkeys([*first.other_channels, *second.other_channels]))

    def fit(whole: Stack, own: Stack) -> bool:
        return other.holds(whole) and types == {str(whole.dtype)} and not run_audit.why_unfit(own)

    stacks = stacks_of(shelf, Slot(first.channel, first.camera), others, fit, MOST_RUNS)
    if not stacks:
        raise InferenceError(
            f"{shelf.path}: no run here fits both models (camera, setting, channel, pixel type); "
            "record one, or compare models of one camera"
        )
    return stacks


def write_page(found: ModelComparison, path: Path) -> None:
    """Write the page: the table, the figures and pictures."""
    page = Page("Two models on the same held-out frames", found.sentence())
    a, b = (model.path.name for model in found.models)
    page.text(f"A is {a}, B is {b}. No frame shown or counted here was trained on by either.")
    page.heading("Squared error")
    page.table(
        ("run", "frames", "A, ADU²", "B, ADU²", "as recorded, ADU²", "better"),
        [
            (
                Path(score.path).parent.name,
                str(score.frames),
                *(f"{mean:.4g}" for mean in score.means),
                found.better(score) or "neither, beyond chance",
            )
            for score in found.scores
        ],
    )
    page.heading("Whether they can be believed")
    page.table(
        ("run", "model", "error over what it states", "worst bias, of the noise",
         "correlation of what it removes, beyond the noise's", "ms per frame"),
        [
            (Path(score.path).parent.name, which, *_shown_measures(score, number))
            for score in found.scores
            for number, which in enumerate("AB")
        ],
    )  # fmt: skip
    page.heading("Pictures")
    for stack in found.stacks:
        page.figure(
            side_by_side(
                stack,
                found.models[0].manifest.channel,
                [("A", found.models[0]), ("B", found.models[1])],
            ),
            f"{Path(stack.path).parent.name}: the same piece of a held-out frame.",
        )
    page.write(path)


def _shown_measures(score: RunScore, number: int) -> tuple[str, ...]:
    measures = measures_of(score, number)
    z = measures["z"]
    return (
        "too small to measure" if z is None else f"{z:.2f}",
        f"{measures['worst_bias']:.1%}",
        f"{measures['residual_correlation']:.3f}",
        f"{measures['ms_per_frame']:.0f}",
    )
