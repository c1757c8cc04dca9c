"""Whether a candidate takes the place of the model in use.

Owns the verdict on what `comparison` measured: what stops a candidate alone, and how large a gain
has to be. No single figure redeems another.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...inference.bundle import Bundle
from .comparison import SURE, RunScore

DRAWS = 1000
"""Of the bootstrap: the ends of a 95 % interval are then good to a tenth of its width."""
ENDS = (2.5, 97.5)
LARGEST_BIAS = 0.05
"""Of the camera's noise, in any class of brightness, beyond that of the model in use."""
LARGEST_CORRELATION = 0.1
"""Of neighbouring pixels in what was removed, beyond that of the model in use: structure is lost,
or noise left that has a direction."""
LARGEST_Z = 2.0
"""Error over what is stated, either way: half of one is as wrong as twice as much."""
MORE_Z = 1.1
"""Than with the model in use, where that is off as well: less may be chance."""
LARGEST_BAND = 1.25
"""Power of the error in a ring of spatial frequency, to that of the model in use: texture."""
SLOWEST = 1.5
"""Time of a frame, to that of the model in use, which keeps up with the camera."""
SLOW_MS = 20.0
"""Below which the clock of a busy computer says nothing, and 50 frames/s are kept up with."""
LEAST_ERROR = 1e-3
"""Squared error, to that of the raw frames, below which no model is told from a perfect one."""
LARGEST_PARITY = 1e-3
"""Relative difference of the exported graph and what was trained."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether the candidate takes the place of the model in use, why, and the figures.

    A candidate is promising where it gained on the new runs beyond chance, and was stopped by what
    it has not learned of the old ones yet: longer training may mend that.
    """

    promote: bool
    reason: str
    figures: dict[str, float | None]
    promising: bool = False


@dataclass(frozen=True, slots=True)
class Interval:
    """A relative gain and its 95 % interval, by bootstrap over runs and frames."""

    gain: float
    low: float
    high: float


def judge(scores: Sequence[RunScore], candidate: Bundle | None = None) -> Verdict:
    """Decide; each of these stops a candidate alone.

    Scores that cannot be; a loss on any run, old or new, or on the old ones together; a red check
    on any run; an exported graph that is not what was trained; no gain on the new runs beyond
    chance.
    """
    new = [score for score in scores if not score.old] or list(scores)
    found = interval(new)
    figures = _figures(scores, new, found)
    better = [score for score in new if score.gain > score.least_gain]
    gained = bool(better) and found.low > 0
    for objection in (*_in_general(scores, candidate), *_of_runs(new)):
        return Verdict(False, objection, figures)
    old = [score for score in scores if score.old]
    for objection in (*_of_runs(old), *_lost_on_all(old)):
        return Verdict(False, objection, figures, promising=gained)
    reason = (
        f"squared error on held-out frames {figures['candidate_mse_adu2']:.4g} ADU², model in use "
        f"{figures['current_mse_adu2']:.4g} ADU²: less by {found.gain:.2%} (95 % interval "
        f"{found.low:.2%} to {found.high:.2%}); better on {len(better)} of {len(new)} new runs"
    )
    return Verdict(gained, reason, figures)


def _in_general(scores: Sequence[RunScore], candidate: Bundle | None) -> Iterator[str]:
    """Yield what no run stands for alone: scores that cannot be, and the graph itself."""
    for score in scores:
        if (wrong := score.why_impossible()) is not None:
            yield f"{score.path}: {wrong}"
    yield from _red_of_bundle(candidate)


def _of_runs(scores: Sequence[RunScore]) -> Iterator[str]:
    """Yield the losses and the red checks of single runs."""
    for score in scores:
        if score.gain < -score.least_gain:
            learned = "that the model in use has learned from" if score.old else "that is new"
            yield (
                f"worse on {score.path}, {learned}: squared error {score.means[0]:.4g} ADU², "
                f"model in use {score.means[1]:.4g} ADU²"
            )
    for score in scores:
        yield from red_checks(score)


