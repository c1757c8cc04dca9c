"""What pymmcore-plus says of an image, by the names of Micro-Manager's axes and tags.

Owns the reading of `useq.MDAEvent` and of pymmcore-plus' metadata. Neither package is imported:
whoever hands such an image over has them. What a sequence changes at the camera it says with its
events, and nobody is asked: when an image comes over pymmcore-plus' queue, the core has been set
for the next one already.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..camera_properties import ALL, BINNING

Axes = dict[str, int | str]
Tags = dict[str, Any]

AXES = {"t": "time", "p": "position", "z": "z", "g": "grid"}
"""Those of useq that are numbers here too; the channel and the camera go by their names."""
CHANNEL, CAMERA = "c", "cam"


class SequenceFrames:
    """Names the images of one sequence after another, in the order of their coming."""

    def __init__(self) -> None:
        self._told: dict[str, str] = {}
        self._regions: dict[str, str] = {}
        self._bits: dict[str, int] = {}
        self._channels: dict[tuple[str, str], str] = {}

    def begin(self, summary: Mapping[str, Any]) -> None:
        """Take note of how the cameras are set as a sequence begins (`SummaryMetaV1`)."""
        for info in summary.get("image_infos", ()):
            label = str(info["camera_label"])
            region = info.get("roi") or (0, 0, info["width"], info["height"])
            self._regions[label] = _region(region)
            if bits := re.search(r"\d+$", str(info.get("pixel_format", ""))):
                self._bits[label] = int(bits[0])
        cameras = set(self._regions)
        for device in summary.get("devices", ()):
            if device["label"] in cameras or "Camera" in str(device.get("type", "")):
                for known in device["properties"]:
                    self._note(device["label"], known["name"], known["value"])

    def named(self, event: Any, meta: Mapping[str, Any]) -> tuple[Axes, Tags]:
        """Return the axes and the tags of an image.

        Parameters
        ----------
        event
            The `useq.MDAEvent` that it was taken for.
        meta
            What pymmcore-plus says of it (`FrameMetaV1`).
        """
        camera = str(meta.get("camera_device") or "")
        for device, name, value in _settings(event, meta):
            self._note(device, name, value)
        if event.roi is not None:
            roi = event.roi
            self._regions[camera] = _region((roi.offset_x, roi.offset_y, roi.width, roi.height))
        return self._axes(event, camera), self._tags(event, meta, camera)

    def _axes(self, event: Any, camera: str) -> Axes:
        index = {str(getattr(axis, "value", axis)): place for axis, place in event.index.items()}
        axes: Axes = {}
        for axis, place in index.items():
            if axis not in (CHANNEL, CAMERA):
                axes[AXES.get(axis, axis)] = int(place)
        if event.channel is not None:
            axes["channel"] = self._channel(str(event.channel.group), str(event.channel.config))
        elif CHANNEL in index:
            axes["channel"] = int(index[CHANNEL])
        if CAMERA in index:
            axes["camera"] = camera or int(index[CAMERA])
        return axes

    def _channel(self, group: str, preset: str) -> str:
        """Return a name that no preset of another group has."""
        if (group, preset) not in self._channels:
            taken = preset in self._channels.values()
            self._channels[group, preset] = f"{group} {preset}" if taken else preset
        return self._channels[group, preset]

    def _tags(self, event: Any, meta: Mapping[str, Any], camera: str) -> Tags:
        position = meta.get("position") or {}
        known = {
            "Camera": camera or None,
            "Exposure": meta.get("exposure_ms"),
            "PixelSizeUm": meta.get("pixel_size_um"),
            "ElapsedTime-ms": meta.get("runner_time_ms"),
            "ZPosition_um_Intended": event.z_pos,
            "XPosition_um_Intended": event.x_pos,
            "YPosition_um_Intended": event.y_pos,
            "ZPositionUm": position.get("z"),
            "XPositionUm": position.get("x"),
            "YPositionUm": position.get("y"),
            "PositionName": event.pos_name,
            "ROI": self._regions.get(camera),
            "BitDepth": self._bits.get(camera),
            BINNING: self._told.get(f"{camera}-{BINNING}"),
        }
        return {
            **dict(meta.get("camera_metadata") or {}),
            **self._told,
            **{name: value for name, value in known.items() if value is not None},
        }

    def _note(self, device: str, name: str, value: Any) -> None:
        """Keep a setting of which noise may depend, in the form in which the camera wrote it."""
        if name not in ALL or value is None:
            return
        before = self._told.get(f"{device}-{name}")
        if before is None or not _same(before, str(value)):
            self._told[f"{device}-{name}"] = str(value)


def _settings(event: Any, meta: Mapping[str, Any]) -> Iterator[tuple[str, str, Any]]:
    """Yield device, property and value of what was set for an image, the last word last."""
    for told in meta.get("property_values") or ():
        yield str(told["dev"]), str(told["prop"]), told["val"]
    for device, name, value in event.properties or ():
        yield str(device), str(name), value


def _same(one: str, other: str) -> bool:
    """Whether two values are one: cameras write 2 as 2.0000."""
    try:
        return float(one) == float(other)
    except ValueError:
        return one == other


def _region(region: Sequence[int]) -> str:
    return "-".join(str(int(value)) for value in region)
