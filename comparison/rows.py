"""What is known of each contestant, on disk as soon as it is known.

Owns the folder of a comparison: a killed one goes on with the rows that are there. Nothing is
measured here.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np

from ..inference.bundle import LOSSES
from ..storage.atomic_output import clear_directory, new_file, write_json
from ..storage.bounded_text import read_text
from ..storage.output_kinds import COMPARISON_SETTINGS, Kind
from .contestants import Contestant
from .errors import ComparisonError
from .score import FloatImage, Measured, Picture

RESULT = "comparison.json"
PAGE = "comparison.html"


@dataclass(frozen=True, slots=True)
class Row:
    """One contestant and what it is worth.

    Attributes
    ----------
    contestant
        Who.
    figures, per_frame
        See `Measured`; empty where it was left out.
    facts
        Strength, parameters, minutes of training, memory, whatever there is to say of it.
    remarks
        What a person should know.
    left_out
        Why it has no figures; None where it has.
    """

    contestant: Contestant
    figures: Mapping[str, float | None] = field(default_factory=dict)
    per_frame: Mapping[str, list[float]] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()
    left_out: str | None = None

    @property
    def name(self) -> str:
        """Of the contestant."""
        return self.contestant.name

    def result(self) -> dict[str, Any]:
        """Return it as JSON."""
        return {
            "name": self.name,
            **self.contestant.described(),
            **self.facts,
            **self.figures,
            "per_frame": dict(self.per_frame),
            "remarks": list(self.remarks),
            "left_out": self.left_out,
        }


class ComparisonFolder:
    """Where a comparison is kept; the caller owns it.

    Parameters
    ----------
    path
        The folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def begin(self, settings: Mapping[str, Any], *, resume: bool, overwrite: bool) -> None:
        """Make the folder, or see that the one which is there was begun with the same settings.

        Raises
        ------
        ComparisonError
            If there is nothing to resume, or it was begun with other settings.
        OutputError
            If something stands there already.
        """
        file = self.path / COMPARISON_SETTINGS
        if not resume:
            clear_directory(self.path, Kind.COMPARISON, overwrite=overwrite)
            write_json(file, settings)
            return
        try:
            begun = dict(json.loads(read_text(file)))
        except (OSError, ValueError, TypeError) as error:
            raise ComparisonError(
                f"{self.path}: holds no comparison to resume; start without --resume"
            ) from error
        plain = json.loads(json.dumps(settings))
        if different := sorted(name for name in plain if begun.get(name) != plain[name]):
            name = different[0]
            raise ComparisonError(
                f"--resume: {name} is {plain[name]}, the comparison was begun with "
                f"{begun.get(name)}; give the same, or another --out"
            )

    def bundle(self, contestant: Contestant) -> Path:
        """Return where a model that is trained here lies."""
        return self.path / "trained" / contestant.key

    def keep(self, row: Row, measured: Measured | None) -> None:
        """Write a row; its picture first, so that a row has one."""
        if measured is not None:
            picture = measured.picture
            arrays: dict[str, Any] = {"estimate": picture.estimate, "raw": picture.raw}
            if picture.truth is not None:
                arrays["truth"] = picture.truth
            with (
                new_file(self._file(row.contestant, "npz")) as staging,
                staging.open("wb") as file,
            ):
                np.savez(file, **arrays)
        content = {
            "figures": dict(row.figures),
            "per_frame": dict(row.per_frame),
            "facts": dict(row.facts),
            "remarks": list(row.remarks),
            "left_out": row.left_out,
        }
        write_json(self._file(row.contestant, "json"), content)

    def kept(self, contestant: Contestant) -> Row | None:
        """Return the row of an earlier run; None where there is none whole, or it was left out.

        Infinite scores are none in JSON: such a row is measured again.
        """
        try:
            self.picture(contestant)
            found = json.loads(read_text(self._file(contestant, "json")))
            row = Row(contestant, **{**found, "remarks": tuple(found["remarks"])})
            whole = all(None not in scores for scores in row.per_frame.values())
        except (OSError, ValueError, TypeError, KeyError, AttributeError, BadZipFile):
            return None
        return None if row.left_out or not whole else row

    def picture(self, contestant: Contestant) -> Picture:
        """Read the picture of a row."""
        with np.load(self._file(contestant, "npz"), allow_pickle=False) as file:
            held: dict[str, FloatImage] = {name: file[name] for name in file.files}
        return Picture(held["estimate"], held["raw"], held.get("truth"))

    def losses(self, contestant: Contestant) -> list[dict[str, float]]:
        """Return the training curve of a model; nothing where it has none, or none of numbers."""
        folder = (
            self.bundle(contestant) if contestant.kind == "trained" else Path(contestant.method)
        )
        try:
            lines = read_text(folder / LOSSES).splitlines()
            curve = [
                {name: float(value) for name, value in row.items()}
                for row in csv.DictReader(lines)
            ]
        except (OSError, ValueError, TypeError, csv.Error):
            return []
        return curve if all(isfinite(v) for row in curve for v in row.values()) else []

    def _file(self, contestant: Contestant, suffix: str) -> Path:
        return self.path / "rows" / f"{contestant.key}.{suffix}"
