"""Noise models on disk.

Owns our npz (no pickles, versioned) and the npz of juglab's PPN2V and DivNoising and of
CAREamics, in both directions. Theirs describe each of the Gaussians by polynomials of
u = (s − min_signal)/(max_signal − min_signal), row by row of `trained_weight`:

    mean_k      s + p_k(u) − Σ_j α_j p_j(u)      first third of the rows
    variance_k  max(Σ_i exp(c_ki)·uⁱ, min_sigma) second third ('min_sigma' is a variance)
    α_k         softmax over k of q_k(u)         last third
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError
from scipy.optimize import minimize

from ..storage.atomic_output import new_file
from .errors import CalibrationError
from .fingerprint import CameraFingerprint
from .gaussian_mixture import GaussianMixtureNoiseModel
from .likelihood import Codes
from .noise_model import FloatArray, MixtureTable, NoiseModel
from .photon_transfer import Interval, PhotonTransfer
from .pixel_maps import PixelMaps

FORMAT = "quietscope-noise-model"
VERSION = 1
TABLES = (
    "signal_adu",
    "variance_adu2",
    "shape_signal_adu",
    "shape_weights",
    "shape_offsets",
    "shape_variances",
)
MAPS = ("offset_adu", "variance_adu2", "response", "hot", "dead")
JUGLAB_KEYS = ("trained_weight", "min_signal", "max_signal", "min_sigma")
_JUGLAB_KNOTS = 513


class _Interval(BaseModel):
    model_config = ConfigDict(extra="forbid")
    value: float
    low: float
    high: float


class _Header(BaseModel):
    """What is not an array; read from disk, so anything unknown is refused."""

    model_config = ConfigDict(extra="forbid", ser_json_inf_nan="constants")

    gain: _Interval
    intercept_adu2: float
    offset: _Interval | None
    read_noise: _Interval | None
    dark_variance_adu2: float
    saturation_adu: float
    saturation_reached: bool
    nonlinearity: float | None
    excess_noise_ratio: _Interval | None
    codes: tuple[float, float, float]
    fingerprint: CameraFingerprint
    source: str
    record: dict[str, Any]


def save_noise_model(
    model: GaussianMixtureNoiseModel, path: Path, *, overwrite: bool = True
) -> None:
    """Write a noise model, its maps and its record to `path`."""
    header = _Header.model_validate(
        {
            **asdict(model.photon_transfer),
            "codes": tuple(model.codes),
            "fingerprint": model.fingerprint,
            "source": model.source,
            "record": dict(model.record),
        }
    )
    arrays: dict[str, Any] = {name: getattr(model, name) for name in TABLES}
    if model.maps is not None:
        found = {name: getattr(model.maps, name) for name in MAPS}
        arrays |= {f"map_{name}": value for name, value in found.items() if value is not None}
    with new_file(path, overwrite=overwrite) as staging, staging.open("wb") as file:
        np.savez(
            file,
            allow_pickle=False,
            format=np.array(FORMAT),
            version=np.array(VERSION),
            header=np.array(header.model_dump_json()),
            **arrays,
        )


def load_noise_model(path: Path | str) -> GaussianMixtureNoiseModel:
    """Open a noise model: ours, or one of juglab's or CAREamics'.

    Raises
    ------
    CalibrationError
        If the file is missing, no noise model, damaged, or of another version.
    """
    path = Path(path)
    arrays = _read_arrays(path)
    if set(JUGLAB_KEYS) <= set(arrays):
        return _from_juglab(path, arrays)
    if str(arrays.get("format")) != FORMAT:
        raise CalibrationError(
            f"{path}: holds {', '.join(sorted(arrays)) or 'nothing'}, expected a noise model of "
            "quietscope, PPN2V or CAREamics; make one with quietscope calibrate or fit-noise"
        )
    if int(arrays["version"]) != VERSION:
        raise CalibrationError(
            f"{path}: noise model of version {int(arrays['version'])}, expected {VERSION}; "
            "update quietscope or calibrate anew"
        )
    try:
        return _from_arrays(arrays)
    except (KeyError, ValidationError, ValueError) as error:
        first = str(error).splitlines()[0]
        raise CalibrationError(
            f"{path}: damaged noise model ({first}); restore the file or calibrate anew"
        ) from error


def noise_model_sha256(path: Path | str) -> str:
    """Return the SHA-256 of a noise model's file, in hex."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read_arrays(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as opened:
            file = np.load(opened, allow_pickle=False)
            if not isinstance(file, np.lib.npyio.NpzFile):
                raise CalibrationError(f"{path}: a single array, expected an npz noise model")
            return {name: file[name] for name in file.files}
    except OSError as error:
        raise CalibrationError(
            f"{path}: no readable noise model ({error.strerror or error}); give an npz that "
            "quietscope calibrate or fit-noise wrote"
        ) from error
    except (ValueError, zipfile.BadZipFile, EOFError) as error:
        raise CalibrationError(
            f"{path}: no noise model ({str(error).splitlines()[0]}); give an npz that quietscope "
            "calibrate or fit-noise wrote"
        ) from error


