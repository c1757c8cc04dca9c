"""The npz of juglab's PPN2V and DivNoising and of CAREamics, in both directions.

Owns their parametrisation. Each of the Gaussians is described by polynomials of
u = (s − min_signal)/(max_signal − min_signal), row by row of `trained_weight`:

    mean_k      s + p_k(u) − Σ_j α_j p_j(u)      first third of the rows
    variance_k  max(Σ_i exp(c_ki)·uⁱ, min_sigma) second third ('min_sigma' is a variance)
    α_k         softmax over k of q_k(u)         last third

Our own files are the business of `noise_files`, which opens both.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import scipy
from numpy.typing import NDArray

from ..storage.atomic_output import new_file
from ..storage.output_kinds import Kind
from .bounded_npz import read_npz
from .errors import CalibrationError
from .gaussian_mixture import GaussianMixtureNoiseModel
from .likelihood import Codes
from .noise_model import FloatArray, MixtureTable, NoiseModel
from .photon_transfer import PhotonTransfer
from .straight_line import Interval

JUGLAB_KEYS = ("trained_weight", "min_signal", "max_signal", "min_sigma")
MAX_COEFFICIENTS = 10_000
_KNOTS = 513


def juglab_mixture(
    weight: FloatArray,
    min_signal: float,
    max_signal: float,
    min_variance: float,
    signal: FloatArray,
) -> MixtureTable:
    """Evaluate a model in juglab's parametrisation at `signal` (G,)."""
    gaussians, coefficients = weight.shape[0] // 3, weight.shape[1]
    u = (signal - min_signal) / (max_signal - min_signal)
    powers = u[None, :] ** np.arange(coefficients)[:, None]
    means, log_variances, logits = weight.reshape(3, gaussians, coefficients)
    variances = np.maximum(np.exp(log_variances) @ powers, min_variance)
    scores = logits @ powers
    weights = np.exp(scores - scores.max(axis=0))
    weights /= weights.sum(axis=0)
    offsets = means @ powers
    offsets = offsets - (weights * offsets).sum(axis=0)
    return MixtureTable(signal=signal, weights=weights, offsets=offsets, variances=variances)


def model_from_juglab(path: Path, arrays: Mapping[str, NDArray[Any]]) -> GaussianMixtureNoiseModel:
    """Return the model that the arrays of one of their files hold.

    Raises
    ------
    CalibrationError
        If the arrays do not fit each other.
    """
    if any(arrays[name].dtype.kind not in "fiu" for name in JUGLAB_KEYS):
        raise CalibrationError(f"{path}: holds no numbers; export the model again")
    weight = np.asarray(arrays["trained_weight"], dtype=np.float64)
    low, high, least = (_one_number(arrays[n]) for n in ("min_signal", "max_signal", "min_sigma"))
    if weight.ndim != 2 or weight.shape[0] % 3 or not weight.size or not high > low:
        raise CalibrationError(
            f"{path}: trained_weight of shape {weight.shape} and signals {low:g} to {high:g}, "
            "expected (3·gaussians, coefficients) and a rising range; export the model again"
        )
    if weight.size > MAX_COEFFICIENTS:
        raise CalibrationError(
            f"{path}: {weight.size} coefficients, expected at most {MAX_COEFFICIENTS}; export the "
            "model again"
        )
    grid = np.linspace(low, high, _KNOTS)
    with np.errstate(over="ignore", invalid="ignore"):
        table = juglab_mixture(weight, low, high, least, grid)
        total = table.total_variance()
    if not (np.isfinite(total).all() and (total > 0).all() and np.isfinite(table.weights).all()):
        raise CalibrationError(
            f"{path}: its coefficients give no finite noise between {low:g} and {high:g} ADU; "
            "export the model again"
        )
    return model_of_table(table)


def _one_number(array: NDArray[Any]) -> float:
    """Return the one number of an array; NaN, which nothing exceeds, where it holds others."""
    return float(array.ravel()[0]) if array.size == 1 else float("nan")


