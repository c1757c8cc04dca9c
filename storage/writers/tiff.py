"""Write frames to one TIFF file as they come: OME-TIFF, or a hyperstack for ImageJ.

Owns the order of pages and the limits of either form; which frame each page is stands in the
OME-XML of `ome_document`. The file appears under its name when all is in it; a killed program
leaves none. Neither form can be continued, so neither is resumed.

An OME-TIFF has a page for each frame that was written, in the order in which they came. A frame
that was never recorded has none: the OME-XML names no page for it. An ImageJ hyperstack is one
block of pixels and has a place for each frame, so it needs them all.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ..atomic_output import OutputError, jsonable, new_file
from ..axis_map import AxisMap, Place
from ..display_range import display_ranges
from ..output_kinds import SOFTWARE, Kind
from ..stack import Stack
from .ome_document import ome_document

TIFF_SUFFIXES = (".tif", ".tiff")
Axes = Mapping[str, int | str]

LARGEST_IMAGEJ_BYTES = 2**32 - 2**20
"""ImageJ's own TIFFs are not BigTIFFs: their offsets have 32 bits."""
CLASSIC_BYTES = 2**31
"""Beyond it an OME-TIFF is written as a BigTIFF, which older programs do not read."""


class _Writer:
    """What both forms share: the file that appears at the end, and the check of each frame.

    Parameters
    ----------
    path
        The file.
    stack
        What is written: its axes, sizes and names, and what is known beside the pixels.
    pixel_type
        Of the pages.
    kind
        What it is: only a file of the same kind is replaced.
    attributes
        Where the pixels come from; kept in the file.
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
        self.path = Path(path)
        self.attributes = dict(attributes or {})
        self.software = f"{SOFTWARE}{kind.value}"
        self.stack = stack
        self.dtype = np.dtype(pixel_type)
        self.frames_written = 0
        self._require_fitting()
        self._axis_map = AxisMap(number_as_they_appear=False)
        self._axis_map.know_channels(stack.channel_names)
        self._open = ExitStack()
        self._staging = self._open.enter_context(
            new_file(self.path, overwrite=overwrite, kind=kind)
        )
        try:
            self._begin()
        except (OSError, ValueError) as error:
            self._abandon(error)
            raise self._unwritable(error) from error

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

    def _require_fitting(self) -> None:
        """Raise OutputError if the form cannot hold the stack; nothing is opened yet."""

    def _begin(self) -> None:
        """Open what frames are written to."""
        raise NotImplementedError

    def _holds(self, place: Place) -> bool:
        raise NotImplementedError

    def _write(self, pixels: NDArray[Any], place: Place) -> None:
        raise NotImplementedError

    def _finish(self) -> None:
        raise NotImplementedError

    def _release(self) -> None:
        """Let go of the file, so that it can be removed (Windows)."""


class OmeTiffWriter(_Writer):
    """Frames as pages of one OME-TIFF, `.ome.tif` by custom, in any order."""

    def _begin(self) -> None:
        import tifffile

        self._pages: dict[Place, int] = {}
        size = int(np.prod([*self.stack.sizes.values(), *self.stack.frame_shape]))
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

    def _require_fitting(self) -> None:
        sizes, known = self.stack.sizes, {"time", "z", "channel"}
        if others := [f"{n} ({s})" for n, s in sizes.items() if n not in known and s > 1]:
            raise OutputError(
                f"{self.path}: an ImageJ hyperstack has time, z and channels, the stack also has "
                f"{', '.join(others)}; write an .ome.tif without --imagej, or an .ome.zarr"
            )
        self._shape = [sizes.get(name, 1) for name in ("time", "z", "channel")]
        size = int(np.prod([*self._shape, *self.stack.frame_shape])) * self.dtype.itemsize
        if size > LARGEST_IMAGEJ_BYTES:
            raise OutputError(
                f"{self.path}: {size / 2**30:.1f} GiB, an ImageJ hyperstack ends at 4 GiB; write "
                "an .ome.tif without --imagej (a BigTIFF, by Bio-Formats), or an .ome.zarr"
            )

    def _begin(self) -> None:
        import tifffile

        self._written = np.zeros(self._shape, bool)
        self._pixels: NDArray[Any] | None = tifffile.memmap(
            self._staging,
            shape=(*self._shape, *self.stack.frame_shape),
            dtype=self.dtype,
            imagej=True,
            metadata=self._facts(),
            software=self.software,
            **_resolution(self.stack.pixel_size_yx_um, for_imagej=True),
        )

    def _facts(self) -> dict[str, Any]:
        """Return what ImageJ is told beside the pixels."""
        stack, ranges = self.stack, display_ranges(self.stack)
        facts: dict[str, Any] = {"axes": "TZCYX", "unit": "um"}
        facts["min"], facts["max"] = ranges[0]
        facts["Ranges"] = [edge for shown in ranges for edge in shown]
        if stack.z_step_um:
            facts["spacing"] = stack.z_step_um
        if stack.time_interval_s:
            facts["finterval"] = stack.time_interval_s
        if self.attributes:
            facts["Info"] = json.dumps(jsonable(self.attributes), ensure_ascii=False)
        if stack.channel_names:
            facts["Labels"] = list(stack.channel_names) * (self._shape[0] * self._shape[1])
        return facts

    def _holds(self, place: Place) -> bool:
        return bool(self._written[place.time, place.z, place.channel])

    def _write(self, pixels: NDArray[Any], place: Place) -> None:
        if self._pixels is None:
            raise OutputError(f"{self.path}: the writer was closed; open it again")
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
