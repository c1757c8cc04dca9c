"""Which writer a result goes through, by the name of what is to be written.

Owns the choice between OME-Zarr, OME-TIFF and an ImageJ hyperstack, what each of them refuses, and
the conversion of estimates to the type of the pixels that are kept. How each is written stands in
its own module.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from ..atomic_output import OutputError, require_zarr_name
from ..output_kinds import Kind
from ..stack import RECORDING, Stack
from .tiff import TIFF_SUFFIXES, ImageJWriter, OmeTiffWriter

PixelType = Literal["uint8", "uint16", "float32"]


@dataclass(frozen=True, slots=True)
class OutputForm:
    """In which form pixels are kept.

    Attributes
    ----------
    pixel_type
        Of the pixels. Whole-number types are rounded and clipped to their range.
    imagej
        Write a TIFF as ImageJ's own hyperstack instead of an OME-TIFF.
    """

    pixel_type: PixelType = "float32"
    imagej: bool = False


class StackWriter(Protocol):
    """Takes frames one by one, in any order."""

    def write(self, pixels: NDArray[Any], axes: Mapping[str, int | str]) -> None:
        """Write one frame (Y, X) of the form's pixel type."""

    def holds(self, axes: Mapping[str, int | str]) -> bool:
        """Whether this frame was written."""

    def flush(self) -> None:
        """Wait until every frame is written."""


def is_tiff(path: Path | str) -> bool:
    """Whether a TIFF is to be written under this name."""
    return Path(path).suffix.lower() in TIFF_SUFFIXES


def require_form(path: Path | str, form: OutputForm, *, resume: bool = False) -> None:
    """Raise OutputError if nothing is written in this form under this name."""
    if not is_tiff(path):
        require_zarr_name(path)
        if form.imagej:
            raise OutputError(
                f"{path}: --imagej writes a TIFF; give a name that ends in .tif, or leave it out"
            )
    elif resume:
        raise OutputError(
            f"{path}: a TIFF is written in one go and cannot be resumed; leave --resume out, or "
            "write an .ome.zarr, which can"
        )


def open_writer(
    path: Path | str,
    stack: Stack,
    form: OutputForm,
    *,
    kind: Kind,
    attributes: Mapping[str, Any],
    overwrite: bool = False,
    resume: bool = False,
) -> AbstractContextManager[Any]:
    """Open what takes the frames of `stack`, as a `StackWriter` inside a `with` block.

    Parameters
    ----------
    path
        `.tif` or `.tiff` for a TIFF, anything else for an OME-Zarr.
    stack
        Gives axes, names and pixel size of what will be written.
    form
        See `OutputForm`.
    kind
        Whether it is a recording or was denoised: only its own kind is ever replaced.
    attributes
        Where the pixels come from.
    overwrite, resume
        As everywhere; a TIFF is not resumed.

    Raises
    ------
    OutputError
        If it cannot be written there.
    """
    require_form(path, form, resume=resume)
    if not is_tiff(path):
        from ..ome_zarr_writer import OmeZarrWriter

        return OmeZarrWriter(
            path,
            frame_shape=stack.frame_shape,
            dtype=form.pixel_type,
            pixel_size_um=stack.pixel_size_um,
            channel_names=stack.channel_names,
            attributes={**attributes, RECORDING: stack.described},
            overwrite=overwrite,
            resume=resume,
        )
    writer = ImageJWriter if form.imagej else OmeTiffWriter
    return writer(
        path,
        stack,
        pixel_type=form.pixel_type,
        kind=kind,
        attributes=attributes,
        overwrite=overwrite,
    )


def as_pixel_type(pixels: NDArray[Any], pixel_type: PixelType) -> NDArray[Any]:
    """Return pixels as another type; whole numbers are rounded, and clipped to their range."""
    dtype = np.dtype(pixel_type)
    if dtype.kind == "f" or pixels.dtype == dtype:
        return np.ascontiguousarray(pixels, dtype)
    limits = np.iinfo(dtype)
    return np.clip(np.rint(pixels), limits.min, limits.max).astype(dtype)