def model_of_table(table: MixtureTable) -> GaussianMixtureNoiseModel:
    """Return a tabulated mixture as our model, with a photon-transfer line through it."""
    total = table.total_variance()
    slope, intercept = np.polyfit(table.signal, total, 1)
    gain = max(float(slope), 1e-9)
    least = float(total.min())
    return GaussianMixtureNoiseModel(
        signal_adu=table.signal,
        variance_adu2=total,
        shape_signal_adu=table.signal,
        shape_weights=table.weights,
        shape_offsets=table.offsets / np.sqrt(total),
        shape_variances=table.variances / total,
        photon_transfer=PhotonTransfer(
            gain=Interval(gain, gain, gain),
            intercept_adu2=float(intercept),
            offset=None,
            read_noise=None,
            dark_variance_adu2=least,
            saturation_adu=65535.0,
        ),
        codes=Codes(-np.inf, np.inf, 0.0),
    )


def save_juglab_noise_model(
    model: NoiseModel,
    path: Path | str,
    *,
    gaussians: int = 3,
    coefficients: int = 3,
    overwrite: bool = True,
) -> float:
    """Write a model in the form of juglab's PPN2V, DivNoising and CAREamics.

    Their parametrisation is narrower than ours, so the closest model in it is sought (least
    Kullback–Leibler divergence over the calibrated range).

    Returns
    -------
    The mean divergence in nats that the conversion costs.
    """
    low, high = model.signal_range_adu
    grid = np.linspace(low, high, 48)
    target = _Quadrature(model.mixture(grid))
    least = float(target.total.min()) * 0.5
    start = _juglab_start(target, gaussians, coefficients)

    def loss(raw: FloatArray) -> float:
        weight = raw.reshape(3 * gaussians, coefficients) * scale
        return target.divergence(juglab_mixture(weight, low, high, least, grid))

    # Means are in ADU, all else in logarithms: bring them to one size.
    scale = np.ones((3 * gaussians, coefficients))
    scale[:gaussians] = float(np.sqrt(target.total.mean()))
    found = scipy.optimize.minimize(
        loss, (start / scale).ravel(), method="L-BFGS-B", options={"maxiter": 300}
    )
    weight = (found.x.reshape(start.shape) * scale).astype(np.float32)
    with new_file(Path(path), overwrite=overwrite, kind=Kind.NOISE_MODEL) as staging:
        with staging.open("wb") as file:
            np.savez(
                file,
                allow_pickle=False,
                trained_weight=weight,
                min_signal=np.array([low], dtype=np.float32),
                max_signal=np.array([high], dtype=np.float32),
                min_sigma=np.array(least, dtype=np.float32),
            )
        model_from_juglab(Path(path), read_npz(staging, JUGLAB_KEYS))
    return float(loss(found.x))


class _Quadrature:
    """Points and masses that stand for p(x | s) on a grid of signals."""

    def __init__(self, table: MixtureTable) -> None:
        self.total = table.total_variance()
        self.x = table.signal + np.linspace(-5, 5, 101)[:, None] * np.sqrt(self.total)
        self.log_p = _log_density(table, self.x)
        mass = np.exp(self.log_p)
        self.mass = mass / mass.sum(axis=0)

    def divergence(self, other: MixtureTable) -> float:
        difference = self.log_p - _log_density(other, self.x)
        return float((self.mass * difference).sum(axis=0).mean())


def _log_density(table: MixtureTable, x: FloatArray) -> FloatArray:
    deviation = x[:, None] - table.signal - table.offsets
    terms = table.weights * np.exp(-(deviation**2) / (2 * table.variances))
    density = (terms / np.sqrt(2 * np.pi * table.variances)).sum(axis=1)
    result: FloatArray = np.log(np.maximum(density, 1e-300))
    return result


def _juglab_start(target: _Quadrature, gaussians: int, coefficients: int) -> FloatArray:
    start = np.zeros((3 * gaussians, coefficients))
    low, high = float(target.total[0]), float(target.total[-1])
    start[:gaussians, 0] = np.linspace(-0.5, 0.8, gaussians) * np.sqrt(low)
    start[gaussians : 2 * gaussians, 0] = np.log(low)
    start[gaussians : 2 * gaussians, 1:] = np.log(low * 1e-2)
    if coefficients > 1:
        start[gaussians : 2 * gaussians, 1] = np.log(max(high - low, low * 1e-2))
    return start