def _lost_on_all(old: Sequence[RunScore]) -> Iterator[str]:
    """Yield that the old runs are worse all together, where no single one surely is.

    What no night can tell of one run would add up over twenty nights.
    """
    if not old or (lost := interval(old)).high >= 0:
        return
    yield (
        f"worse on the {len(old)} runs that the model in use has learned from, taken together: "
        f"squared error more by {-lost.gain:.2%} (95 % interval {-lost.high:.2%} to "
        f"{-lost.low:.2%})"
    )


def interval(scores: Sequence[RunScore], seed: int = 0) -> Interval:
    """Return the mean gain over runs, relative to the model in use, with its interval.

    Errors of a run count in units of that of its raw frames, which is its noise: bright runs and
    dim ones weigh alike, and the error of a good model, which an estimate can lose in the noise
    altogether, is divided by only on the whole. Runs are drawn, and of each its frames (where it
    has several; else places of the frame): scenes differ more than frames of one scene do (Efron &
    Tibshirani 1993, doi:10.1201/9780429246593).
    """
    rng = np.random.default_rng(seed)
    by_frame = [_units(score) for score in scores]
    of_all = np.mean([units.mean(axis=0) for units in by_frame], axis=0)
    error = max(float(of_all[1]), LEAST_ERROR)
    draws = np.empty(DRAWS)
    for draw in range(DRAWS):
        runs = rng.integers(len(by_frame), size=len(by_frame))
        drawn = np.mean(
            [
                units[rng.integers(len(units), size=len(units))].mean(axis=0)
                for units in (by_frame[run] for run in runs)
            ],
            axis=0,
        )
        # By its own error, so that no gain is more than all of it; never by one near nothing.
        draws[draw] = (drawn[1] - drawn[0]) / max(float(drawn[1]), error / 4)
    low, high = np.percentile(draws, ENDS) if np.isfinite(draws).all() else (-np.inf, np.inf)
    return Interval(float(of_all[1] - of_all[0]) / error, float(low), float(high))


def _units(score: RunScore) -> NDArray[np.float64]:
    """Return what is drawn of a run, (n, 3): means of frames, or of places of the only ones.

    In units of the error of the raw frames.
    """
    by_frame = score.by_frame()
    found: NDArray[np.float64] = by_frame.mean(axis=1 if len(by_frame) > 2 else 0)
    return found / max(abs(float(score.means[2])), 1e-12)


def red_checks(score: RunScore) -> Iterator[str]:
    """Yield what is wrong with a candidate on one run, whatever its squared error."""
    if score.measures is None:
        return
    candidate, current = score.measures
    place, excess = _beyond(candidate.bias, current.bias)
    if excess > LARGEST_BIAS:
        yield (
            f"{score.path}: the candidate is biased by {excess:.0%} of the camera's noise more "
            f"than the model in use where it is {_brightness(place, candidate.bias)}"
        )
    more = abs(candidate.correlation.mean()) - abs(current.correlation.mean())
    if more > LARGEST_CORRELATION:
        yield (
            f"{score.path}: what the candidate removes is correlated by {more:.2f} more than with "
            "the model in use: structure is lost, or noise is left"
        )
    z, before = score.z(0), score.z(1)
    if z is not None and before is not None and _off(z) > _allowed(before):
        yield (
            f"{score.path}: the candidate's error is {z:.2f} times what it states, with the model "
            f"in use {before:.2f} times"
        )
    ring = _worst_ring(candidate.bands, current.bands)
    if ring is not None:
        yield (
            f"{score.path}: the candidate's error at spatial frequencies of ring {ring + 1} of "
            f"{candidate.bands.shape[1]} has more than {LARGEST_BAND:g} times the power of the "
            "model in use: it adds texture, or loses it"
        )
    slow = candidate.ms_per_frame
    if slow > max(SLOW_MS, SLOWEST * current.ms_per_frame):
        yield (
            f"a frame takes the candidate {slow:.0f} ms, the model in use "
            f"{current.ms_per_frame:.0f} ms: live would fall behind"
        )


