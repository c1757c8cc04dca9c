"""Which writer frames go through, by the name of what is to be written.

Owns the choice between OME-Zarr, OME-TIFF, an ImageJ hyperstack and NDTiff, what each of them
refuses, and the conversion of estimates to the type of the pixels that are kept. How each is
written stands in its own module.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from ..atomic_output import OutputError, require_zarr_name
from ..display_range import display_ranges
from ..output_kinds import Kind
from ..stack import FINISHED, RECORDING, Stack
from .ndtiff import NDTiffWriter
from .pyramid import add_pyramid
from .tiff import TIFF_SUFFIXES, ImageJWriter, OmeTiffWriter

if TYPE_CHECKING:
    from ..ome_zarr_writer import OmeZarrWriter

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
    ndtiff
        Write a folder as NDTiff instead of an OME-Zarr.
    pyramid
        Add smaller resolutions to an OME-Zarr when it is whole.
    """

    pixel_type: PixelType = "float32"
    imagej: bool = False
    ndtiff: bool = False
    pyramid: bool = False


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
    if is_tiff(path):
        _refuse(form.ndtiff, path, "NDTiff is a folder; give a name without .tif")
        _refuse(form.pyramid, path, "--pyramid belongs to an OME-Zarr; write an .ome.zarr")
    else:
        require_zarr_name(path)
        _refuse(form.imagej, path, "--imagej writes a TIFF; give a name that ends in .tif")
        _refuse(
            form.ndtiff and form.pyramid, path, "NDTiff is written without --pyramid; leave it out"
        )
    one_go = "a TIFF" if is_tiff(path) else "NDTiff" if form.ndtiff else None
    if resume and one_go:
        raise OutputError(
            f"{path}: {one_go} is written in one go and cannot be resumed; leave --resume out, or "
            "write an .ome.zarr, which can"
        )


def _refuse(wrong: bool, path: Path | str, sentence: str) -> None:
    if wrong:
        raise OutputError(f"{path}: {sentence}")


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
        `.tif` or `.tiff` for a TIFF, anything else for an OME-Zarr, or NDTiff if asked for.
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
    if form.ndtiff:
        return NDTiffWriter(
            path, stack, pixel_type=form.pixel_type, attributes=attributes, overwrite=overwrite
        )
    if not is_tiff(path):
        from ..ome_zarr_writer import OmeZarrWriter

        store = OmeZarrWriter(
            path,
            frame_shape=stack.frame_shape,
            dtype=form.pixel_type,
            pixel_size_um=stack.pixel_size_um,
            z_step_um=stack.z_step_um,
            interval_s=stack.time_interval_s,
            channel_names=stack.channel_names,
            display_ranges=display_ranges(stack),
            planned=_lengths(stack),
            attributes={**attributes, RECORDING: {**stack.described, FINISHED: False}},
            overwrite=overwrite,
            resume=resume,
        )
        return _finished(store, stack, form)
    writer = ImageJWriter if form.imagej else OmeTiffWriter
    return writer(
        path,
        stack,
        pixel_type=form.pixel_type,
        kind=kind,
        attributes=attributes,
        overwrite=overwrite,
    )


def _lengths(stack: Stack) -> tuple[int, int, int]:
    time, channel, z = (stack.sizes.get(name, 1) for name in ("time", "channel", "z"))
    return time, channel, z


@contextmanager
def _finished(store: OmeZarrWriter, stack: Stack, form: OutputForm) -> Iterator[OmeZarrWriter]:
    """Hand out a store that says that it is unfinished, until all is in it."""
    with store:
        yield store
    if form.pyramid:
        add_pyramid(store.path)
    store.update_attributes({RECORDING: {**stack.described, FINISHED: True}})


def written_axes(stack: Stack, index: int, form: OutputForm) -> dict[str, int]:
    """Return where frame `index` goes: NDTiff keeps every axis, the others have positions."""
    return stack.axes(index) if form.ndtiff else stack.image_axes(index)


def as_pixel_type(pixels: NDArray[Any], pixel_type: PixelType) -> NDArray[Any]:
    """Return pixels as another type; whole numbers are rounded, and clipped to their range."""
    dtype = np.dtype(pixel_type)
    if dtype.kind == "f" or pixels.dtype == dtype:
        return np.ascontiguousarray(pixels, dtype)
    limits = np.iinfo(dtype)
    rounded: NDArray[Any] = np.clip(np.rint(pixels), limits.min, limits.max).astype(dtype)
    return rounded


def pixels_beyond(pixels: NDArray[Any], pixel_type: PixelType) -> int:
    """Return how many pixels `as_pixel_type` cuts off, because their type does not hold them."""
    dtype = np.dtype(pixel_type)
    if dtype.kind == "f" or pixels.dtype == dtype:
        return 0
    limits = np.iinfo(dtype)
    rounded = np.rint(pixels)
    return int(((rounded < limits.min) | (rounded > limits.max)).sum())


def cut_off(count: int, pixel_type: PixelType) -> list[str]:
    """Say that so many pixels were cut off; nothing where none were."""
    if not count:
        return []
    limits = np.iinfo(np.dtype(pixel_type))
    return [
        f"{count:,} pixels lay beyond what {pixel_type} holds, {limits.min} to {limits.max} ADU, "
        "and were cut off there: another --pixel-type keeps them"
    ]
