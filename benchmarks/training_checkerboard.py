"""The checkerboard of masked networks, in the spectrum.

N2V's estimates carry a faint pattern with the period of two pixels, because the network sees at
inference the very pixels whose replacements it learned to distrust, and pools them. In the power
spectrum it is a peak at half the sampling frequency, in y, in x and in both. Six stacks of real
photon counts (nandb); for each method the mean power of 3×3 bins at these places over the mean
power of the ring around them, in decibels: 0 dB is no checkerboard. Periods of four pixels, which
deeper pooling would leave, are given beside it, the worst place of each period. The recordings
themselves have such a peak in y: what counts is what an estimate has beyond the mean of the
repeats. Where an estimate holds next to nothing at these frequencies, a peak of some decibels over
next to nothing is still nothing: so the amplitude of the pattern is given too, in thousandths of
the noise's standard deviation. Draws `results/training_checkerboard.png`.

    python benchmarks/training_checkerboard.py --steps 1500

The data are found through the environment variable QUIETSCOPE_DATA.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.signal.windows import hann
from training_rows import (
    RESULTS,
    Image,
    Rows,
    denoised,
    fitted,
    is_default,
    mean_psnr_db,
    nandb,
    repeats,
)

from quietscope.training.options import TrainingOptions

METHODS = ("n2v", "n2v2", "lattice")
REFERENCE = "mean of the repeats"
FRAMES = range(7, 50, 8)
PEAK = 1
RING = (4, 12)
Spectrum = NDArray[np.float64]


def power(images: Iterable[Image]) -> Spectrum:
    """Return the mean power spectrum of images (Y, X), frequency 0 at [0, 0]."""
    total: Any = 0.0
    for image in images:
        window = hann(image.shape[0])[:, None] * hann(image.shape[1])[None, :]
        total = total + np.abs(np.fft.fft2((image - image.mean()) * window)) ** 2
    return np.asarray(total)


def excess_db(spectrum: Spectrum, period: int) -> dict[str, float]:
    """Return the peak over its ring at each place of a period, by direction."""
    places = {}
    for y, x in product(range(period), repeat=2):
        shorter_period = period == 4 and y % 2 == x % 2 == 0
        mirrored = (y, x) > (-y % period, -x % period)
        if (y, x) != (0, 0) and not shorter_period and not mirrored:
            places[f"{y}/{period} y, {x}/{period} x"] = _excess_db(
                spectrum, y * spectrum.shape[0] // period, x * spectrum.shape[1] // period
            )
    return places


def _excess_db(spectrum: Spectrum, y: int, x: int) -> float:
    peak, ring = _peak_and_ring(spectrum, y, x)
    return float(10 * np.log10(peak / ring))


def _peak_and_ring(spectrum: Spectrum, y: int, x: int) -> tuple[float, float]:
    rows, columns = np.mgrid[-RING[1] : RING[1] + 1, -RING[1] : RING[1] + 1]
    around = spectrum[(y + rows) % spectrum.shape[0], (x + columns) % spectrum.shape[1]]
    distance = np.hypot(rows, columns)
    peak = around[np.maximum(abs(rows), abs(columns)) <= PEAK].mean()
    ring = around[(distance >= RING[0]) & (distance <= RING[1])].mean()
    return float(peak), float(ring)


def amplitudes(spectrum: Spectrum, images: int, noise_adu: float) -> dict[str, float]:
    """Return the amplitude of the pattern of period two, in thousandths of the noise."""
    rows, columns = spectrum.shape
    whole = hann(rows).sum() * hann(columns).sum()
    found = {}
    for y, x in ((0, 1), (1, 0), (1, 1)):
        peak, ring = _peak_and_ring(spectrum / images, y * rows // 2, x * columns // 2)
        found[f"{y}/2 y, {x}/2 x"] = (
            1e3 * float(np.sqrt(max(peak - ring, 0.0))) / whole / noise_adu
        )
    return found


def row_of(
    method: str, spectrum: Spectrum, recorded: Spectrum, images: int, noise_adu: float
) -> dict[str, Any]:
    half, quarter = excess_db(spectrum, 2), excess_db(spectrum, 4)
    known = excess_db(recorded, 2)
    return {
        "method": method,
        "amplitude_thousandths_of_noise": amplitudes(spectrum, images, noise_adu),
        "beyond_the_recorded_db": max(half[place] - max(known[place], 0.0) for place in half),
        "period_2_db": half,
        "period_2_worst_db": max(half.values()),
        "period_4_worst_db": max(quarter.values()),
    }


def draw(spectra: dict[str, Spectrum], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(2.2 * len(spectra), 2.5), layout="constrained")
    panels = figure.subplots(1, len(spectra))
    floor = np.log10(spectra[REFERENCE])
    for panel, (name, spectrum) in zip(panels, spectra.items(), strict=True):
        # Half the sampling frequency is in the middle, where a checkerboard would be seen.
        panel.imshow(
            np.log10(spectrum), vmin=floor.min() - 1.5, vmax=floor.max() - 2, cmap="magma"
        )
        panel.set_title(name, fontsize=8)
        panel.set_axis_off()
    figure.savefig(path, dpi=90)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=1500)
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    stacks = nandb()
    examples = repeats(stacks, FRAMES, 0)
    rows = Rows(given.out / "training_checkerboard.json", ("method",), steps=given.steps)
    spectra = {
        "as recorded": power(one.observations[0].astype(np.float64) for one in examples),
        REFERENCE: power(one.truth for one in examples),
    }
    noise_adu = float(
        np.mean([np.std(one.observations[0] - one.truth, dtype=np.float64) for one in examples])
    )
    known = (spectra[REFERENCE], len(examples), noise_adu)
    for name, spectrum in spectra.items():
        rows.add(row_of(name, spectrum, *known))
    for method in METHODS:
        options = TrainingOptions(algorithm=method, steps=given.steps)
        estimator, run = fitted(stacks, options)
        spectra[method] = power(denoised(estimator, one.observations)[0] for one in examples)
        rows.add(
            row_of(method, spectra[method], *known)
            | {"default": is_default(options), "steps": run.step}
            | {"psnr_db": mean_psnr_db(estimator, examples)}
        )
    draw(spectra, given.out / "training_checkerboard.png")


if __name__ == "__main__":
    main()
