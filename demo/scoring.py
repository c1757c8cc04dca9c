"""What only a simulation can prove: raw frames bit for bit, and scores against the truth."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..acquisition.errors import AcquisitionError
from ..acquisition.microscope.specimen import Specimen
from ..inference.evaluation.metrics import psnr_db
from ..storage.open_stack import open_stack


def verify_raw(run: Path, specimen: Specimen, first_index: int) -> None:
    """Compare every recorded frame with what was put into the stream, bit for bit.

    Raises
    ------
    AcquisitionError
        With the first frame that differs.
    """
    raw = open_stack(run / "raw.ome.zarr")
    for index in range(len(raw)):
        if not np.array_equal(raw.frame(index), specimen.observe(first_index + index)):
            raise AcquisitionError(
                f"{run}: raw frame {index} differs from the frame that the camera delivered; "
                "please report this with the run's events.log"
            )


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
