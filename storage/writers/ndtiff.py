"""Write frames as a dataset of Micro-Manager's own format, NDTiff, by its own library.

Owns the names and metadata that Micro-Manager's readers look for. The folder appears under its
name when all is in it. NDTiff knows pixels of a camera alone, so no estimates as floats.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ..atomic_output import OutputError, jsonable, new_directory
from ..output_kinds import kind_of_store
from ..stack import Stack

PIXEL_TYPES = ("uint8", "uint16")


class NDTiffWriter:
    """Frames (Y, X) to one NDTiff dataset, in any order.

    Parameters
    ----------
    path
        The folder.
    stack
        What is written: its axes with their values, and what is known beside the pixels.
    pixel_type
        `uint8` or `uint16`.
    attributes
        Kept in the summary metadata; they say whether it is a recording or was denoised.
    overwrite
        Replace a dataset of the same kind that is there, when the new one is whole.

    Raises
    ------
    OutputError
        If the pixels are of another type, or nothing may be written there.
    """

    def __init__(
        self,
        path: Path | str,
        stack: Stack,
        *,
        pixel_type: str = "uint16",
        attributes: Mapping[str, Any] | None = None,
        overwrite: bool = False,
    ) -> None:
        from ndstorage import NDTiffDataset

        self.path = Path(path)
        if pixel_type not in PIXEL_TYPES:
            raise OutputError(
                f"{path}: NDTiff holds uint8 or uint16, not {pixel_type}; pass --pixel-type "
                "uint16, or write an .ome.zarr or .ome.tif"
            )
        self.stack = stack
        self.dtype = np.dtype(pixel_type)
        self.frames_written = 0
        self._written: set[tuple[tuple[str, int], ...]] = set()
        self._files: dict[str, Any] = {}
        self._open = ExitStack()
        staging = self._open.enter_context(
            new_directory(self.path, kind_of_store(attributes or {}), overwrite=overwrite)
        )
        try:
            self._dataset: Any = NDTiffDataset(
                str(staging), summary_metadata=_summary(stack, attributes or {}), writable=True
            )
        except (OSError, ValueError) as error:
            self._open.__exit__(type(error), error, error.__traceback__)
            raise self._unwritable(error) from error

    def write(self, pixels: NDArray[Any], axes: Mapping[str, int]) -> None:
        """Write one frame; `axes` are the places of `Stack.axes`.

        Raises
        ------
        OutputError
            If it is of another shape or type, is there already, or the disk does not take it.
        """
        if pixels.shape != self.stack.frame_shape or pixels.dtype != self.dtype:
            raise OutputError(
                f"{self.path}: frame {dict(axes)} is {pixels.shape} {pixels.dtype}, expected "
                f"{self.stack.frame_shape} {self.dtype}"
            )
        if self.holds(axes):
            raise OutputError(f"{self.path}: frame {dict(axes)} was written already")
        named = named_axes(self.stack, axes)
        try:
            self._dataset.put_image(named, pixels, _image_metadata(self.stack, named))
        except (OSError, ValueError) as error:
            raise self._unwritable(error) from error
        self._files[self._dataset.current_writer.filename] = self._dataset.current_writer
        self._written.add(tuple(sorted(axes.items())))
        self.frames_written += 1

    def holds(self, axes: Mapping[str, int]) -> bool:
        """Whether this frame was written."""
        return tuple(sorted(axes.items())) in self._written

    def flush(self) -> None:
        """Nothing waits in memory."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self._release()
        except (OSError, ValueError) as failed:
            self._open.__exit__(type(failed), failed, failed.__traceback__)
            if error is None:  # the error that is already on its way says more
                raise self._unwritable(failed) from failed
            return
        self._open.__exit__(kind, error, trace)

    def _release(self) -> None:
        try:
            self._dataset.finish()
        finally:
            self._dataset.close()
            for file in self._files.values():
                file.reader.close()  # the library forgets it; Windows could not rename the folder

    def _unwritable(self, error: Exception) -> OutputError:
        return OutputError(
            f"{self.path}: cannot be written ({getattr(error, 'strerror', None) or error}); check "
            "the disk's free space and your right to write there"
        )


def named_axes(stack: Stack, axes: Mapping[str, int]) -> dict[str, int | str]:
    """Return axes as Micro-Manager names them: channels by name, others by their values."""
    found: dict[str, int | str] = {}
    for name, place in axes.items():
        names = stack.channel_names if name == "channel" else stack.axis_values.get(name, ())
        value = names[place] if names else place
        found[name] = value if isinstance(value, int | str) else _written(value)
    return found


def _written(value: float) -> str:
    """Return a value as short as it stays itself: two that differ are two places."""
    short = f"{value:g}"
    return short if float(short) == value else repr(float(value))


def _summary(stack: Stack, attributes: Mapping[str, Any]) -> dict[str, Any]:
    known = {
        "PixelSizeUm": stack.pixel_size_um,
        "PixelSize_um": stack.pixel_size_um,
        "z-step_um": stack.z_step_um,
        "Interval_ms": None if stack.time_interval_s is None else 1e3 * stack.time_interval_s,
        "ChNames": list(stack.channel_names) or None,
    }
    kept: dict[str, Any] = jsonable(attributes)
    return {**kept, **{name: value for name, value in known.items() if value is not None}}


def _image_metadata(stack: Stack, axes: Mapping[str, int | str]) -> dict[str, Any]:
    known = {
        "PixelSizeUm": stack.pixel_size_um,
        "Camera": stack.camera,
        "Exposure": stack.exposure_ms,
    }
    return {"Axes": dict(axes), **{name: value for name, value in known.items() if value}}
