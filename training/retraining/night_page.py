"""The page that a night leaves: what was looked at, what was decided and why, before and after.

Owns its contents. What happened is in the night's record; how the models have developed, in the
records of all nights.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ...errors import QuietscopeError, one_line
from ...inference.bundle import open_bundle
from ...reporting.html_report import Light, Page
from ...storage.open_stack import open_stack
from .night_record import DecisionRecord, NightRecord, nights, nights_folder
from .pictures import side_by_side

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LIGHTS: dict[str, Light] = {"promoted": "green", "kept": "green", "skipped": "amber"}
WORDS = {
    "candidate_mse_adu2": "squared error of the candidate, ADU²",
    "current_mse_adu2": "squared error of the model in use, ADU²",
    "relative_gain": "gain, share of the error",
    "relative_gain_low": "… at least (95 % interval)",
    "relative_gain_high": "… at most",
    "gain_db": "gain, dB",
    "old_gain_adu2": "gain on runs known before, ADU²",
    "candidate_z": "error over what the candidate states (1: honest)",
    "candidate_worst_bias": "worst bias of the candidate, share of the noise",
    "candidate_residual_correlation": "correlation in what the candidate removes (0: noise)",
    "candidate_ms_per_frame": "time of a frame, ms",
    "frames": "held-out frames",
}
"""The figures that are shown, in this order."""


def write_night_page(library: Path, record: NightRecord) -> Path:
    """Write the page of a night beside its record; return its place.

    Raises
    ------
    OutputError
        If it cannot be written.
    """
    page = Page(f"The night of {record.night}", record.headline())
    page.tiles(_tiles(record))
    page.checks(
        [(_light(one), one.about(), f"{one.decision}: {one.reason}") for one in record.decisions]
    )
    if record.failure is not None:
        page.checks([("red", "the night failed", record.failure)])
    for remark in record.remarks:
        page.text(remark)
    for one in record.decisions:
        _section(page, library, one)
    place = nights_folder(library) / f"{record.night}.html"
    page.write(place)
    return place


def _tiles(record: NightRecord) -> list[tuple[str, str]]:
    promoted = sum(one.decision == "promoted" for one in record.decisions)
    hours = ((record.ended - record.started).total_seconds() / 3600) if record.ended else 0.0
    return [
        (str(promoted), "models came into use"),
        (str(len(record.decisions)), "cameras, settings and channels looked at"),
        (f"{hours:.1f} h", "from first to last"),
        (f"{record.waited_s / 60:.0f} min", "given way to live sessions"),
    ]


def _light(one: DecisionRecord) -> Light:
    return LIGHTS.get(one.decision, "amber")


def _section(page: Page, library: Path, one: DecisionRecord) -> None:
    page.heading(one.about())
    page.text(f"{one.decision}: {one.reason}")
    if one.runs:
        page.text(f"Learned from {', '.join(str(Path(run).parent) for run in one.runs)}.")
    shown = [
        (WORDS[name], value) for name in WORDS if (value := one.figures.get(name)) is not None
    ]
    if shown:
        page.table(("figure", "value"), [(words, f"{value:.4g}") for words, value in shown])
    _before_and_after(page, library, one)
    development = _development(nights(library), one)
    if development is not None:
        page.figure(development, "How the model has developed, night by night.")


def _before_and_after(page: Page, library: Path, one: DecisionRecord) -> None:
    if one.candidate is None or not one.runs:
        return
    models = [("candidate", one.candidate)]
    if one.before is not None and one.before != one.candidate:
        models.insert(0, ("model in use before", one.before))
    try:
        figure = side_by_side(
            open_stack(library / one.runs[0]),
            one.channel,
            [(name, open_bundle(Path(place))) for name, place in models],
        )
    except QuietscopeError as error:  # a page without a picture is still a page
        page.text(f"No pictures: {one_line(error)}")
        return
    page.figure(figure, f"A held-out frame of {Path(one.runs[0]).parent}, before and after.")


def _development(records: Sequence[NightRecord], one: DecisionRecord) -> Figure | None:
    """Draw the candidates' gains over the nights, those that came into use filled."""
    points = [
        (record.night, gain, found.decision)
        for record in records
        for found in record.decisions
        if (found.channel, found.camera) == (one.channel, one.camera)
        and (gain := found.figures.get("relative_gain")) is not None
    ]
    if not points:
        return None
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 2.6))
    axis = figure.subplots()
    labels = [f"{night:%d %b}" for night, _, _ in points]
    gains = [100 * gain for _, gain, _ in points]
    colours = ["#1a7f4b" if decision == "promoted" else "#9aa5b8" for _, _, decision in points]
    axis.bar(range(len(points)), gains, color=colours)
    axis.axhline(0, color="#1b2230", linewidth=0.8)
    axis.set_xticks(range(len(points)), labels, fontsize=8)
    axis.set_ylabel("less error than the\nmodel in use, %", fontsize=9)
    axis.set_title("green: came into use", fontsize=9, loc="left")
    figure.tight_layout()
    return figure
