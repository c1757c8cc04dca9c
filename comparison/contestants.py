"""Who takes part in a comparison: filters, models that are there, and models to be trained.

Owns the names. Which filters and which algorithms there are is told by their own registries, so
that a new one takes part without a line here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from ..inference.classical.methods import METHODS as FILTERS
from ..training.registry import METHODS as ALGORITHMS
from .errors import ComparisonError

Kind = Literal["filter", "trained", "model"]

ALL = "all"
ALL_FILTERS = "filters"
RAW = "identity"
"""Always takes part: what there was before anything was done."""


@dataclass(frozen=True, slots=True)
class Contestant:
    """One row of the comparison.

    Attributes
    ----------
    kind
        A `filter` needs no training; one is `trained` here; a `model` was trained before.
    method
        Name of the filter or algorithm, or path of the model.
    frames
        How many frames it looks at: the frame itself and those before it. A filter is given their
        mean. 0 where the model itself says how many.
    """

    kind: Kind
    method: str
    frames: int = 1

    @property
    def name(self) -> str:
        """What it is called on the page and in messages."""
        if self.kind == "model":
            return Path(self.method).name
        shown = {RAW: "raw"}.get(self.method, self.method)
        if self.frames <= 1:
            return shown
        return f"mean of {self.frames}" if self.method == RAW else f"{shown}, {self.frames} frames"

    @property
    def key(self) -> str:
        """A name for its files, of letters that every file system takes."""
        plain = re.sub(r"[^a-z0-9]+", "-", f"{self.kind} {self.name}".lower()).strip("-")
        return plain or self.kind

    def described(self) -> Mapping[str, Any]:
        """Return what it is, for the record."""
        return {"kind": self.kind, "method": self.method, "frames": self.frames}


def contestants(methods: Sequence[str], models: Sequence[Path], frames: int) -> list[Contestant]:
    """Return who takes part, quickest kind first.

    Parameters
    ----------
    methods
        Names of filters and algorithms; `all` for all of both, `filters` for all filters.
    models
        Bundles.
    frames
        Each filter and algorithm takes part twice if this is more than one: given the frame alone,
        and given so many.

    Raises
    ------
    ComparisonError
        If a name is neither filter nor algorithm, or two models have one name.
    """
    wanted = list(_expanded(methods))
    if not wanted and not models:
        raise ComparisonError("neither a method nor a model was named; give --methods or --models")
    named = list(dict.fromkeys([RAW, *wanted]))
    counts = [1, frames] if frames > 1 else [1]
    found = [Contestant("filter", name, n) for name in named if name in FILTERS for n in counts]
    found += [Contestant("model", str(path), 0) for path in models]
    found += [
        Contestant("trained", name, n) for name in named if name in ALGORITHMS for n in counts
    ]
    keys = [one.key for one in found]
    if twice := [one.name for one in found if keys.count(one.key) > 1]:
        raise ComparisonError(
            f"two of the models are called {twice[0]}; rename the folder of one of them"
        )
    return found


def _expanded(methods: Sequence[str]) -> Iterator[str]:
    for name in methods:
        if name == ALL:
            yield from (*FILTERS, *ALGORITHMS)
        elif name == ALL_FILTERS:
            yield from FILTERS
        elif name in FILTERS or name in ALGORITHMS:
            yield name
        else:
            raise ComparisonError(
                f"method is {name!r}, expected {ALL}, {ALL_FILTERS}, or some of "
                f"{', '.join([*FILTERS, *ALGORITHMS])}"
            )
