"""The page of a comparison: one HTML file that is read without a network.

Owns what stands on it, top to bottom: the advice, the pictures, the table, the curves. How
pictures are shown and moved is `viewer`'s, how a page looks `reporting`'s.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ..inference.evaluation.coverage import draw_coverage
from ..inference.evaluation.metrics import radial_power, ssim_gaussian_map
from ..reporting.html_report import Page
from .rows import ComparisonFolder, Row
from .viewer import viewer

if TYPE_CHECKING:
    from .result import Comparison
    from .score import Picture, Ruler

SHOWN_PX = 1024
"""Edge of the largest part of a frame that is shown, pixel by pixel: a page of thirty pictures
then stays below 100 MB."""
SPECTRUM_PX = 128
"""Edge of a spectrum's picture."""
RAW, TRUTH = "raw", "truth"
FIRST_SHOWN = 4
"""So many of the best rows are shown when the page opens, beside raw and truth."""


@dataclass(frozen=True, slots=True)
class Column:
    """One column of the table.

    Attributes
    ----------
    title, explained
        Above it, and when the pointer rests there.
    value
        Of a row; None where there is none.
    form
        How it is written.
    better
        1 if more is better, −1 if less is, 0 if neither.
    """

    title: str
    explained: str
    value: Callable[[Row], Any]
    form: str = "{:.2f}"
    better: int = 0


ABOVE_BEST = "held_out_mse_above_best_adu2"


def _figure(name: str) -> Callable[[Row], Any]:
    return lambda row: row.figures.get(name)


def _fact(name: str) -> Callable[[Row], Any]:
    return lambda row: row.facts.get(name)


COLUMNS = (
    Column("method", "click a heading to sort", lambda row: row.name, "{}"),
    Column("PSNR, dB", "range: the truth's max − min", _figure("psnr_db"), "{:.2f}", 1),
    Column("± frames", "standard deviation over the frames, dB", lambda row: _spread(row)),
    Column(
        "SSIM",
        "Gaussian window of 11 px, σ 1.5 (key ssim_gaussian_11px)",
        _figure("ssim_gaussian_11px"),
        "{:.4f}",
        1,
    ),
    Column("NRMSE, range", "√MSE over max − min", _figure("nrmse"), "{:.4f}", -1),
    Column(
        "NRMSE, Euclidean",
        "√MSE over the truth's root mean square",
        _figure("nrmse_euclidean"),
        "{:.4f}",
        -1,
    ),
    Column("SI-PSNR, dB", "after the best factor and offset", _figure("si_psnr_db"), "{:.2f}", 1),
    Column("MicroSSIM", "of the frame shown", _figure("micro_ssim"), "{:.4f}", 1),
    Column("MicroMS3IM", "of the frame shown", _figure("micro_ms3im"), "{:.4f}", 1),
    Column(
        "FRC, px",
        "wavelength down to which the truth's structure is there (1/7)",
        _figure("frc_resolution_px"),
        "{:.2f}",
        -1,
    ),
    Column(
        "held-out error, ADU²",
        "squared error told without the truth, above that of the best row: a constant is unknown",
        _fact(ABOVE_BEST),
        "{:.4g}",
        -1,
    ),
    Column(
        "held-out −log p",
        "nats per pixel of the half not seen; counts the stated uncertainty too",
        _figure("held_out_nll"),
        "{:.4f}",
        -1,
    ),
    Column(
        "removed / noise",
        "variance removed over the camera's; 1: exactly the noise",
        _figure("variance_ratio"),
    ),
    Column(
        "residual correlation",
        "of neighbours; 0: white",
        _figure("residual_correlation"),
        "{:+.3f}",
    ),
    Column(
        "whiteness", "flatness of the residual's spectrum; 1: white", _figure("residual_flatness")
    ),
    Column("z", "error over stated uncertainty; 1: honest", _figure("uncertainty_z_std")),
    Column("ms per frame", "median, on this machine", _figure("ms_per_frame"), "{:.1f}", -1),
    Column("training, min", "of the last training", _fact("training_minutes"), "{:.1f}"),
    Column("parameters", "of the network", _fact("parameters"), "{:,}"),
    Column("strength", "of the filter, chosen without truth", _fact("strength"), "{:g}"),
    Column("peak MB", "memory of the process while it denoised", _fact("peak_rss_mb"), "{:.0f}"),
)


def _spread(row: Row) -> float | None:
    scores = row.per_frame.get("psnr_db", [])
    return float(np.std(scores, ddof=1)) if len(scores) > 1 else None