def _beyond(candidate: NDArray[np.float64], current: NDArray[np.float64]) -> tuple[int, float]:
    """Return in which class the candidate's bias exceeds the other's most, and surely by what."""
    excess = abs(candidate.mean(axis=0)) - abs(current.mean(axis=0))
    # Scatter of one frame to the next; with one frame it is not known.
    chance = (
        SURE * (candidate - current).std(axis=0, ddof=1) / np.sqrt(len(candidate))
        if len(candidate) > 1
        else np.zeros_like(excess)
    )
    place = int(np.argmax(excess - chance))
    return place, float((excess - chance)[place])


def _brightness(place: int, bias: NDArray[np.float64]) -> str:
    last = bias.shape[1] - 1
    return {0: "darkest", last: "brightest"}.get(place, f"of brightness {place + 1} of {last + 1}")


def _allowed(before: float) -> float:
    """Return how far off the error may be from what is stated, by that of the model in use."""
    return max(float(np.log(LARGEST_Z)), _off(before) + float(np.log(MORE_Z)))


def _off(z: float) -> float:
    return float(abs(np.log(z)))


def _worst_ring(candidate: NDArray[np.float64], current: NDArray[np.float64]) -> int | None:
    """Return a ring in which the candidate's error is surely stronger by LARGEST_BAND."""
    difference = candidate - LARGEST_BAND * current
    if len(difference) < 2:
        return None
    chance = SURE * difference.std(axis=0, ddof=1) / np.sqrt(len(difference))
    # A ring that holds next to nothing of the error cannot spoil a picture.
    counts = candidate.mean(axis=0) > 0.1 * current.mean()
    sure = counts & (difference.mean(axis=0) > chance)
    return int(np.argmax(sure)) if sure.any() else None


def _red_of_bundle(candidate: Bundle | None) -> Iterator[str]:
    if candidate is None:
        return
    parity = candidate.manifest.figures.get("parity_max_relative_error")
    if parity is not None and not parity <= LARGEST_PARITY:
        yield (
            f"the candidate's graph differs from what was trained by {parity:.1e}, expected at "
            f"most {LARGEST_PARITY:.0e}"
        )


def _figures(
    scores: Sequence[RunScore], new: Sequence[RunScore], found: Interval
) -> dict[str, float | None]:
    old = [score for score in scores if score.old]
    candidate, current, _ = np.mean([score.means for score in new], axis=0)
    known = candidate > 0 and current > 0
    return {
        "candidate_mse_adu2": float(candidate),
        "current_mse_adu2": float(current),
        "gain_adu2": float(current - candidate),
        "least_gain_adu2": float(np.mean([score.least_gain for score in new])),
        "relative_gain": found.gain,
        "relative_gain_low": found.low,
        "relative_gain_high": found.high,
        # An estimate of a small error can fall below zero by chance.
        "gain_db": float(10 * np.log10(current / candidate)) if known else None,
        "old_gain_adu2": float(np.mean([score.gain for score in old])) if old else None,
        "frames": float(sum(score.frames for score in scores)),
        **_measure_figures(scores),
    }


def _measure_figures(scores: Sequence[RunScore]) -> dict[str, float | None]:
    measured = [score for score in scores if score.measures is not None]
    figures: dict[str, float | None] = {}
    for number, name in enumerate(("candidate", "current")):
        of = [score.measures[number] for score in measured if score.measures is not None]
        zs = [z for score in measured if (z := score.z(number)) is not None]
        if not of:
            continue
        figures |= {
            f"{name}_z": float(np.mean(zs)) if zs else None,
            f"{name}_worst_bias": max(float(abs(m.bias.mean(axis=0)).max()) for m in of),
            f"{name}_residual_correlation": float(np.mean([m.correlation.mean() for m in of])),
            f"{name}_variance_explained": float(np.mean([m.explained.mean() for m in of])),
            f"{name}_ms_per_frame": float(np.median([m.ms_per_frame for m in of])),
        }
    return figures
