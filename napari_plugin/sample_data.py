"""A recording to try things on, made on the spot: a simulated specimen, simulated noise."""

from __future__ import annotations

from functools import partial

import numpy as np

from ..acquisition.microscope.specimen import CameraLaw, Specimen
from ..storage.stack import stack_from_array
from .layers import LayerData, layers_of

FRAMES, SIDE = 24, 256
CAMERA = CameraLaw(gain_adu_per_e=2.0, offset_adu=100.0, read_noise_e=1.6)
PHOTOELECTRONS = 15.0
"""What the brightest structures give: a frame in which filaments are guessed rather than seen."""


def living_specimen() -> list[LayerData]:
    """Return 24 noisy frames of cells, filaments and vesicles, (time, y, x) uint16."""
    specimen = Specimen((SIDE, SIDE), CAMERA, PHOTOELECTRONS)
    frames = np.stack(list(map(partial(Specimen.observe, specimen), range(FRAMES))))
    stack = stack_from_array(frames, path="living specimen (simulated)")
    return layers_of(stack, "living specimen (simulated)", "raw")
