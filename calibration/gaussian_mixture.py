"""The Gaussian mixture noise model p(observation | signal), and its fit by maximum likelihood.

Owns the model that the rest of the program uses. Its variance is tabulated over the signal and
may take any shape; its form (skewness, tails) is a mixture of standardised Gaussians, tabulated
likewise. Outside the calibrated range it follows the photon-transfer law. Files live in
`noise_files`, the choice of levels in `camera`.

Derived from the idea of PN2V (Krull et al. 2020, Front. Comput. Sci. 2:5,
doi:10.3389/fcomp.2020.00005) and its mixture form (Prakash et al. 2020, ISBI,
doi:10.1109/ISBI45749.2020.9098612), without the published parametrisation's limits: there the
variance is a polynomial that can only rise, and is clamped from below.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import minimize

from .errors import CalibrationError
from .fingerprint import CameraFingerprint
from .likelihood import SIXTEEN_BIT, Codes, mixture_log_likelihood
from .maps import PixelMaps
from .noise_model import FloatArray, MixtureTable
from .photon_transfer import QUANTISATION_VARIANCE_ADU2, PhotonTransfer

COMPONENTS = 3
VARIANCE_KNOTS = 40
SHAPE_KNOTS = 10
PAIRS_PER_KNOT = 2000
PAIRS_PER_SHAPE = 20_000
LAW_TRUST = 0.03
"""Relative deviation from the photon-transfer law that is expected before looking at a knot's
own pairs: knots with few pairs lean on the law, knots with many speak for themselves."""
LEAST_COMPONENT_SHARE = 0.05
"""No component is narrower than this share of the total variance."""
_FINE_BINS = 1024
_Z_STEP = 0.05
_Z_LIMIT = 9.0
_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True, eq=False)
class GaussianMixtureNoiseModel:
    """p(x | s) as a Gaussian mixture whose parameters follow the signal.

    Attributes
    ----------
    signal_adu, variance_adu2
        (J,) knots of the total variance, linear in between.
    shape_signal_adu
        (H,) knots of the standardised form.
    shape_weights, shape_offsets, shape_variances
        (K, H): Σ w = 1, Σ w·o = 0, Σ w·(v + o²) = 1.
    photon_transfer
        The law outside the calibrated range.
    codes
        The camera's range and rounding.
    fingerprint
        The camera and setting that it belongs to.
    source
        'calibrated', or 'bootstrapped' from ordinary data.
    maps
        Per-pixel offset, variance and response over `fingerprint.roi`, where measured.
    record
        What the calibration found (its JSON result), kept with the model.
    """

    signal_adu: FloatArray
    variance_adu2: FloatArray
    shape_signal_adu: FloatArray
    shape_weights: FloatArray
    shape_offsets: FloatArray
    shape_variances: FloatArray
    photon_transfer: PhotonTransfer
    codes: Codes = SIXTEEN_BIT
    fingerprint: CameraFingerprint = field(default_factory=CameraFingerprint)
    source: Literal["calibrated", "bootstrapped"] = "calibrated"
    maps: PixelMaps | None = None
    record: Mapping[str, Any] = field(default_factory=dict)

    def save(self, path: Path | str, *, overwrite: bool = True) -> None:
        """Write the model to an npz file, in one visible step.

        Raises
        ------
        OutputError
            If `path` exists and `overwrite` is False, or cannot be written.
        """
        from .noise_files import save_noise_model

        save_noise_model(self, Path(path), overwrite=overwrite)

    @property
    def signal_range_adu(self) -> tuple[float, float]:
        """The calibrated range of signals, ADU."""
        return float(self.signal_adu[0]), float(self.signal_adu[-1])

    @property
    def least_variance_adu2(self) -> float:
        """The variance floor: that of the dark frames, and never less than rounding makes."""
        rounding = QUANTISATION_VARIANCE_ADU2 * self.codes.step**2
        return max(self.photon_transfer.dark_variance_adu2, rounding, 1e-6)

    def variance(self, signal: ArrayLike) -> FloatArray:
        """Return Var[observation | signal] in ADU², elementwise.

        Between knots it is interpolated; beyond them it continues with the slope of the
        photon-transfer law.
        """
        s = np.asarray(signal, dtype=np.float64)
        low, high = self.signal_range_adu
        inside = np.interp(s, self.signal_adu, self.variance_adu2)
        beyond = s - np.clip(s, low, high)
        total: FloatArray = np.maximum(
            inside + self.photon_transfer.gain_adu_per_e * beyond, self.least_variance_adu2
        )
        return total

    def components(self, signal: FloatArray) -> tuple[FloatArray, FloatArray, FloatArray]:
        """Return weights, offsets (ADU) and variances (ADU²) of the components, (K, M) each."""
        place = self._place(signal)
        weights = _rows(place, self.shape_weights)
        offsets = _rows(place, self.shape_offsets)
        shares = _rows(place, self.shape_variances)
        offsets = offsets - (weights * offsets).sum(axis=0)
        scale = (weights * (shares + offsets**2)).sum(axis=0)
        total = self.variance(signal)
        return weights, offsets * np.sqrt(total / scale), shares * total / scale

    def log_likelihood(self, observation: ArrayLike, signal: ArrayLike) -> FloatArray:
        """Return log p(observation | signal), elementwise and broadcast; ADU in, nats out.

        The probability of the camera's code: rounding and clipping included, so that it sums to 1
        over the camera's codes for any signal.
        """
        x, s = np.broadcast_arrays(
            np.asarray(observation, dtype=np.float64), np.asarray(signal, dtype=np.float64)
        )
        out = np.empty(x.size)
        flat_x, flat_s = x.ravel(), s.ravel()
        for start in range(0, x.size, _CHUNK):
            part = slice(start, start + _CHUNK)
            weights, offsets, variances = self.components(flat_s[part])
            out[part] = mixture_log_likelihood(
                flat_x[part], flat_s[part] + offsets, variances, weights, self.codes
            )
        return out.reshape(x.shape)

    def mixture(self, signal: ArrayLike) -> MixtureTable:
        """Tabulate the model at the given signals (G,)."""
        grid = np.asarray(signal, dtype=np.float64)
        weights, offsets, variances = self.components(grid)
        return MixtureTable(signal=grid, weights=weights, offsets=offsets, variances=variances)

    def _place(self, signal: FloatArray) -> tuple[FloatArray, FloatArray]:
        knots = np.arange(self.shape_signal_adu.size, dtype=np.float64)
        return np.interp(signal, self.shape_signal_adu, knots), knots


def _rows(place: tuple[FloatArray, FloatArray], table: FloatArray) -> FloatArray:
    position, knots = place
    return np.stack([np.interp(position, knots, row) for row in table])


# ------------------------------------------------------------------------------- the fit


def fit_gaussian_mixture(
    signal: FloatArray,
    observation: FloatArray,
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
    signal, observation
        (M,) pairs, ADU, residuals unbiased (see `signal_observation_pairs`).
    photon_transfer
        The law that knots with few pairs lean on, and that holds outside the range.

    Raises
    ------
    CalibrationError
        With fewer than 1,000 pairs.
    """
    if signal.size < 1000:
        raise CalibrationError(
            f"noise model: {signal.size} signal-observation pairs, expected at least 1000; "
            "give more repeats or larger frames"
        )
    coordinate = _stabilising_coordinate(signal, photon_transfer)
    place = _fine_bins(signal, coordinate)
    residual_square = (observation - signal) ** 2
    count = np.bincount(place, minlength=_FINE_BINS).astype(np.float64)
    cells = _cells(count, min(VARIANCE_KNOTS, max(1, signal.size // PAIRS_PER_KNOT)))
    cell_of_bin = np.repeat(np.arange(len(cells)), [stop - start for start, stop in cells])
    cell_count = _sum_cells(count, cells)
    knots = _sum_cells(_weighted(place, signal), cells) / cell_count
    found = _sum_cells(_weighted(place, residual_square), cells) / cell_count
    model = GaussianMixtureNoiseModel(
        signal_adu=knots,
        variance_adu2=_leaning_on_law(found, cell_count, photon_transfer.variance(knots)),
        shape_signal_adu=knots[:1],
        shape_weights=np.full((components, 1), 1 / components),
        shape_offsets=np.zeros((components, 1)),
        shape_variances=np.ones((components, 1)),
        photon_transfer=photon_transfer,
        codes=codes,
        fingerprint=fingerprint or CameraFingerprint(),
        source=source,
    )
    groups = _shape_groups(cell_count)
    group_of_bin = groups[cell_of_bin]
    return _fit_shapes(model, signal, observation, group_of_bin[place], components, on_progress)


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


def _cells(count: FloatArray, wanted: int) -> list[tuple[int, int]]:
    """Join neighbouring bins until each cell holds its share of the pairs.

    A cell also ends before a wide gap without light, so that no knot stands where no pair is.
    """
    share = count.sum() / wanted
    gap = max(4, _FINE_BINS // 64)
    cells, start, held, empty = [], 0, 0.0, 0
    for place, found in enumerate(count):
        if found and held and ((empty >= gap and held >= share / 8) or held >= share):
            cells.append((start, place))
            start, held = place, 0.0
        held += found
        empty = 0 if found else empty + 1
    cells.append((start, count.size))
    if len(cells) > 1 and held < share / 8:
        cells[-2:] = [(cells[-2][0], count.size)]
    return cells


def _sum_cells(values: FloatArray, cells: list[tuple[int, int]]) -> FloatArray:
    return np.array([values[start:stop].sum() for start, stop in cells])


def _leaning_on_law(found: FloatArray, count: FloatArray, law: FloatArray) -> FloatArray:
    own, trusted = count / 2, 1 / LAW_TRUST**2
    return (own * found + trusted * law) / (own + trusted)


def _shape_groups(cell_count: FloatArray) -> np.ndarray:
    """Return the shape group of every variance cell: neighbours joined, enough pairs in each."""
    share = max(cell_count.sum() / SHAPE_KNOTS, PAIRS_PER_SHAPE)
    group, held = 0, 0.0
    groups = np.empty(cell_count.size, dtype=np.intp)
    for cell, found in enumerate(cell_count):
        if held >= share:
            group, held = group + 1, 0.0
        groups[cell] = group
        held += found
    if group and held < share / 4:
        groups[groups == group] = group - 1
    return groups


def _fit_shapes(
    model: GaussianMixtureNoiseModel,
    signal: FloatArray,
    observation: FloatArray,
    group: np.ndarray,
    components: int,
    on_progress: Callable[[float], None] | None,
) -> GaussianMixtureNoiseModel:
    scale = np.sqrt(model.variance(signal))
    z = (observation - signal) / scale
    number = int(group.max()) + 1
    shapes, knots = [], []
    start: FloatArray | None = None
    for index in range(number):
        chosen = group == index
        clipped = chosen & (observation <= model.codes.low + 1e-6)
        residuals = _Residuals.of(z, scale, chosen, clipped, model.codes)
        shape, start = _fit_shape(residuals, components, start)
        shapes.append(shape)
        knots.append(float(signal[chosen].mean()))
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
    """Standardised residuals of one stretch of signal, counted on a fine grid."""

    z: FloatArray
    count: FloatArray
    clipped_z: FloatArray
    clipped_count: FloatArray
    half_step: float
    """Half a rounding step in units of the standard deviation."""

    @classmethod
    def of(
        cls,
        z: FloatArray,
        scale: FloatArray,
        chosen: np.ndarray,
        clipped: np.ndarray,
        codes: Codes,
    ) -> _Residuals:
        centres, count = _counted(z[chosen & ~clipped])
        clipped_centres, clipped_count = _counted(z[clipped])
        half = codes.step / 2 * float((1 / scale[chosen]).mean())
        return cls(centres, count, clipped_centres, clipped_count, half)

    @property
    def total(self) -> float:
        return float(self.count.sum() + self.clipped_count.sum())


def _counted(z: FloatArray) -> tuple[FloatArray, FloatArray]:
    bins = int(2 * _Z_LIMIT / _Z_STEP)
    place = np.clip(((z + _Z_LIMIT) / _Z_STEP).astype(np.intp), 0, bins - 1)
    count = np.bincount(place, minlength=bins).astype(np.float64)
    centres = np.bincount(place, z, bins)
    used = count > 0
    return centres[used] / count[used], count[used]


def _fit_shape(
    residuals: _Residuals, components: int, start: FloatArray | None
) -> tuple[FloatArray, FloatArray]:
    """Maximise the likelihood of a standardised mixture; returns it and its raw parameters."""
    gaussian = np.stack(
        [np.full(components, 1 / components), np.zeros(components), np.ones(components)]
    )
    first = _spread_start(components)
    starts = [first] if start is None else [start, first]
    best = min(
        (
            minimize(_shape_loss, x, args=(residuals,), method="L-BFGS-B", options={"maxiter": 80})
            for x in starts
        ),
        key=lambda found: float(found.fun),
    )
    # More parameters have to earn their keep (Schwarz 1978): where the noise is Gaussian the
    # model says so.
    penalty = (3 * components - 3) / 2 * np.log(max(residuals.total, 2)) / residuals.total
    if float(best.fun) + penalty >= _negative_log_likelihood(gaussian, residuals):
        return gaussian, first
    return _shape(best.x), best.x


def _spread_start(components: int) -> FloatArray:
    spread = np.linspace(-0.6, 0.9, components)
    return np.concatenate([np.linspace(0.5, -0.5, components), spread, np.zeros(components)])


def _shape(raw: FloatArray) -> FloatArray:
    """Return (3, K) weights, offsets, variances with mean 0 and variance 1."""
    logits, offsets, log_shares = raw.reshape(3, -1)
    weights = np.exp(logits - logits.max())
    weights /= weights.sum()
    offsets = offsets - (weights * offsets).sum()
    shares = np.exp(np.clip(log_shares, -12, 12))
    scale = (weights * (shares + offsets**2)).sum()
    shares, offsets = shares / scale, offsets / np.sqrt(scale)
    # The floor on the shares is paid for by the offsets, so that the variance stays 1.
    shares = LEAST_COMPONENT_SHARE + (1 - LEAST_COMPONENT_SHARE) * shares
    offsets = offsets * np.sqrt(1 - LEAST_COMPONENT_SHARE)
    return np.stack([weights, offsets, shares])


def _shape_loss(raw: FloatArray, residuals: _Residuals) -> float:
    return _negative_log_likelihood(_shape(raw), residuals) + 1e-6 * float((raw**2).mean())


def _negative_log_likelihood(shape: FloatArray, residuals: _Residuals) -> float:
    weights, offsets, variances = (row[:, None] for row in shape)
    step = 2 * residuals.half_step
    codes = Codes(-np.inf, np.inf, step)
    total = residuals.count @ mixture_log_likelihood(
        residuals.z, offsets, variances, weights, codes
    )
    if residuals.clipped_count.size:
        # Below the first code lies all that the camera could not report.
        total += residuals.clipped_count @ mixture_log_likelihood(
            residuals.clipped_z, offsets, variances, weights, Codes(1e9, 2e9, step)
        )
    return float(-total / residuals.total)