def write_page(comparison: Comparison, folder: ComparisonFolder, ruler: Ruler) -> None:
    """Write `comparison.html`.

    Parameters
    ----------
    comparison
        What was found.
    folder
        Where pictures and curves are.
    ruler
        By what all were measured.
    """
    rows = _above_best([row for row in comparison.rows if row.left_out is None])
    left_out = [row for row in comparison.rows if row.left_out is not None]
    page = Page(f"Comparison on {ruler.stack.path.name}", comparison.advice.sentence)
    page.text(comparison.advice.based_on)
    page.tiles(_tiles(comparison, rows))
    page.bullets(comparison.remarks)
    page.heading("The pictures")
    page.text(
        "All at the same contrast and the same place, pixel by pixel. Drag to move, turn the "
        "wheel to zoom, click to lay the line of the profiles. What was removed has to look like "
        "noise; what an estimate shows and the raw frame does not even hint at was invented."
    )
    page.markup(viewer(_payload(comparison, rows, folder)))
    page.heading("The table")
    page.markup(_table(rows))
    page.text(
        "Best figures are bold; where less is better, the least. " + _meaning(ruler.knows_truth)
    )
    coverage = {
        row.name: found for row in rows if (found := row.facts.get("uncertainty_coverage"))
    }
    if coverage:
        page.heading("Uncertainty: stated and found")
        page.figure(
            draw_coverage(coverage),
            "How many of the true values lie within the interval that is stated to hold 50, 68 or "
            "95 % of them. On the line the stated uncertainty is honest; below it is too small.",
        )
    if left_out:
        page.heading("Left out")
        page.table(("method", "why"), [(row.name, str(row.left_out)) for row in left_out])
    page.write(comparison.page)


def _above_best(rows: Sequence[Row]) -> list[Row]:
    """Return rows that also know by how much their held-out error is above the least of all."""
    errors = [row.figures["held_out_mse_adu2"] or 0.0 for row in rows]
    return [
        replace(row, facts={**row.facts, ABOVE_BEST: error - min(errors)})
        for row, error in zip(rows, errors, strict=True)
    ]


def _tiles(comparison: Comparison, rows: Sequence[Row]) -> list[tuple[str, str]]:
    facts = comparison.facts
    height, width = facts["frame_shape"]
    return [
        (comparison.advice.chosen or "none", "advised"),
        (comparison.advice.ranking[0], f"first by {facts['ranked_by']}"),
        (f"{len(facts['frames_scored'])}", f"frames scored, {width} × {height}"),
        (f"{len(rows)}", f"rows, in {facts['seconds'] / 60:.1f} minutes"),
    ]


def _meaning(knows_truth: bool) -> str:
    if knows_truth:
        return (
            "Rows are ranked by PSNR; the held-out figures are what would be known without truth."
        )
    return (
        "Rows are ranked by the held-out error, which is known up to a constant that all rows "
        "share. The truth is not known, so that nothing here says PSNR or SSIM."
    )


# ----------------------------------------------------------------------------------- table


