"""What only a simulation can prove: raw frames bit for bit, and scores against the truth."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..acquisition.errors import AcquisitionError
from ..acquisition.microscope.specimen import Specimen
from ..inference.evaluation.metrics import psnr_db
from ..storage.open_stack import open_stack


class GivenFrames:
    """What the camera gave for each time point, by its hash."""

    def __init__(self) -> None:
        self._sha256: dict[int, bytes] = {}

    def note(self, time_point: int, pixels: NDArray[Any]) -> NDArray[Any]:
        """Keep the hash of a frame (Y, X), and return the frame itself."""
        self._sha256[time_point] = _sha256(pixels)
        return pixels

    def verify(self, run: Path) -> None:
        """Compare every recorded frame with what the camera gave, bit for bit.

        Raises
        ------
        AcquisitionError
            With the first frame that differs or is not there.
        """
        raw = open_stack(run / "raw.ome.zarr")
        for time_point, sha256 in self._sha256.items():
            if time_point >= len(raw) or _sha256(raw.frame(time_point)) != sha256:
                raise AcquisitionError(
                    f"{run}: raw frame {time_point} differs from the frame that the camera "
                    "delivered; please report this with the run's events.log"
                )


def _sha256(pixels: NDArray[Any]) -> bytes:
    return hashlib.sha256(np.ascontiguousarray(pixels).data).digest()


def score_run(run: Path, specimen: Specimen, first_index: int) -> dict[str, float]:
    """Score a run's raw and denoised frames against the specimen's truth, means over frames."""
    raw = open_stack(run / "raw.ome.zarr")
    denoised = open_stack(run / "denoised.ome.zarr").channel(0)
    scores = []
    for index in range(len(raw)):
        truth = specimen.truth(first_index + index)
        scores.append((psnr_db(raw.frame(index), truth), psnr_db(denoised.frame(index), truth)))
    before, after = zip(*scores, strict=True)
    return {
        "psnr_raw_db": sum(before) / len(before),
        "psnr_denoised_db": sum(after) / len(after),
    }
