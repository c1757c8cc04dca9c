"""What OME-XML says of the images of a file, or of a set of files.

Owns the reading of it (OME 2016-06, https://doi.org/10.1038/s41597-020-00676-1 for its use): the
sizes, names and units of each image, and where each of its planes lies. It goes through the
elements by itself, because files of many programs are not valid OME-XML, which `ome-types` insists
on, and because a set of ten thousand planes has to open at once. Pixels are read in `tiff`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from ..stack import StackError, reason, require_sizes
from ..units import length_um, time_s

_AXES = {"T": "time", "C": "channel", "Z": "z"}
_PIXEL_TYPES = {"float": "float32", "double": "float64", "bit": "bool"}


@dataclass(frozen=True, slots=True)
class Plane:
    """Where planes of an image lie: `count` pages of a file from `page` on.

    `file` is a file's name, None for the file itself; `uuid` tells it where files were renamed.
    """

    first: tuple[int, ...]
    file: str | None
    uuid: str | None
    page: int
    count: int | None


@dataclass(frozen=True, slots=True)
class OmeImage:
    """One image of OME-XML: its axes, slowest first, without those of length 1 at the end."""

    name: str | None
    order: tuple[str, ...]
    lengths: tuple[int, ...]
    frame_shape: tuple[int, int]
    pixel_type: str
    samples: int
    channel_names: tuple[str, ...]
    pixel_size_yx_um: tuple[float, float] | None
    z_step_um: float | None
    time_interval_s: float | None
    exposure_ms: float | None
    camera: str | None
    planes: tuple[Plane, ...]


def read_ome_xml(text: str, path: Path) -> list[OmeImage]:
    """Return the images that OME-XML describes.

    Raises
    ------
    StackError
        If it is no XML, or names sizes that no recording has.
    """
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError as error:
        raise StackError(
            f"{path}: its OME-XML cannot be read ({reason(error, path)}); save it anew with the "
            "program that wrote it"
        ) from error
    detectors = {
        found.get("ID", ""): found.get("Model") or found.get("ID")
        for found in root.iter()
        if _name(found) == "Detector"
    }
    return [
        _image(image, pixels, path, detectors)
        for image in _children(root, "Image")
        for pixels in _children(image, "Pixels")
    ]


def own_uuid(text: str) -> str | None:
    """Return the identity that a file of a set gives itself."""
    try:
        return ElementTree.fromstring(text).get("UUID")
    except ElementTree.ParseError:
        return None


def companion(text: str) -> str | None:
    """Return the file that holds the metadata, where a file says that it holds none itself."""
    try:
        root = ElementTree.fromstring(text)
    except ElementTree.ParseError:
        return None
    for element in _children(root, "BinaryOnly"):
        return element.get("MetadataFile")
    return None


def _image(
    image: ElementTree.Element,
    pixels: ElementTree.Element,
    path: Path,
    detectors: dict[str, str | None],
) -> OmeImage:
    import numpy as np

    channels = list(_children(pixels, "Channel"))
    samples = max([int(c.get("SamplesPerPixel") or 1) for c in channels], default=1)
    order = [
        letter for letter in reversed(pixels.get("DimensionOrder", "XYZCT")) if letter in _AXES
    ]
    sizes = {letter: int(pixels.get(f"Size{letter}") or 1) for letter in (*order, "Y", "X")}
    sizes["C"] = max(1, sizes["C"] // samples)
    pixel_type = str(pixels.get("Type") or pixels.get("PixelType") or "uint16")
    pixel_type = _PIXEL_TYPES.get(pixel_type, pixel_type)
    lengths = tuple(sizes[letter] for letter in order)
    require_sizes(path, lengths, (sizes["Y"], sizes["X"]), np.dtype(pixel_type))
    height, width = (
        length_um(pixels.get(f"PhysicalSize{axis}"), pixels.get(f"PhysicalSize{axis}Unit", "µm"))
        for axis in "YX"
    )
    names = tuple(channel.get("Name") or "" for channel in channels)
    return OmeImage(
        name=image.get("Name"),
        order=tuple(_AXES[letter] for letter in order),
        lengths=lengths,
        frame_shape=(sizes["Y"], sizes["X"]),
        pixel_type=pixel_type,
        samples=samples,
        channel_names=names if any(names) else (),
        pixel_size_yx_um=(height or width or 0.0, width or height or 0.0)
        if height or width
        else None,
        z_step_um=length_um(pixels.get("PhysicalSizeZ"), pixels.get("PhysicalSizeZUnit", "µm")),
        time_interval_s=time_s(pixels.get("TimeIncrement"), pixels.get("TimeIncrementUnit", "s")),
        exposure_ms=_exposure_ms(pixels),
        camera=_camera(channels, detectors),
        planes=tuple(_planes(pixels, order)),
    )


def _exposure_ms(pixels: ElementTree.Element) -> float | None:
    for plane in _children(pixels, "Plane"):
        seconds = time_s(plane.get("ExposureTime"), plane.get("ExposureTimeUnit", "s"))
        return None if seconds is None else 1e3 * seconds
    return None


def _camera(channels: list[ElementTree.Element], detectors: dict[str, str | None]) -> str | None:
    for channel in channels:
        for settings in _children(channel, "DetectorSettings"):
            return detectors.get(settings.get("ID", ""))
    return None


def _planes(pixels: ElementTree.Element, order: list[str]) -> Iterator[Plane]:
    for data in _children(pixels, "TiffData"):
        first = tuple(int(data.get(f"First{letter}") or 0) for letter in order)
        count = (
            data.get("PlaneCount") or data.get("NumPlanes") or ("1" if data.get("IFD") else None)
        )
        uuids = list(_children(data, "UUID"))
        yield Plane(
            first=first,
            file=uuids[0].get("FileName") if uuids else None,
            uuid=uuids[0].text if uuids else None,
            page=int(data.get("IFD") or 0),
            count=None if count is None else int(count),
        )


def _children(element: ElementTree.Element, name: str) -> Iterator[ElementTree.Element]:
    return (child for child in element if _name(child) == name)


def _name(element: ElementTree.Element) -> str:
    return element.tag.rpartition("}")[2]
