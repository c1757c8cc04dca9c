"""The fit of the Gaussian mixture noise model, by maximum likelihood.

Owns how pairs of signal and observation become the tables of `gaussian_mixture`: the variance of
each stretch of signal, leaning on the photon-transfer law as far as the pairs bear it out, and the
form of the standardised residuals. Which levels the pairs come from is decided in `fit_camera`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import scipy

from .errors import CalibrationError, TooFewPixelsError
from .fingerprint import CameraFingerprint
from .gaussian_mixture import GaussianMixtureNoiseModel
from .level_statistics import Pairs
from .likelihood import SIXTEEN_BIT, Codes, log_mass
from .noise_model import LEAST_VARIANCE_ADU2, FloatArray
from .photon_transfer import QUANTISATION_VARIANCE_ADU2, PhotonTransfer

COMPONENTS = 4
MAX_VARIANCE_KNOTS = 256
SHAPE_KNOTS = 10
PAIRS_PER_KNOT = 5000
PAIRS_PER_SHAPE = 20_000
KNOT_SPACING = 0.12
"""Standard deviations of the noise between knots, where it spans only FEW_CODES."""
FEW_CODES = 2.0
BRIGHT_KNOT_SPACING = 1.0
"""The same for brighter light."""
LEAST_DEVIATION = 0.002
"""Relative deviation from the photon-transfer law that is allowed for in any case."""
LEAST_COMPONENT_SHARE = 0.05
"""No component is narrower than this share of the total variance."""
_FINE_BINS = 1024
_Z_STEP = 0.05
_Z_LIMIT = 9.0


def fit_gaussian_mixture(
    pairs: Pairs,
    photon_transfer: PhotonTransfer,
    *,
    codes: Codes = SIXTEEN_BIT,
    fingerprint: CameraFingerprint | None = None,
    source: Literal["calibrated", "bootstrapped"] = "calibrated",
    components: int = COMPONENTS,
    on_progress: Callable[[float], None] | None = None,
) -> GaussianMixtureNoiseModel:
    """Fit p(observation | signal) by maximum likelihood on pairs.

    The variance of a maximum-likelihood mixture equals that of its sample, so it is taken from
    the pairs of each stretch of signal directly; the form is then fitted to the standardised
    residuals with the camera's rounding and clipping in the likelihood. Nothing is drawn at
    random: the same pairs give the same model to the bit.

    Parameters
    ----------
    pairs
        Signals and observations (see `signal_observation_pairs`).
    photon_transfer
        The law that knots with few pairs lean on, and that holds outside the range.

    Raises
    ------
    TooFewPixelsError
        With fewer than 1,000 pairs.
    CalibrationError
        If all of the noise is less than a noise model holds.
    """
    if len(pairs) < 1000:
        raise TooFewPixelsError(
            f"noise model: {len(pairs)} signal-observation pairs, expected at least 1000; "
            "give more repeats or larger frames"
        )
    coordinate = _stabilising_coordinate(pairs.signal, photon_transfer)
    place = _fine_bins(pairs.signal, coordinate)
    count = np.bincount(place, minlength=_FINE_BINS).astype(np.float64)
    width = float(coordinate[1][-1]) / _FINE_BINS
    cells = _cells(count, width, _knot_spacing(coordinate, photon_transfer, codes))
    cell_of_bin = np.repeat(np.arange(len(cells)), [stop - start for start, stop in cells])
    cell_count = _sum_cells(count, cells)
    knots = _sum_cells(_weighted(place, pairs.signal), cells) / cell_count
    found = _sum_cells(_weighted(place, pairs.squares), cells) / cell_count
    if found.max() < LEAST_VARIANCE_ADU2:
        raise CalibrationError(
            f"noise model: the noise is {np.sqrt(found.max()):.1g} ADU at most, expected at least "
            f"{np.sqrt(LEAST_VARIANCE_ADU2):g}, the least that a noise model holds; give the "
            "camera's own numbers, not pixels that were scaled down"
        )
    model = GaussianMixtureNoiseModel(
        signal_adu=knots,
        variance_adu2=leaning_on_law(found, cell_count, photon_transfer.variance(knots)),
        shape_signal_adu=knots[:1],
        shape_weights=np.full((components, 1), 1 / components),
        shape_offsets=np.zeros((components, 1)),
        shape_variances=np.ones((components, 1)),
        photon_transfer=photon_transfer,
        codes=codes,
        fingerprint=fingerprint or CameraFingerprint(),
        source=source,
    )
    groups = _shape_groups(cells, cell_count, np.sqrt(model.variance_adu2), width, codes)
    group_of_bin = groups[cell_of_bin]
    return _fit_shapes(model, pairs, group_of_bin[place], components, on_progress)


def _stabilising_coordinate(
    signal: FloatArray, law: PhotonTransfer
) -> tuple[FloatArray, FloatArray]:
    """Return signals and a coordinate on them in which the noise has the same size everywhere."""
    low, high = float(signal.min()), float(signal.max())
    # Denser near the low end, where the noise changes fastest.
    grid = low + (high - low) * np.linspace(0, 1, 4097) ** 2
    slope = 1 / np.sqrt(np.maximum(law.variance(grid), QUANTISATION_VARIANCE_ADU2))
    steps = np.diff(grid) * (slope[1:] + slope[:-1]) / 2
    return grid, np.concatenate([[0.0], np.cumsum(steps)])


def _fine_bins(signal: FloatArray, coordinate: tuple[FloatArray, FloatArray]) -> np.ndarray:
    grid, value = coordinate
    scale = (_FINE_BINS - 1e-6) / max(float(value[-1]), 1e-12)
    bins: np.ndarray = np.minimum(
        (np.interp(signal, grid, value) * scale).astype(np.intp), _FINE_BINS - 1
    )
    return bins


def _weighted(place: np.ndarray, values: FloatArray) -> FloatArray:
    return np.bincount(place, values, _FINE_BINS).astype(np.float64)


def _knot_spacing(
    coordinate: tuple[FloatArray, FloatArray], law: PhotonTransfer, codes: Codes
) -> FloatArray:
    """Return the least distance of knots at every fine bin, in standard deviations.

    The variance of bright light hardly changes within the noise of one pixel; where the noise
    spans a few codes only, it does.
    """
    grid, value = coordinate
    middle = (np.arange(_FINE_BINS) + 0.5) / _FINE_BINS * value[-1]
    sigma = np.sqrt(law.variance(np.interp(middle, value, grid)))
    return np.where(sigma < FEW_CODES * codes.step, KNOT_SPACING, BRIGHT_KNOT_SPACING)


def _cells(count: FloatArray, width: float, spacing: FloatArray) -> list[tuple[int, int]]:
    """Join neighbouring bins (each `width` standard deviations wide) into cells.

    A cell ends when it is wide and holds enough pairs, and before a wide gap without light, so
    that no knot stands where no pair is.
    """
    enough = max(PAIRS_PER_KNOT, count.sum() / MAX_VARIANCE_KNOTS)
    gap = max(4, _FINE_BINS // 64)
    cells, start, held, empty = [], 0, 0.0, 0
    for place, found in enumerate(count):
        wide = (place - start) * width >= spacing[place]
        if found and held and ((wide and held >= enough) or (empty >= gap and held >= enough / 2)):
            cells.append((start, place))
            start, held = place, 0.0
        held += found
        empty = 0 if found else empty + 1
    cells.append((start, count.size))
    if len(cells) > 1 and held < enough / 2:
        cells[-2:] = [(cells[-2][0], count.size)]
    return cells


def _sum_cells(values: FloatArray, cells: list[tuple[int, int]]) -> FloatArray:
    return np.array([values[start:stop].sum() for start, stop in cells])


def leaning_on_law(found: FloatArray, count: FloatArray, law: FloatArray) -> FloatArray:
    """Weigh each knot's own variance against the photon-transfer law (empirical Bayes).

    The law is trusted as far as the knots themselves bear it out: if they scatter about it by no
    more than their numbers of pairs explain, they follow it; a camera that departs from it is
    taken at its word.
    """
    deviation = found / law - 1
    by_chance = 2 / count
    real = float(np.average(deviation**2 - by_chance, weights=count))
    # A single knot that departs must not be smoothed away by many that do not.
    each = np.maximum(deviation**2 - 9 * by_chance, 0.0)
    expected = np.maximum(max(real, LEAST_DEVIATION**2), each)
    own = expected / (expected + by_chance)
    return own * found + (1 - own) * law


def _shape_groups(
    cells: list[tuple[int, int]],
    cell_count: FloatArray,
    sigma: FloatArray,
    width: float,
    codes: Codes,
) -> np.ndarray:
    """Return the shape group of every variance cell: neighbours joined, enough pairs in each.

    Where the noise spans a few codes only, its form changes with every fraction of a code, and
    the groups are narrow.
    """
    share = max(cell_count.sum() / SHAPE_KNOTS, PAIRS_PER_SHAPE)
    group, held, begun = 0, 0.0, cells[0][0]
    groups = np.empty(cell_count.size, dtype=np.intp)
    for cell, found in enumerate(cell_count):
        wide = (cells[cell][0] - begun) * width >= KNOT_SPACING
        coarse = sigma[cell] < FEW_CODES * codes.step
        if held >= share or (coarse and wide and held >= PAIRS_PER_SHAPE):
            group, held, begun = group + 1, 0.0, cells[cell][0]
        groups[cell] = group
        held += found
    if group and held < share / 4:
        groups[groups == group] = group - 1
    return groups


def _fit_shapes(
    model: GaussianMixtureNoiseModel,
    pairs: Pairs,
    group: np.ndarray,
    components: int,
    on_progress: Callable[[float], None] | None,
) -> GaussianMixtureNoiseModel:
    # The form is that of the residuals as they are, in units of their own standard deviation.
    scale = np.sqrt(model.variance(pairs.signal) / pairs.restore)
    z = (pairs.observation - pairs.signal) / scale
    clipped = pairs.observation <= model.codes.low
    number = int(group.max()) + 1
    order = np.argsort(group, kind="stable")
    parts = np.split(order, np.cumsum(np.bincount(group, minlength=number))[:-1])
    shapes, knots = [], []
    start: FloatArray | None = None
    for index, chosen in enumerate(parts):
        residuals = _Residuals.of(z[chosen], scale[chosen], clipped[chosen], model.codes)
        shape, start = _fit_shape(residuals, components, start)
        shapes.append(shape)
        knots.append(float(pairs.signal[chosen].mean()))
        if on_progress is not None:
            on_progress((index + 1) / number)
    stacked = np.stack(shapes, axis=-1)
    return replace(
        model,
        shape_signal_adu=np.array(knots),
        shape_weights=stacked[0],
        shape_offsets=stacked[1],
        shape_variances=stacked[2],
    )


@dataclass(frozen=True, slots=True, eq=False)
class _Residuals:
    """Rounding intervals of standardised residuals in one stretch of signal, counted."""

    lower: FloatArray
    upper: FloatArray
    rounding_variance: FloatArray
    count: FloatArray

    @classmethod
    def of(cls, z: FloatArray, scale: FloatArray, clipped: np.ndarray, codes: Codes) -> _Residuals:
        """Count residuals `z` (in units of `scale`) on a fine grid."""
        bins = int(2 * _Z_LIMIT / _Z_STEP)
        place = np.clip(((z + _Z_LIMIT) / _Z_STEP).astype(np.intp), 0, bins - 1)
        place += bins * clipped
        count = np.bincount(place, minlength=2 * bins).astype(np.float64)
        used = count > 0
        count = count[used]
        centre = np.bincount(place, z, 2 * bins)[used] / count
        # Float pixels have no rounding interval: the density is taken over a grid step.
        step = codes.step / scale if codes.step else np.full(z.size, _Z_STEP)
        half = np.bincount(place, step, 2 * bins)[used] / count / 2
        below = np.arange(2 * bins)[used] >= bins
        return cls(
            lower=np.where(below, -np.inf, centre - half),
            upper=centre + half,
            rounding_variance=QUANTISATION_VARIANCE_ADU2 * (2 * half) ** 2,
            count=count,
        )

    @property
    def total(self) -> float:
        return float(self.count.sum())

    @property
    def look_gaussian(self) -> bool:
        """Whether skewness and kurtosis are those of a Gaussian, with many codes in its width."""
        width = float(self.rounding_variance @ self.count) / self.total
        if width > QUANTISATION_VARIANCE_ADU2 / FEW_CODES**2 or np.isinf(self.lower).any():
            return False
        middle = (self.lower + self.upper) / 2
        skewness = float(self.count @ middle**3) / self.total
        kurtosis = float(self.count @ middle**4) / self.total - 3
        limits = 3 * np.sqrt(np.array([6, 24]) / self.total)
        return bool(abs(skewness) < limits[0] and abs(kurtosis) < limits[1])

    def negative_log_likelihood(self, shape: FloatArray) -> FloatArray:
        """Return the mean loss of B candidates (B, 3, K), (B,)."""
        # (K, B, 1): components first, as the likelihood wants them.
        weights, offsets, variances = np.moveaxis(shape, (1, 2), (0, 1))[..., None]
        found = log_mass(
            self.lower, self.upper, offsets, variances, weights, self.rounding_variance
        )
        result: FloatArray = -(found @ self.count) / self.total
        return result


def _fit_shape(
    residuals: _Residuals, components: int, start: FloatArray | None
) -> tuple[FloatArray, FloatArray]:
    """Maximise the likelihood of a standardised mixture; returns it and its raw parameters."""
    gaussian = np.stack(
        [np.full(components, 1 / components), np.zeros(components), np.ones(components)]
    )
    first = _spread_start(components)
    if residuals.look_gaussian:
        return gaussian, first
    starts = [first] if start is None else [start, first]
    best = min(
        (
            scipy.optimize.minimize(
                _shape_loss,
                x,
                args=(residuals,),
                jac=True,
                method="L-BFGS-B",
                options={"maxiter": 100},
            )
            for x in starts
        ),
        key=lambda found: float(found.fun),
    )
    # More parameters have to earn their keep (Schwarz 1978): where the noise is Gaussian the
    # model says so.
    penalty = (3 * components - 3) / 2 * np.log(max(residuals.total, 2)) / residuals.total
    if float(best.fun) + penalty >= float(residuals.negative_log_likelihood(gaussian[None])[0]):
        return gaussian, first
    return _shape(best.x[None])[0], best.x


def _spread_start(components: int) -> FloatArray:
    spread = np.linspace(-0.6, 0.9, components)
    return np.concatenate([np.linspace(0.5, -0.5, components), spread, np.zeros(components)])


def _shape(raw: FloatArray) -> FloatArray:
    """Return (B, 3, K) weights, offsets, variances with mean 0 and variance 1, of B candidates."""
    logits, offsets, log_shares = np.moveaxis(raw.reshape(raw.shape[0], 3, -1), 1, 0)
    weights = np.exp(logits - logits.max(axis=1, keepdims=True))
    weights /= weights.sum(axis=1, keepdims=True)
    offsets = offsets - (weights * offsets).sum(axis=1, keepdims=True)
    shares = np.exp(np.clip(log_shares, -12, 12))
    scale = (weights * (shares + offsets**2)).sum(axis=1, keepdims=True)
    shares, offsets = shares / scale, offsets / np.sqrt(scale)
    # The floor on the shares is paid for by the offsets, so that the variance stays 1.
    shares = LEAST_COMPONENT_SHARE + (1 - LEAST_COMPONENT_SHARE) * shares
    offsets = offsets * np.sqrt(1 - LEAST_COMPONENT_SHARE)
    return np.stack([weights, offsets, shares], axis=1)


def _shape_loss(raw: FloatArray, residuals: _Residuals) -> tuple[float, FloatArray]:
    """Return the loss and its gradient; all forward differences in one call."""
    step = 1e-6
    candidates = raw + np.concatenate([np.zeros((1, raw.size)), step * np.eye(raw.size)])
    losses = residuals.negative_log_likelihood(_shape(candidates))
    losses += 1e-6 * (candidates**2).mean(axis=1)
    return float(losses[0]), (losses[1:] - losses[0]) / step
