"""Follow a camera that somebody else runs: the live mode of Micro-Manager's window, say.

Owns the reading of the newest image from the core. The camera is neither started nor stopped here,
and images that come faster than they can be fetched are not seen: this is a view, not a recording
of every frame.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .live import LiveDenoiser
from .microscope import Microscope

Image = tuple[NDArray[Any], dict[str, Any]]


def is_running(microscope: Microscope) -> bool:
    """Whether somebody else runs the camera now."""
    return bool(microscope.core.is_sequence_running())


def follow(
    microscope: Microscope,
    live: LiveDenoiser,
    frames: int,
    *,
    on_frames: Callable[[int], None] | None = None,
) -> None:
    """Hand the newest image to `live`, again and again, until `frames` came or the camera stops.

    The core has no call that waits for an image, so it is asked a few times per exposure.
    """
    read = _last_image_of_bridge if microscope.settings.attach else _last_image
    pause_s = min(max(microscope.exposure_ms / 4000, 0.001), 0.05)
    seen: object = None
    time_point = 0
    while time_point < frames and is_running(microscope):
        found = read(microscope.core)
        if found is None or found[1].get("ImageNumber") == seen:
            time.sleep(pause_s)
            continue
        image, metadata = found
        seen = metadata.get("ImageNumber")
        live.image_process_fn(image, {**metadata, "Axes": {"time": time_point}})
        time_point += 1
        if on_frames is not None:
            on_frames(time_point)


def _last_image(core: Any) -> Image | None:
    """Read from a core of this process."""
    import pymmcore

    if core.get_remaining_image_count() == 0:
        return None
    tags = pymmcore.Metadata()
    image = core.get_last_image_md(tags)
    return image, {key: tags.GetSingleTag(key).GetValue() for key in tags.GetKeys()}


def _last_image_of_bridge(core: Any) -> Image | None:
    """Read over the bridge to Java, where an image comes as a flat array with its tags."""
    try:
        tagged = core.get_last_tagged_image()
    except Exception:  # the buffer is empty: the bridge has no type of its own for that
        return None
    tags = dict(tagged.tags)
    return np.reshape(tagged.pix, (int(tags["Height"]), int(tags["Width"]))), tags