def _table(rows: Sequence[Row]) -> str:
    columns = [column for column in COLUMNS if any(column.value(row) is not None for row in rows)]
    head = "".join(
        f'<th title="{escape(column.explained)}">{escape(column.title)}</th>' for column in columns
    )
    best = {column.title: _best(column, rows) for column in columns}
    body = "".join(
        "<tr>" + "".join(_cell(column, row, best[column.title]) for column in columns) + "</tr>"
        for row in rows
    )
    return (
        '<div class="wide scroll"><table class="sortable"><thead><tr>'
        f"{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _best(column: Column, rows: Sequence[Row]) -> Any:
    if not column.better:
        return None
    others = [row for row in rows if row.name != RAW]  # doing nothing is quickest
    values = [column.value(row) for row in others if column.value(row) is not None]
    return max(values, key=lambda value: column.better * value, default=None)


def _cell(column: Column, row: Row, best: Any) -> str:
    value = column.value(row)
    if value is None:
        return '<td class="number">–</td>'
    shown = escape(column.form.format(value))
    text = f"<b>{shown}</b>" if best is not None and value == best else shown
    key = "" if isinstance(value, str) else f' data-value="{float(value)!r}"'
    return f'<td class="number"{key}>{text}</td>'


# -------------------------------------------------------------------------------- pictures


def _payload(
    comparison: Comparison, rows: Sequence[Row], folder: ComparisonFolder
) -> dict[str, Any]:
    """Return what the viewer draws."""
    pictures = {row.name: folder.picture(row.contestant) for row in rows}
    first = next(iter(pictures.values()))
    part = _part(first.raw)
    truth = next((p.truth for p in pictures.values() if p.truth is not None), None)
    low, high = _range(first.raw[part], *(p.estimate[0][part] for p in pictures.values()))
    pack = _Packed(low, high)
    shown = [_plain(RAW, pack, first.raw[part])]
    if truth is not None:
        shown.append(_plain(TRUTH, pack, truth[part]))
    best = [name for name in comparison.advice.ranking if name != RAW]
    for row in rows:
        if row.name != RAW:
            shown.append(_of_row(row, pictures[row.name], part, pack))
    contrast = truth if truth is not None else first.raw
    return {
        "width": first.raw[part].shape[1],
        "height": first.raw[part].shape[0],
        "low": low,
        "high": high,
        "contrast": [float(value) for value in np.percentile(contrast[part], (0.5, 99.7))],
        "frame": comparison.facts["frame_shown"],
        "spectrum": SPECTRUM_PX,
        "pictures": shown,
        "selected": [RAW, *([TRUTH] if truth is not None else []), *best[:FIRST_SHOWN]],
        "curves": [
            {"name": row.name, "rows": losses}
            for row in rows
            if (losses := folder.losses(row.contestant))
        ],
        "noise": _noise_power(first),
    }


def _part(image: NDArray[Any]) -> tuple[slice, slice]:
    """Return the part that is shown: all of it, or the brightest piece of a large frame."""
    if max(image.shape) <= SHOWN_PX:
        return slice(None), slice(None)
    from scipy.ndimage import uniform_filter

    edge = [min(SHOWN_PX, size) for size in image.shape]
    local = uniform_filter(image.astype(np.float64), edge, mode="nearest")
    halves = [length // 2 for length in edge]
    inner = local[
        halves[0] : image.shape[0] - edge[0] + halves[0] + 1,
        halves[1] : image.shape[1] - edge[1] + halves[1] + 1,
    ]
    row, column = np.unravel_index(int(inner.argmax()), inner.shape)
    return slice(int(row), int(row) + edge[0]), slice(int(column), int(column) + edge[1])


def _range(*images: NDArray[Any]) -> tuple[float, float]:
    low = min(float(image.min()) for image in images)
    high = max(float(image.max()) for image in images)
    return low, max(high, low + 1e-6)


@dataclass(frozen=True, slots=True)
class _Packed:
    """Pictures as text: 16 bits between two values in ADU, their bytes apart, deflated."""

    low: float
    high: float

    def fine(self, image: NDArray[Any]) -> str:
        share = (image.astype(np.float64) - self.low) / (self.high - self.low)
        whole = np.rint(np.clip(share, 0, 1) * 65535).astype("<u2")
        planes = np.concatenate(
            [(whole >> 8).astype(np.uint8).ravel(), whole.astype(np.uint8).ravel()]
        )
        return _deflated(planes)


def _coarse(image: NDArray[Any]) -> str:
    """Pack a picture of values from 0 to 1 in 8 bits."""
    return _deflated(np.rint(np.clip(image, 0, 1) * 255).astype(np.uint8))


def _deflated(values: NDArray[np.uint8]) -> str:
    return base64.b64encode(zlib.compress(values.tobytes(), 6)).decode("ascii")


def _plain(name: str, pack: _Packed, image: NDArray[Any]) -> dict[str, Any]:
    return {"name": name, "pixels": pack.fine(image)}


def _of_row(
    row: Row, picture: Picture, part: tuple[slice, slice], pack: _Packed
) -> dict[str, Any]:
    estimate, stated = picture.estimate[0], picture.estimate[1]
    removed = picture.raw - estimate
    frequency, power = radial_power(removed)
    found = {
        **_plain(row.name, pack, estimate[part]),
        "note": _note(row),
        "spectrum": _coarse(_spectrum(removed)),
        "radial": [round(float(value), 6) for value in power],
        "frequency": [round(float(value), 5) for value in frequency],
    }
    if picture.truth is not None:
        found["ssim"] = _coarse(ssim_gaussian_map(estimate, picture.truth)[1][part])
    if stated.any():
        found["stated"] = _Packed(0.0, float(stated.max())).fine(stated[part])
        found["stated_high"] = float(stated.max())
    return found


def _note(row: Row) -> str:
    """Return what stands below a picture."""
    psnr, error = row.figures.get("psnr_db"), row.facts[ABOVE_BEST]
    score = f"{psnr:.2f} dB" if psnr is not None else f"{error:.4g} ADU² above the best"
    return f"{score}, {row.figures.get('ms_per_frame') or 0:.1f} ms"


def _spectrum(removed: NDArray[Any]) -> NDArray[np.float64]:
    """Return the power spectrum of what was removed, its middle at no frequency, 0 to 1.

    Averaged over squares of the frame, so that white noise is even; the logarithm between a
    hundredth and a hundred of the mean.
    """
    edge = min(SPECTRUM_PX, *removed.shape)
    rows, columns = (size // edge for size in removed.shape)
    squares = (
        removed[: rows * edge, : columns * edge]
        .reshape(rows, edge, columns, edge)
        .swapaxes(1, 2)
        .reshape(-1, edge, edge)
    )
    squares = squares - squares.mean(axis=(1, 2), keepdims=True)
    power = np.fft.fftshift((np.abs(np.fft.fft2(squares)) ** 2).mean(axis=0))
    mean = float(power.mean())
    if mean <= 0:
        return np.full((SPECTRUM_PX, SPECTRUM_PX), 0.5)
    level = np.log10(np.maximum(power / mean, 1e-6)) / 4 + 0.5
    whole = -(-SPECTRUM_PX // edge)
    repeated = np.kron(level, np.ones((whole, whole)))
    return repeated[:SPECTRUM_PX, :SPECTRUM_PX].astype(np.float64)


def _noise_power(picture: Picture) -> float | None:
    """Return the power of the raw frame's noise, where the truth is known."""
    if picture.truth is None:
        return None
    return float(((picture.raw - picture.truth) ** 2).mean())
