"""NDTiff datasets: no place is written over another."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from quietscope.storage.atomic_output import OutputError
from quietscope.storage.open_stack import open_stack
from quietscope.storage.stack import Stack
from quietscope.storage.writers.ndtiff import NDTiffWriter

SHAPE = (6, 8)
NEAR = (10.000001, 10.000002)
"""Exposures that are one and the same with six digits."""


def test_places_that_are_almost_alike_stay_apart(tmp_path: Path) -> None:
    stack = Stack(
        path=Path("facts"),
        sizes={"exposure": 2},
        frame_shape=SHAPE,
        dtype=np.dtype("uint16"),
        read=lambda _: np.zeros(SHAPE, np.uint16),
        axis_values={"exposure": NEAR},
    )
    with NDTiffWriter(tmp_path / "a", stack) as writer:
        for place in range(2):
            writer.write(np.full(SHAPE, place, np.uint16), {"exposure": place})
        with pytest.raises(OutputError, match="was written already"):
            writer.write(np.zeros(SHAPE, np.uint16), {"exposure": 1})
    found = open_stack(tmp_path / "a")
    assert [int(frame[0, 0]) for frame in found] == [0, 1]
    assert [float(value) for value in found.axis_values["exposure"]] == list(NEAR)
