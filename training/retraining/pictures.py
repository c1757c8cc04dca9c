"""A held-out frame as the camera gave it and as models see it, side by side.

Owns the choice of the piece that is shown and its drawing. Everybody sees the same piece with the
same black and white.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from ...inference.bundle import Bundle
from ...inference.observation_reader import ObservationReader
from ...inference.provenance import recorded_camera
from ...inference.runtime.onnx_denoiser import OnnxDenoiser
from ...inference.side_inputs import other_channel_numbers
from ...storage.stack import Stack
from .comparison import chosen_frames

if TYPE_CHECKING:
    from matplotlib.figure import Figure

EDGE = 192
"""Pixels of the piece: large enough to know the place, small enough to see single pixels."""
STRUCTURE_SIGMA_PX = 2.0
SHOWN = (0.5, 99.8)
"""Percentiles of the last model's estimate that are black and white."""


def side_by_side(
    whole: Stack, channel: str | None, models: Sequence[tuple[str, Bundle]]
) -> Figure:
    """Draw the last held-out frame of a run: as recorded, then as each model sees it.

    Raises
    ------
    QuietscopeError
        If a model does not take such frames.
    """
    from matplotlib.figure import Figure

    index = chosen_frames(whole, channel)[-1]
    seen = [_denoised(whole, index, bundle) for _, bundle in models]
    raw, estimates = seen[0][0], [estimate for _, estimate in seen]
    piece = _most_structured(raw)
    black, white = np.percentile(estimates[-1][piece], SHOWN)
    shown = [
        ("as recorded", raw),
        *((name, e) for (name, _), e in zip(models, estimates, strict=True)),
    ]
    figure = Figure(figsize=(3.4 * len(shown), 3.7))
    for axis, (name, image) in zip(
        np.atleast_1d(figure.subplots(1, len(shown))), shown, strict=True
    ):
        axis.imshow(image[piece], cmap="gray", vmin=black, vmax=max(white, black + 1e-6))
        axis.set_title(name, fontsize=9)
        axis.set_axis_off()
    figure.tight_layout()
    return figure


def _denoised(
    whole: Stack, index: int, bundle: Bundle
) -> tuple[NDArray[Any], NDArray[np.float32]]:
    manifest = bundle.manifest
    numbers = other_channel_numbers(whole, manifest.other_channels, what="the model")
    observations = ObservationReader(whole, whole.dtype).read(
        index, manifest.context_frames, numbers, manifest.planes
    )
    out = np.empty((2, *whole.frame_shape), dtype=np.float32)
    region = recorded_camera(whole).roi
    with OnnxDenoiser(bundle, whole.frame_shape, provider="cpu", region=region) as denoiser:
        denoiser.denoise(observations, out)
    return observations[0], out[0]


def _most_structured(frame: NDArray[Any]) -> tuple[slice, slice]:
    """Return the rows and columns of the piece that varies most once noise is blurred away."""
    blurred = gaussian_filter(frame.astype(np.float64), STRUCTURE_SIGMA_PX)
    edges = [min(EDGE, size) for size in frame.shape]
    places = [
        (slice(y, y + edges[0]), slice(x, x + edges[1]))
        for y in range(0, frame.shape[0] - edges[0] + 1, max(1, edges[0] // 2))
        for x in range(0, frame.shape[1] - edges[1] + 1, max(1, edges[1] // 2))
    ]
    return max(places, key=lambda place: float(blurred[place].std()))
