"""Write frames to one TIFF file as they come: OME-TIFF, or a hyperstack for ImageJ.

Owns the order of pages, the OME-XML that tells which frame each page is, and the limits of either
form. The file appears under its name when all is in it; a killed program leaves none. Neither
form can be continued, so neither is resumed.

An OME-TIFF has a page for each frame that was written, in the order in which they came. A frame
that was never recorded has none: the OME-XML names no page for it. An ImageJ hyperstack is one
block of pixels and has a place for each frame, so it needs them all.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from itertools import groupby
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from ..atomic_output import OutputError, jsonable, new_file
from ..axis_map import AxisMap, Place
from ..display_range import display_ranges
from ..output_kinds import SOFTWARE, Kind
from ..stack import Stack

if TYPE_CHECKING:
    from ome_types import OME

TIFF_SUFFIXES = (".tif", ".tiff")
Axes = Mapping[str, int | str]

LARGEST_IMAGEJ_BYTES = 2**32 - 2**20
"""ImageJ's own TIFFs are not BigTIFFs: their offsets have 32 bits."""
CLASSIC_BYTES = 2**31
"""Beyond it an OME-TIFF is written as a BigTIFF, which older programs do not read."""


class _Writer:
    """What both forms share: the file that appears at the end, and the check of each frame."""

    def __init__(
        self,
        path: Path | str,
        stack: Stack,
        pixel_type: str,
        *,
        kind: Kind,
        attributes: Mapping[str, Any] | None,
        overwrite: bool,
    ) -> None:
        self.path = Path(path)
        self.attributes = dict(attributes or {})
        self.software = f"{SOFTWARE}{kind.value}"
        self.stack = stack
        self.dtype = np.dtype(pixel_type)
        self.frames_written = 0
        self._axis_map = AxisMap(number_as_they_appear=False)
        self._axis_map.know_channels(stack.channel_names)
        self._open = ExitStack()
        self._staging = self._open.enter_context(
            new_file(self.path, overwrite=overwrite, kind=kind)
        )

    def write(self, pixels: NDArray[Any], axes: Axes) -> None:
        """Write one frame (Y, X).

        Raises
        ------
        OutputError
            If it is of another shape or type, is there already, or the disk does not take it.
        """
        if pixels.shape != self.stack.frame_shape or pixels.dtype != self.dtype:
            raise OutputError(
                f"{self.path}: frame {dict(axes)} is {pixels.shape} {pixels.dtype}, expected "
                f"{self.stack.frame_shape} {self.dtype}; write frames of another kind to "
                "another file"
            )
        place = self._axis_map.place(axes)
        if self._holds(place):
            raise OutputError(f"{self.path}: frame {dict(axes)} was written already")
        try:
            self._write(pixels, place)
        except (OSError, ValueError) as error:
            raise self._unwritable(error) from error
        self.frames_written += 1

    def holds(self, axes: Axes) -> bool:
        """Whether this frame was written."""
        return self._holds(self._axis_map.place(axes))

    def flush(self) -> None:
        """Nothing waits in memory."""

    def close(self) -> None:
        """Finish the file and let it appear."""
        try:
            self._finish()
        except (OSError, ValueError) as error:
            self._abandon(error)
            raise self._unwritable(error) from error
        except BaseException as error:
            self._abandon(error)
            raise
        self._open.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if error is None:
            self.close()
            return
        self._release()
        self._abandon(error)

    def _abandon(self, error: BaseException) -> None:
        """Leave nothing behind: what stood at the path before still stands there."""
        self._open.__exit__(type(error), error, error.__traceback__)

    def _unwritable(self, error: Exception) -> OutputError:
        if isinstance(error, OutputError):
            return error
        reason = getattr(error, "strerror", None) or str(error)
        return OutputError(
            f"{self.path}: cannot be written ({reason}); check the disk's free space and your "
            "right to write there"
        )

    def _holds(self, place: Place) -> bool:
        raise NotImplementedError

    def _write(self, pixels: NDArray[Any], place: Place) -> None:
        raise NotImplementedError

    def _finish(self) -> None:
        raise NotImplementedError

    def _release(self) -> None:
        """Let go of the file, so that it can be removed (Windows)."""


