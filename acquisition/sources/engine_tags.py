"""What pycro-manager's Python engine leaves out of an image's tags, added where it makes them.

Owns that addition. Java's engine puts the state of the camera on every image; the Python engine
gives the region of the sensor on images of hardware sequences only, and gain or bit depth nowhere.
When an image reaches a hook, the engine may have set the camera for the next one already, so the
camera is asked in the engine's own thread, right after the exposure.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ..camera_properties import ALL

logger = logging.getLogger(__name__)


class _Addition:
    """How many streams want the tags, and what the engine called before the first of them."""

    lock = threading.Lock()
    streams = 0
    engines_own: Any = None


@contextmanager
def camera_tags_on_images() -> Iterator[None]:
    """Within the block, images of the Python engine tell as much of their camera as Java's."""
    from pycromanager.acquisition.acq_eng_py.main.acq_eng_metadata import AcqEngMetadata

    with _Addition.lock:
        if _Addition.streams == 0:
            _Addition.engines_own = AcqEngMetadata.add_image_metadata
            AcqEngMetadata.add_image_metadata = staticmethod(_adding(_Addition.engines_own))
        _Addition.streams += 1
    try:
        yield
    finally:
        with _Addition.lock:
            _Addition.streams -= 1
            if _Addition.streams == 0:
                AcqEngMetadata.add_image_metadata = staticmethod(_Addition.engines_own)


def _adding(engines_own: Any) -> Any:
    cameras = CameraTags()

    def add_image_metadata(core: Any, tags: dict[str, Any], *rest: Any) -> None:
        engines_own(core, tags, *rest)
        for name, value in cameras.of(core, tags).items():
            tags.setdefault(name, value)

    return add_image_metadata


class CameraTags:
    """The state of the camera in use, by the names of the tags that Java's engine gives."""

    def __init__(self) -> None:
        self._names: dict[str, list[str]] = {}
        self._last: dict[str, Any] = {}

    def of(self, core: Any, tags: dict[str, Any]) -> dict[str, Any]:
        """Return tags for an image that the core has just given; none where it cannot tell.

        Within a hardware sequence nobody can set the camera, so it is asked once.
        """
        try:
            if str(tags.get("ImageNumber", "0")) == "0" or not self._last:
                self._last = self._asked(core, tags)
        except (
            Exception
        ) as error:  # the core's own types; an image without them is one all the same
            logger.debug("the camera does not tell its state: %s", error)
            return {}
        return self._last

    def _asked(self, core: Any, tags: dict[str, Any]) -> dict[str, Any]:
        camera = str(core.get_camera_device())
        found: dict[str, Any] = {
            "Core-Camera": camera,
            "BitDepth": int(core.get_image_bit_depth()),
        }
        if "ROI-X-start" not in tags:
            found["ROI"] = "-".join(str(value) for value in core.get_roi())
        for label in {camera, str(tags.get("Camera") or camera)}:
            for name in self._known(core, label):
                # From the core's memory, as Java's engine does: a camera may take long to answer.
                found[f"{label}-{name}"] = str(core.get_property_from_cache(label, name))
        return found

    def _known(self, core: Any, label: str) -> list[str]:
        if label not in self._names:
            self._names[label] = [name for name in ALL if core.has_property(label, name)]
        return self._names[label]