def _from_arrays(arrays: Mapping[str, Any]) -> GaussianMixtureNoiseModel:
    header = _Header.model_validate_json(str(arrays["header"]))
    tables = {name: np.asarray(arrays[name], dtype=np.float64) for name in TABLES}
    _require_sound(tables)
    maps = None
    if "map_offset_adu" in arrays:
        found: dict[str, Any] = {name: arrays.get(f"map_{name}") for name in MAPS}
        maps = PixelMaps(**found)
    source = header.source
    if source not in ("calibrated", "bootstrapped"):
        raise ValueError(f"source {source!r}")
    return GaussianMixtureNoiseModel(
        **tables,
        photon_transfer=PhotonTransfer(
            gain=_interval(header.gain),
            intercept_adu2=header.intercept_adu2,
            offset=_interval_or_none(header.offset),
            read_noise=_interval_or_none(header.read_noise),
            dark_variance_adu2=header.dark_variance_adu2,
            saturation_adu=header.saturation_adu,
            saturation_reached=header.saturation_reached,
            nonlinearity=header.nonlinearity,
            excess_noise_ratio=_interval_or_none(header.excess_noise_ratio),
        ),
        codes=Codes(*header.codes),
        fingerprint=header.fingerprint,
        source="calibrated" if source == "calibrated" else "bootstrapped",
        maps=maps,
        record=header.record,
    )


def _interval(found: _Interval) -> Interval:
    return Interval(found.value, found.low, found.high)


def _interval_or_none(found: _Interval | None) -> Interval | None:
    return None if found is None else _interval(found)


def _require_sound(tables: Mapping[str, FloatArray]) -> None:
    if not all(np.isfinite(table).all() for table in tables.values()):
        raise ValueError("its tables hold NaN or infinity")
    knots, shapes = tables["signal_adu"], tables["shape_signal_adu"]
    if knots.ndim != 1 or tables["variance_adu2"].shape != knots.shape:
        raise ValueError("its variance table does not fit its signals")
    if (np.diff(knots) <= 0).any() or (np.diff(shapes) <= 0).any():
        raise ValueError("its signals do not rise")
    rows = tables["shape_weights"].shape
    if any(tables[n].shape != rows for n in TABLES[4:]) or rows[-1] != shapes.size:
        raise ValueError("its mixture tables do not fit each other")
    if (tables["variance_adu2"] <= 0).any() or (tables["shape_variances"] <= 0).any():
        raise ValueError("it holds variances of zero or less")
    if not np.allclose(tables["shape_weights"].sum(axis=0), 1, atol=1e-6):
        raise ValueError("its weights do not add up to 1")


# --------------------------------------------------------------- juglab's and CAREamics' form


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


def _from_juglab(path: Path, arrays: Mapping[str, Any]) -> GaussianMixtureNoiseModel:
    weight = np.asarray(arrays["trained_weight"], dtype=np.float64)
    low, high, least = (
        float(np.ravel(arrays[name])[0]) for name in ("min_signal", "max_signal", "min_sigma")
    )
    if weight.ndim != 2 or weight.shape[0] % 3 or not high > low:
        raise CalibrationError(
            f"{path}: trained_weight of shape {weight.shape} and signals {low:g} to {high:g}, "
            "expected (3·gaussians, coefficients) and a rising range; export the model again"
        )
    grid = np.linspace(low, high, _JUGLAB_KNOTS)
    return model_of_table(juglab_mixture(weight, low, high, least, grid))


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
    target = _Quadrature.of(model.mixture(grid))
    least = float(target.total.min()) * 0.5
    start = _juglab_start(target, gaussians, coefficients)

    def loss(raw: FloatArray) -> float:
        weight = raw.reshape(3 * gaussians, coefficients) * scale
        return target.divergence(juglab_mixture(weight, low, high, least, grid))

    # Means are in ADU, all else in logarithms: bring them to one size.
    scale = np.ones((3 * gaussians, coefficients))
    scale[:gaussians] = float(np.sqrt(target.total.mean()))
    found = minimize(loss, (start / scale).ravel(), method="L-BFGS-B", options={"maxiter": 300})
    weight = (found.x.reshape(start.shape) * scale).astype(np.float32)
    with new_file(Path(path), overwrite=overwrite) as staging, staging.open("wb") as file:
        np.savez(
            file,
            allow_pickle=False,
            trained_weight=weight,
            min_signal=np.array([low], dtype=np.float32),
            max_signal=np.array([high], dtype=np.float32),
            min_sigma=np.array(least, dtype=np.float32),
        )
    return float(loss(found.x))


class _Quadrature:
    """Points and masses that stand for p(x | s) on a grid of signals."""

    def __init__(self, table: MixtureTable) -> None:
        self.total = table.total_variance()
        self.x = table.signal + np.linspace(-5, 5, 101)[:, None] * np.sqrt(self.total)
        self.log_p = _log_density(table, self.x)
        mass = np.exp(self.log_p)
        self.mass = mass / mass.sum(axis=0)

    @classmethod
    def of(cls, table: MixtureTable) -> _Quadrature:
        return cls(table)

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


def header_of(path: Path | str) -> dict[str, Any]:
    """Return the header of one of our files as plain JSON, for people."""
    arrays = _read_arrays(Path(path))
    found: dict[str, Any] = json.loads(str(arrays["header"]))
    return found
