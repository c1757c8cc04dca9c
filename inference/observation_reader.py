"""Read the frames that a model is given from a stack, each frame once where it comes again.

Owns what is kept between two frames. Which frames those are is the rule of `side_inputs`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..storage.stack import Stack
from .side_inputs import side_input_indices, stacked


@dataclass(eq=False)
class ObservationReader:
    """Read frames with their side inputs, keeping the frames that come again.

    Used from one thread at a time.
    """

    stack: Stack
    pixel_type: np.dtype[Any]
    _held: dict[int, NDArray[Any]] = field(default_factory=dict)

    def read(
        self,
        index: int,
        context_frames: int,
        other_channels: Sequence[int] = (),
        planes: int = 0,
    ) -> NDArray[Any]:
        """Return frame `index` and its side inputs: (1 + T + 2Z + C, Y, X), zeros where absent."""
        further = side_input_indices(self.stack, index, context_frames, other_channels, planes)
        self._held = {
            place: self._held[place] if place in self._held else self.stack.frame(place)
            for place in (index, *further)
            if place is not None
        }
        return stacked(
            self._held[index],
            [None if place is None else self._held[place] for place in further],
            self.pixel_type,
        )
