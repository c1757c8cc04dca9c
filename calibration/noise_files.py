"""Our noise models on disk.

Owns our npz: no pickles, versioned, and read back by its own reader before it counts as written.
The files of juglab and CAREamics are opened here too; their form lives in `juglab_files`, the
limits of what is read in `bounded_npz`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, ValidationError, field_validator, model_validator

from ..storage.atomic_output import new_file
from ..storage.output_kinds import Kind
from .bounded_npz import read_npz
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
VERSION = 2
READABLE = (1, 2)
"""Version 1 knew no pivot of the law, and wrote infinity as null; now it is the string "Infinity",
so that the header is plain JSON."""
TABLES = (
    "signal_adu",
    "variance_adu2",
    "shape_signal_adu",
    "shape_weights",
    "shape_offsets",
    "shape_variances",
)
MAPS = ("offset_adu", "variance_adu2", "response", "hot", "dead")
FACTS = ("format", "version", "header")
MAP_PREFIX = "map_"


class _Interval(BaseModel):
    model_config = ConfigDict(extra="forbid", ser_json_inf_nan="strings")
    value: float
    low: float
    high: float

    @field_validator("low", mode="before")
    @classmethod
    def _without_lower_end(cls, found: Any) -> Any:
        return -np.inf if found is None else found

    @field_validator("high", mode="before")
    @classmethod
    def _without_upper_end(cls, found: Any) -> Any:
        return np.inf if found is None else found

    @model_validator(mode="after")
    def _holds_its_value(self) -> _Interval:
        if not (np.isfinite(self.value) and self.low <= self.value <= self.high):
            raise ValueError(f"an interval of {self.low} to {self.high} around {self.value}")
        return self


class _Header(BaseModel):
    """What is not an array; read from disk, so anything unknown is refused."""

    model_config = ConfigDict(extra="forbid", ser_json_inf_nan="strings")

    gain: _Interval
    intercept_adu2: float
    offset: _Interval | None
    read_noise: _Interval | None
    dark_variance_adu2: float
    saturation_adu: float
    saturation_reached: bool
    nonlinearity: float | None
    excess_noise_ratio: _Interval | None
    pivot_adu: float | None = None
    pivot_half_adu2: float = 0.0
    summed_correlation: float = 1.0
    codes: tuple[float, float, float]
    fingerprint: CameraFingerprint
    source: Literal["calibrated", "bootstrapped"]
    record: dict[str, Any]

    @model_validator(mode="after")
    def _is_a_law(self) -> _Header:
        numbers = [self.intercept_adu2, self.dark_variance_adu2, self.saturation_adu]
        numbers += [self.pivot_adu or 0.0, self.pivot_half_adu2, self.summed_correlation]
        if (
            not np.isfinite(numbers).all()
            or min(self.gain.value, self.summed_correlation) <= 0
            or self.dark_variance_adu2 < 0
        ):
            raise ValueError("a photon-transfer law that is none")
        low, high, step = self.codes
        if not (low < high and step >= 0 and np.isfinite(step)):
            raise ValueError(f"codes from {low} to {high} in steps of {step}")
        return self


def save_noise_model(
    model: GaussianMixtureNoiseModel, path: Path | str, *, overwrite: bool = True
) -> None:
    """Write a noise model, its maps and its record, in one visible step.

    What was written is opened by `load_noise_model`'s own reader before it becomes `path`.

    Raises
    ------
    OutputError
        If `path` exists and `overwrite` is False, or cannot be written.
    CalibrationError
        If the model is not sound, so that no reader would take it; then nothing is written.
    """
    path = Path(path)
    with new_file(path, overwrite=overwrite, kind=Kind.NOISE_MODEL) as staging:
        try:
            arrays = _arrays_of(model)
            with staging.open("wb") as file:
                np.savez(file, allow_pickle=False, **arrays)
            again = _from_arrays(_read(staging))
        except (CalibrationError, KeyError, ValueError) as error:
            raise CalibrationError(
                f"{path}: not written, because this noise model is not sound "
                f"({_first_line(error)}); calibrate anew, or give other recordings"
            ) from error
        if not _same(arrays, _arrays_of(again)):
            raise CalibrationError(
                f"{path}: not written, because it was read back otherwise than it was written; "
                "check the disk and write it anew"
            )


def _arrays_of(model: GaussianMixtureNoiseModel) -> dict[str, NDArray[Any]]:
    header = _Header.model_validate(
        {
            **asdict(model.photon_transfer),
            "codes": tuple(model.codes),
            "fingerprint": model.fingerprint,
            "source": model.source,
            "record": dict(model.record),
        }
    )
    arrays: dict[str, NDArray[Any]] = {name: getattr(model, name) for name in TABLES}
    if model.maps is not None:
        found = {name: getattr(model.maps, name) for name in MAPS}
        arrays |= {MAP_PREFIX + name: value for name, value in found.items() if value is not None}
    facts = {"format": FORMAT, "version": VERSION, "header": header.model_dump_json()}
    return {name: np.array(value) for name, value in facts.items()} | arrays


def _same(written: Mapping[str, NDArray[Any]], found: Mapping[str, NDArray[Any]]) -> bool:
    return written.keys() == found.keys() and all(
        np.array_equal(array, found[name]) for name, array in written.items() if name != "header"
    )


def load_noise_model(path: Path | str) -> GaussianMixtureNoiseModel:
    """Open a noise model: ours, or one of juglab's or CAREamics'.

    Raises
    ------
    CalibrationError
        If the file is missing, no noise model, damaged, or of another version.
    """
    path = Path(path)
    arrays = _read(path)
    if set(JUGLAB_KEYS) <= set(arrays):
        return model_from_juglab(path, arrays)
    if "format" not in arrays or str(arrays["format"]) != FORMAT:
        raise CalibrationError(
            f"{path}: holds {', '.join(sorted(arrays)) or 'nothing of a noise model'}, expected a "
            "noise model of quietscope, PPN2V or CAREamics; make one with quietscope calibrate or "
            "fit-noise"
        )
    version = " ".join(str(arrays.get("version", "none")).split())
    if version not in map(str, READABLE):
        raise CalibrationError(
            f"{path}: noise model of version {version:.20}, expected {VERSION}; "
            "update quietscope or calibrate anew"
        )
    try:
        return _from_arrays(arrays)
    except (KeyError, ValueError) as error:
        raise CalibrationError(
            f"{path}: damaged noise model ({_first_line(error)}); restore the file or calibrate "
            "anew"
        ) from error


def noise_model_sha256(path: Path | str) -> str:
    """Return the SHA-256 of a noise model's file, in hex."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _first_line(error: Exception) -> str:
    """Return what is wrong, in a line: of a validation error the place and the sentence."""
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"])) or "header"
        return f"{place}: {first['msg']}".splitlines()[0]
    return f"{error}".splitlines()[0] if str(error) else type(error).__name__


