"""Our noise models on disk.

Owns our npz: no pickles, versioned, and read back by its own reader before it counts as written.
The files of juglab and CAREamics are opened here too; their form lives in `juglab_files`.
"""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from ..storage.atomic_output import new_file
from ..storage.output_kinds import Kind
from .errors import CalibrationError
from .fingerprint import CameraFingerprint
from .gaussian_mixture import GaussianMixtureNoiseModel
from .juglab_files import JUGLAB_KEYS, model_from_juglab
from .likelihood import Codes
from .noise_model import FloatArray
from .photon_transfer import PhotonTransfer
from .pixel_maps import PixelMaps
from .straight_line import Interval

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
    written = new_file(path, overwrite=overwrite, kind=Kind.NOISE_MODEL)
    with written as staging, staging.open("wb") as file:
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
        return model_from_juglab(path, arrays)
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
