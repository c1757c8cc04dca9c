"""Follow a camera that somebody else runs: the live mode of Micro-Manager's window, say.

Owns the reading of the newest image from the core. The camera is neither started nor stopped here,
and images that come faster than they can be fetched are not seen: this is a view, not a recording
of every frame.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from ..microscope.bridge import newest_image
from ..microscope.core import Microscope
from ..stream.frame import Image, TakesImages

RESTART_S = 2.0
"""A camera that stands still for longer has been stopped."""


def is_running(microscope: Microscope) -> bool:
    """Whether somebody else runs the camera now."""
    return bool(microscope.core.is_sequence_running())


def follow(
    microscope: Microscope,
    live: TakesImages,
    frames: int | None,
    *,
    on_frames: Callable[[int], None] | None = None,
) -> None:
    """Hand the newest image to `live`, again and again, until `frames` came or the camera stops.

    With `frames` None until it stops. A short stop is none: live mode begins anew when a person
    changes the exposure or the region. The core has no call that waits for an image, so it is
    asked a few times per exposure.
    """
    read = newest_image if microscope.settings.attach else _newest_image
    pause_s = min(max(microscope.exposure_ms / 4000, 0.001), 0.05)
    seen: object = None
    time_point = 0
    ran_s = time.monotonic()
    while frames is None or time_point < frames:
        if is_running(microscope):
            ran_s = time.monotonic()
        elif time.monotonic() - ran_s > RESTART_S:
            return
        found = read(microscope.core)
        # Images that come faster are not seen, so a gap in the numbers is no loss here.
        number = found[1].pop("ImageNumber", None) if found is not None else None
        if found is None or (number is not None and number == seen):
            time.sleep(pause_s)
            continue
        (image, metadata), seen = found, number
        live.image_process_fn(image, {**metadata, "Axes": {"time": time_point}})
        time_point += 1
        if on_frames is not None:
            on_frames(time_point)


def _newest_image(core: Any) -> Image | None:
    """Return the newest live image of a core of this process."""
    import pymmcore

    if core.get_remaining_image_count() == 0:
        return None
    tags = pymmcore.Metadata()
    image = core.get_last_image_md(tags)
    return image, {key: tags.GetSingleTag(key).GetValue() for key in tags.GetKeys()}
