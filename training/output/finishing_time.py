"""How long a run takes from its last step to its bundle, on this machine as busy as it is now.

Owns the measurement: the network that will be exported is traced once, and sees one piece of a
frame. Export is many passes over the same graph, the checks are passes over known frames.
"""

from __future__ import annotations

import time
from copy import deepcopy

import torch

from ..data.recordings import Recordings
from ..model.estimator import Estimator
from .export_onnx import CROPS, example_of, quiet_exporter

TRACES = 6.0
"""What writing graph, report and bundle takes, in times of one trace of the graph: 3 to 5 were
measured over methods and presets, and what is late is worse than what is early."""
PASSES_HELD_OUT = 6.5
"""Over the held-out frames: the fits of the uncertainty, and the comparison with blurs and with
the general model, whose passes take as long as those of a network of the preset `live`."""
PASSES_WHOLE = 2.0 + 2.0 * sum(height * width for height, width in CROPS)
"""Over the whole frames: report, the bundle's own reader; PyTorch and ONNX compared on crops."""


@torch.no_grad()
def finishing_seconds(estimator: Estimator, recordings: Recordings) -> float:
    """Measure how long calibration, export, checks and report will take.

    Parameters
    ----------
    estimator
        Not trained yet; not changed.
    recordings
        Whose frames they will go over.
    """
    probed = deepcopy(estimator).cpu().eval()
    probed.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    arguments, shapes = example_of(recordings.samples[0], with_maps=recordings.inputs.pixel_maps)
    started = time.monotonic()
    with quiet_exporter():
        torch.export.export(probed, arguments, dynamic_shapes=tuple(shapes.values()), strict=False)
    traced = time.monotonic() - started
    piece = recordings.held_out[0]
    planes = [torch.from_numpy(part) for part in piece.crop(*piece.observations.shape[1:])]
    probed(*planes)  # the first pass also sets up
    started = time.monotonic()
    probed(*planes)
    per_pixel = (time.monotonic() - started) / piece.observations[0].size
    held_out = sum(sample.observations[0].size for sample in recordings.held_out)
    whole = sum(sample.observations[0].size for sample in recordings.samples)
    passes = PASSES_HELD_OUT * held_out + PASSES_WHOLE * whole
    return float(TRACES * traced + passes * per_pixel)
