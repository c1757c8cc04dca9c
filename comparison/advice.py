"""Which method to take, in a sentence, and what that is based on.

Owns the ranking and the words. Only differences count that are larger than their own spread over
the frames; among equals the one that asks for least is advised: no training, fewer frames, less
time. Measures nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..inspection.channel_figures import MUCH_CORRELATED, MUCH_MOVED
from .contestants import RAW
from .rows import Row


@dataclass(frozen=True, slots=True)
class Unit:
    """In what differences are counted.

    Attributes
    ----------
    name
        As it is written after a number.
    least
        A smaller difference is none: another seed or another minute of training changes as much.
    plain
        Where there are too few frames to tell how differences scatter, this much is no chance.
    """

    name: str
    least: float
    plain: float


DECIBEL = Unit("dB", 0.1, 1.0)
OF_NOISE = Unit("% of the raw frames' noise", 0.2, 2.0)
"""Without truth. A split of noise gives errors up to a constant that is the same for all: their
differences mean something, their ratios do not."""
FEWEST_FRAMES = 3
"""Of fewer frames no spread can be told."""
FOR_SHARED = ("r2r", "structn2v")
"""Algorithms for noise that neighbours share, as `train` chooses and `inspect` advises."""


@dataclass(frozen=True, slots=True)
class Scene:
    """What was found out about the recording.

    Attributes
    ----------
    noise_correlation_xy
        Of the noise of right and lower neighbours; None where it cannot be told.
    moved_share
        Variance between parts of the recording, over that of the noise; None for a single frame.
    """

    noise_correlation_xy: tuple[float, float] | None = None
    moved_share: float | None = None

    @property
    def noise_is_correlated(self) -> bool:
        """Whether neighbours share noise."""
        found = self.noise_correlation_xy
        return found is not None and max(map(abs, found)) > MUCH_CORRELATED

    @property
    def moves(self) -> bool:
        """Whether frames that came before may mislead."""
        return self.moved_share is not None and self.moved_share > MUCH_MOVED


@dataclass(frozen=True, slots=True)
class Advice:
    """What a person should take.

    Attributes
    ----------
    ranking
        Names of the rows, best first.
    chosen
        The one that is advised; None if nothing beats the raw frames.
    sentence
        The advice.
    based_on
        What it rests on, and what it does not say.
    """

    ranking: tuple[str, ...]
    chosen: str | None
    sentence: str
    based_on: str


@dataclass(frozen=True, slots=True, eq=False)
class _Standing:
    row: Row
    scores: NDArray[np.float64]
    """One per frame, higher is better."""

    @property
    def mean(self) -> float:
        return float(self.scores.mean())

    @property
    def cost(self) -> tuple[int, int, float]:
        """What it asks for: training, frames, time."""
        kind = self.row.contestant.kind
        return (
            kind != "filter",
            frames_of(self.row),
            self.row.figures.get("ms_per_frame") or 0.0,
        )


def frames_of(row: Row) -> int:
    """Return how many frames a contestant looks at."""
    return int(row.facts.get("frames") or row.contestant.frames or 1)


def advice(rows: Sequence[Row], *, knows_truth: bool, frames: int, scene: Scene) -> Advice:
    """Rank rows and say which one to take.

    Parameters
    ----------
    rows
        With figures.
    knows_truth
        Whether they were scored against the signal.
    frames
        How many were scored.
    scene
        What was found out about the recording.
    """
    unit = DECIBEL if knows_truth else OF_NOISE
    standings = sorted(_standings(rows, knows_truth), key=lambda one: -one.mean)
    ranking = tuple(one.row.name for one in standings)
    based_on = _based_on(rows, knows_truth, frames, scene)
    best = standings[0]
    equals = [one for one in standings if not told_apart(best.scores, one.scores, unit)]
    chosen = min(equals, key=lambda one: one.cost)
    if any(one.row.contestant.method == RAW and frames_of(one.row) == 1 for one in equals):
        return Advice(
            ranking,
            None,
            "Take none of these: nothing is better than the raw frames by more than it scatters "
            "from frame to frame.",
            based_on,
        )
    sentences = [_first_sentence(chosen, best, standings, unit)]
    sentences += _more(chosen, standings, scene, unit)
    return Advice(ranking, chosen.row.name, " ".join(sentences), based_on)


def told_apart(better: NDArray[np.float64], worse: NDArray[np.float64], unit: Unit) -> bool:
    """Whether the difference of two rows of scores is larger than its spread over the frames."""
    difference = better - worse
    mean = float(difference.mean())
    if len(difference) < FEWEST_FRAMES:
        return mean > unit.plain
    return mean > max(unit.least, float(difference.std(ddof=1)))


def _standings(rows: Sequence[Row], knows_truth: bool) -> list[_Standing]:
    if knows_truth:
        return [_Standing(row, np.array(row.per_frame["psnr_db"])) for row in rows]
    noise = max(float(np.mean(rows[0].per_frame["held_out_mse_raw_adu2"])), 1e-12)
    return [
        _Standing(row, -100 * np.array(row.per_frame["held_out_mse_adu2"]) / noise) for row in rows
    ]


def _first_sentence(
    chosen: _Standing, best: _Standing, standings: Sequence[_Standing], unit: Unit
) -> str:
    name = chosen.row.name
    if chosen is not best:
        difference = best.scores - chosen.scores
        return (
            f"Take {name}: {best.row.name} is nominally best, but by {_said(difference, unit)}, "
            f"which says nothing, and {name} asks for less."
        )
    worse = [one for one in standings if told_apart(best.scores, one.scores, unit)]
    equal = [one.row.name for one in standings if one is not best and one not in worse]
    sentence = f"Take {name}"
    if worse:
        difference = best.scores - worse[0].scores
        sentence += f": it is {_said(difference, unit)} better than {worse[0].row.name}"
        sentence += ", the next that can be told from it" if equal else ", the next"
    if equal:
        sentence += f" ({', '.join(equal)} cannot be told from it, and ask for more)"
    return sentence + "."


def _said(difference: NDArray[np.float64], unit: Unit) -> str:
    mean = float(difference.mean())
    if len(difference) < FEWEST_FRAMES:
        return f"{mean:.2f} {unit.name}"
    return f"{mean:.2f} ± {float(difference.std(ddof=1)):.2f} {unit.name}"


def _more(
    chosen: _Standing, standings: Sequence[_Standing], scene: Scene, unit: Unit
) -> list[str]:
    """Return what else decides, one sentence each."""
    said = []
    single = [one for one in standings if frames_of(one.row) == 1]
    if frames_of(chosen.row) > 1 and single:
        why = "This scene moves" if scene.moves else "Where things move, unlike here"
        lost = chosen.scores - single[0].scores
        how = f"{_said(lost, unit)} less" if lost.mean() > 0 else "and no less"
        said.append(
            f"{why}: frames that came before blur what changes; of single frames "
            f"{single[0].row.name} is best ({how})."
        )
    if scene.noise_is_correlated:
        x, y = scene.noise_correlation_xy or (0.0, 0.0)
        knows = next(
            (one.row.name for one in standings if one.row.contestant.method in FOR_SHARED), None
        )
        said.append(
            f"Neighbouring pixels share noise (correlation {x:.2f} along x, {y:.2f} along y), "
            "which most methods take for structure: "
            + (
                f"look whether {knows} leaves less of it."
                if knows
                else f"compare {' and '.join(FOR_SHARED)} as well."
            )
        )
    if chosen.row.figures.get("uncertainty_z_std") is None:
        states = [one for one in standings if one.row.facts.get("states_uncertainty")]
        if states:
            said.append(f"It states no uncertainty; {states[0].row.name} is the best that does.")
    return said


def _based_on(rows: Sequence[Row], knows_truth: bool, frames: int, scene: Scene) -> str:
    minutes = [row.facts["training_minutes"] for row in rows if row.contestant.kind == "trained"]
    unit = DECIBEL if knows_truth else OF_NOISE
    by = (
        "PSNR against the truth"
        if knows_truth
        else "the squared error against a half of each frame's noise that no method has seen"
    )
    found = (
        f"Based on {by}, on {frames} frame{'s' if frames > 1 else ''} of this recording; a "
        f"difference counts if it is more than {unit.least} {unit.name} and more than its "
        "standard deviation over these frames"
    )
    if frames < FEWEST_FRAMES:
        found += f" (of fewer than {FEWEST_FRAMES} frames: more than {unit.plain:g} {unit.name})"
    if minutes:
        found += f". Models were trained once each, for {max(minutes):.1f} minutes at most"
    if scene.moved_share is not None and not scene.moves:
        found += (
            f". What moved adds {scene.moved_share:.0%} to the noise's variance: what preceding "
            "frames cost where more moves is not tested"
        )
    return found + "."