def _read(path: Path) -> dict[str, NDArray[Any]]:
    names = {*TABLES, *FACTS, *JUGLAB_KEYS, *(MAP_PREFIX + name for name in MAPS)}
    return read_npz(path, names, per_pixel=MAP_PREFIX)


def _from_arrays(arrays: Mapping[str, NDArray[Any]]) -> GaussianMixtureNoiseModel:
    header = _Header.model_validate_json(str(arrays["header"]))
    tables = {name: _numbers(name, arrays[name]) for name in TABLES}
    _require_sound(tables)
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
            pivot_adu=header.pivot_adu,
            pivot_half_adu2=header.pivot_half_adu2,
            summed_correlation=header.summed_correlation,
        ),
        codes=Codes(*header.codes),
        fingerprint=header.fingerprint,
        source=header.source,
        maps=_maps(arrays),
        record=header.record,
    )


def _numbers(name: str, array: NDArray[Any]) -> FloatArray:
    if array.dtype.kind not in "fiub":
        raise ValueError(f"{name} holds {array.dtype}, expected numbers")
    numbers: FloatArray = np.asarray(array, dtype=np.float64)
    if not np.isfinite(numbers).all():
        raise ValueError(f"{name} holds NaN or infinity")
    return numbers


def _maps(arrays: Mapping[str, NDArray[Any]]) -> PixelMaps | None:
    found = {name: arrays[MAP_PREFIX + name] for name in MAPS if MAP_PREFIX + name in arrays}
    if not found:
        return None
    offset = _numbers("the offset map", found["offset_adu"])
    if offset.ndim != 2 or any(one.shape != offset.shape for one in found.values()):
        raise ValueError("its pixel maps do not fit each other")
    response = found.get("response")
    return PixelMaps(
        offset_adu=offset,
        variance_adu2=_numbers("the variance map", found["variance_adu2"]),
        response=None if response is None else _numbers("the response map", response),
        hot=found["hot"].astype(bool),
        dead=found["dead"].astype(bool),
    )


def _interval(found: _Interval) -> Interval:
    return Interval(found.value, found.low, found.high)


def _interval_or_none(found: _Interval | None) -> Interval | None:
    return None if found is None else _interval(found)


def _require_sound(tables: Mapping[str, FloatArray]) -> None:
    knots, shapes = tables["signal_adu"], tables["shape_signal_adu"]
    if knots.ndim != 1 or not knots.size or tables["variance_adu2"].shape != knots.shape:
        raise ValueError("its variance table does not fit its signals")
    if shapes.ndim != 1 or not shapes.size:
        raise ValueError("its forms have no signals")
    if (np.diff(knots) <= 0).any() or (np.diff(shapes) <= 0).any():
        raise ValueError("its signals do not rise")
    rows = tables["shape_weights"].shape
    if len(rows) != 2 or not rows[0] or rows[1] != shapes.size:
        raise ValueError("its weights do not fit the signals of its forms")
    if any(tables[name].shape != rows for name in TABLES[4:]):
        raise ValueError("its mixture tables do not fit each other")
    if (tables["variance_adu2"] <= 0).any() or (tables["shape_variances"] <= 0).any():
        raise ValueError("it holds variances of zero or less")
    weights = tables["shape_weights"]
    if (weights < 0).any() or not np.allclose(weights.sum(axis=0), 1, atol=1e-6):
        raise ValueError("its weights are no shares that add up to 1")
