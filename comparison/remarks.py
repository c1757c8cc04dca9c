"""What a person should know before believing a comparison.

Owns these sentences, and the comparison of the ranking with truth and the one without.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from scipy.stats import spearmanr

from .advice import Scene
from .rows import Row
from .score import Ruler

FEWEST_RANKED = 4
GOOD_AGREEMENT = 0.9


def remarks_on(
    rows: Sequence[Row], ruler: Ruler, scene: Scene, *, zero_shot: bool, calibrated: bool
) -> Iterator[str]:
    """Yield what limits the comparison, most important first.

    Parameters
    ----------
    rows
        With figures.
    ruler, scene
        By what they were measured, and what was found out about the recording.
    zero_shot
        Whether frames were scored that methods learned from.
    calibrated
        Whether the noise model is of a calibration.
    """
    for text in dict.fromkeys(text for row in rows for text in row.remarks):
        yield f"{text[:1].upper()}{text[1:]}."
    if zero_shot:
        yield (
            "There are too few frames to spare any: methods that are trained have learned from "
            "the very frames that they are scored on, without their truth (zero-shot)."
        )
    elif ruler.static and any(row.contestant.kind == "trained" for row in rows):
        yield (
            "The frames that are scored were trained on by nobody, but the scene was: it is the "
            "same in all repeats. Elsewhere on the specimen models may be a little worse."
        )
    if not ruler.knows_truth:
        yield from _where_blind_ranking_errs(scene, calibrated)
    elif (agreement := _agreement(rows)) is not None:
        yield agreement
    if any("training_minutes" in row.facts for row in rows):
        yield (
            "Each model was trained once. Another seed gives another model; differences of less "
            "than 0.1 dB between models say nothing."
        )
    if len({_knows_pixels(row) for row in rows if row.contestant.kind != "filter"}) > 1:
        yield (
            "Some models know every pixel of the camera and were scored against frames with the "
            "pixels' offsets and gains taken out, others were not."
        )


def _where_blind_ranking_errs(scene: Scene, calibrated: bool) -> Iterator[str]:
    yield (
        "Without a truth the ranking rests on the noise model: each frame's noise was split in "
        "two, and methods are scored on the half that they did not see."
    )
    if scene.noise_is_correlated:
        x, y = scene.noise_correlation_xy or (0.0, 0.0)
        yield (
            f"Here that ranking can be wrong: neighbouring pixels share noise ({x:.2f} along x, "
            f"{y:.2f} along y), so that the half which was not seen is known in part, and methods "
            "that leave noise in look better than they are. Look at the residuals, and compare "
            "on repeats of a resting scene (--static)."
        )
    if not calibrated:
        yield (
            "The noise model was estimated from this recording itself. Where it takes texture for "
            "noise, methods that smooth look better than they are; calibrate the camera "
            "(--noise-model) to be sure."
        )
    yield (
        "The score is of the whole frame: what is small and rare, a flash or a faint spot, hardly "
        "counts in it. Look whether it is still there."
    )


def _agreement(rows: Sequence[Row]) -> str | None:
    """Say whether the ranking without truth would have been the same."""
    if len(rows) < FEWEST_RANKED:
        return None
    by_truth = {row.name: row.figures.get("psnr_db") for row in rows}
    blind = {row.name: row.figures.get("held_out_mse_adu2") for row in rows}
    true_scores = {name: score for name, score in by_truth.items() if score is not None}
    blind_scores = {name: -error for name, error in blind.items() if error is not None}
    if not len(true_scores) == len(blind_scores) == len(rows):
        return None
    pairs = [*true_scores.values()], [*blind_scores.values()]
    agreement = float(spearmanr(*pairs).statistic)
    best = max(true_scores, key=true_scores.__getitem__)
    blind_best = max(blind_scores, key=blind_scores.__getitem__)
    same = "the same row" if best == blind_best else f"{blind_best} instead of {best}"
    verdict = (
        "could have been trusted" if agreement > GOOD_AGREEMENT else "would have misled in places"
    )
    return (
        f"Without the truth the ranking would have been alike to {agreement:.2f} (Spearman; 1: "
        f"the same) with {same} first: here it {verdict}."
    )


def _knows_pixels(row: Row) -> bool:
    return bool(row.facts.get("pixel_maps"))