class OmeTiffWriter(_Writer):
    """Frames as pages of one OME-TIFF, in any order.

    Parameters
    ----------
    path
        The file; `.ome.tif` by custom.
    stack
        What is written: its axes, sizes and names, and what is known beside the pixels.
    pixel_type
        Of the pages.
    kind
        What it is: only a file of the same kind is replaced.
    attributes
        Kept in the OME-XML as an annotation: where the pixels come from.
    overwrite
        Replace a file that is there, when the new one is whole.
    """

    def __init__(
        self,
        path: Path | str,
        stack: Stack,
        *,
        pixel_type: str = "float32",
        kind: Kind = Kind.DENOISED,
        attributes: Mapping[str, Any] | None = None,
        overwrite: bool = False,
    ) -> None:
        import tifffile

        super().__init__(
            path, stack, pixel_type, kind=kind, attributes=attributes, overwrite=overwrite
        )
        self._pages: dict[Place, int] = {}
        size = int(np.prod([*stack.sizes.values(), *stack.frame_shape]))
        large = size * self.dtype.itemsize > CLASSIC_BYTES
        self._tiff = tifffile.TiffWriter(self._staging, bigtiff=large, ome=False)

    def _holds(self, place: Place) -> bool:
        return place in self._pages

    def _write(self, pixels: NDArray[Any], place: Place) -> None:
        self._tiff.write(
            pixels,
            photometric="minisblack",
            compression="zlib",
            compressionargs={"level": 1},
            predictor=True if self.dtype.kind == "u" else 3,
            contiguous=False,
            metadata=None,
            software=self.software,
            **({"description": " "} if not self._pages else {}),
            **_resolution(self.stack.pixel_size_yx_um),
        )
        self._pages[place] = len(self._pages)

    def _finish(self) -> None:
        import tifffile

        self._tiff.close()
        if not self._pages:
            raise OutputError(f"{self.path}: no frame was written; there is nothing to keep")
        document = ome_document(
            self._pages,
            self.stack,
            pixel_type=self.dtype.name,
            channel_names=tuple(self._axis_map.channel_names),
            attributes=self.attributes,
        )
        tifffile.tiffcomment(self._staging, document.to_xml().encode())

    def _release(self) -> None:
        self._tiff.close()


class ImageJWriter(_Writer):
    """Frames as one hyperstack that ImageJ and Fiji open without a plugin.

    Raises
    ------
    OutputError
        If the stack has several positions or other axes, or is too large for the form.
    """

    def __init__(
        self,
        path: Path | str,
        stack: Stack,
        *,
        pixel_type: str = "float32",
        kind: Kind = Kind.DENOISED,
        attributes: Mapping[str, Any] | None = None,
        overwrite: bool = False,
    ) -> None:
        import tifffile

        known = {"time", "z", "channel"}
        if others := [f"{n} ({s})" for n, s in stack.sizes.items() if n not in known and s > 1]:
            raise OutputError(
                f"{path}: an ImageJ hyperstack has time, z and channels, the stack also has "
                f"{', '.join(others)}; write an .ome.tif without --imagej, or an .ome.zarr"
            )
        shape = [stack.sizes.get(name, 1) for name in ("time", "z", "channel")]
        size = int(np.prod([*shape, *stack.frame_shape])) * np.dtype(pixel_type).itemsize
        if size > LARGEST_IMAGEJ_BYTES:
            raise OutputError(
                f"{path}: {size / 2**30:.1f} GiB, an ImageJ hyperstack ends at 4 GiB; write an "
                ".ome.tif without --imagej (a BigTIFF, by Bio-Formats), or an .ome.zarr"
            )
        super().__init__(
            path, stack, pixel_type, kind=kind, attributes=attributes, overwrite=overwrite
        )
        self._written = np.zeros(shape, bool)
        facts: dict[str, Any] = {"axes": "TZCYX", "unit": "um"}
        ranges = display_ranges(stack)
        facts["min"], facts["max"] = ranges[0]
        facts["Ranges"] = [edge for shown in ranges for edge in shown]
        if stack.z_step_um:
            facts["spacing"] = stack.z_step_um
        if stack.time_interval_s:
            facts["finterval"] = stack.time_interval_s
        if self.attributes:
            facts["Info"] = json.dumps(jsonable(self.attributes), ensure_ascii=False)
        if stack.channel_names:
            facts["Labels"] = list(stack.channel_names) * (shape[0] * shape[1])
        self._pixels: NDArray[Any] | None = tifffile.memmap(
            self._staging,
            shape=(*shape, *stack.frame_shape),
            dtype=self.dtype,
            imagej=True,
            metadata=facts,
            software=self.software,
            **_resolution(stack.pixel_size_yx_um, for_imagej=True),
        )

    def _holds(self, place: Place) -> bool:
        return bool(self._written[place.time, place.z, place.channel])

    def _write(self, pixels: NDArray[Any], place: Place) -> None:
        assert self._pixels is not None
        self._pixels[place.time, place.z, place.channel] = pixels
        self._written[place.time, place.z, place.channel] = True

    def _finish(self) -> None:
        absent = int((~self._written).sum())
        self._release()
        if absent:
            raise OutputError(
                f"{self.path}: {absent} of {self._written.size} frames were never recorded, and "
                "an ImageJ hyperstack has no way to say so; write an .ome.tif without --imagej"
            )

    def _release(self) -> None:
        self._pixels = None


def _resolution(
    pixel_size_yx_um: tuple[float, float] | None, *, for_imagej: bool = False
) -> dict[str, Any]:
    if pixel_size_yx_um is None:
        return {}
    height, width = pixel_size_yx_um
    if for_imagej:  # there pixels per unit, and the unit is named in the metadata
        return {"resolution": (1 / width, 1 / height)}
    return {"resolution": (1e4 / width, 1e4 / height), "resolutionunit": "CENTIMETER"}


# --------------------------------------------------------------------------------- OME-XML


def ome_document(
    pages: Mapping[Place, int],
    stack: Stack,
    *,
    pixel_type: str,
    channel_names: Sequence[str],
    attributes: Mapping[str, Any],
) -> OME:
    """Return the OME-XML of a file whose page `pages[place]` holds the frame at `place`.

    One image for each position. Frames without a page are not mentioned, which by the OME data
    model means that they are not in the file.
    """
    from ome_types import OME
    from ome_types.model import Image

    names = position_names(stack)
    images = []
    by_position = groupby(sorted(pages, key=_position), key=_position)
    for number, (position, places) in enumerate(by_position):
        own = {place: pages[place] for place in places}
        images.append(
            Image(
                id=f"Image:{number}",
                name=names.get(position, f"Position {position}"),
                pixels=_pixels(number, own, stack, pixel_type, channel_names),
            )
        )
    return OME(
        images=images, creator="quietscope", structured_annotations=_annotations(attributes)
    )


def position_names(stack: Stack) -> dict[int, str]:
    """Return what each position is called, where it is more than its number."""
    names = {}
    for number, values in enumerate(stack.image_places):
        if list(values.values()) == [number]:
            continue
        alone = len(values) == 1 and "position" in values
        names[number] = (
            str(values["position"])
            if alone
            else ", ".join(f"{axis} {value}" for axis, value in values.items())
        )
    return names


def _position(place: Place) -> int:
    return place.position or 0


def _pixels(
    number: int,
    pages: Mapping[Place, int],
    stack: Stack,
    pixel_type: str,
    channel_names: Sequence[str],
) -> Any:
    from ome_types.model import Channel, Pixels, Pixels_DimensionOrder, PixelType

    times, channels, planes = (
        max(stack.sizes.get(axis, 1), 1 + max(getattr(place, axis) for place in pages))
        for axis in ("time", "channel", "z")
    )
    height, width = stack.pixel_size_yx_um or (None, None)
    known: dict[str, Any] = {
        "physical_size_x": width,
        "physical_size_y": height,
        "physical_size_z": stack.z_step_um,
        "time_increment": stack.time_interval_s,
    }
    return Pixels(
        id=f"Pixels:{number}",
        dimension_order=Pixels_DimensionOrder.XYTZC,
        type=PixelType({"float32": "float"}.get(pixel_type, pixel_type)),
        size_x=stack.frame_shape[1],
        size_y=stack.frame_shape[0],
        size_t=times,
        size_c=channels,
        size_z=planes,
        channels=[
            Channel(
                id=f"Channel:{number}:{index}",
                name=channel_names[index] if index < len(channel_names) else None,
                samples_per_pixel=1,
            )
            for index in range(channels)
        ],
        tiff_data_blocks=_blocks(pages, times, planes),
        **{name: value for name, value in known.items() if value},
    )


def _blocks(pages: Mapping[Place, int], times: int, planes: int) -> list[Any]:
    """Return the TiffData elements: one for each run of frames whose pages follow each other.

    In the order XYTZC frames of one channel and plane follow each other in time.
    """
    from ome_types.model import TiffData

    def order(place: Place) -> int:
        return (place.channel * planes + place.z) * times + place.time

    in_order = sorted(pages, key=order)
    runs = groupby(enumerate(in_order), key=lambda item: (
        order(item[1]) - item[0], pages[item[1]] - item[0]
    ))  # fmt: skip
    blocks = []
    for _, run in runs:
        places = [place for _, place in run]
        first = places[0]
        blocks.append(
            TiffData(
                ifd=pages[first],
                first_t=first.time,
                first_c=first.channel,
                first_z=first.z,
                plane_count=len(places),
            )
        )
    return blocks


def _annotations(attributes: Mapping[str, Any]) -> Any:
    from ome_types.model import MapAnnotation, StructuredAnnotations

    if not attributes:
        return StructuredAnnotations()
    kept = {
        str(name): value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        for name, value in jsonable(attributes).items()
    }
    return StructuredAnnotations(
        map_annotations=[
            MapAnnotation(id="Annotation:0", namespace="quietscope", value=kept)  # type: ignore[arg-type]
        ]
    )
