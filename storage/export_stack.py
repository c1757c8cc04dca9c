"""A recording in the format of another program, frame by frame, nothing of it changed.

Owns the order and the check that every frame that is there was written. Formats are those of
`writers`; what is known beside the pixels goes along as far as the format has a place for it.
"""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from .atomic_output import require_apart, require_space
from .directory_lock import owned
from .output_kinds import kind_of_store
from .stack import Stack
from .writers.open_writer import (
    OutputForm,
    as_pixel_type,
    open_writer,
    pixels_beyond,
    require_form,
    written_axes,
)


def export_stack(
    stack: Stack,
    out: Path | str,
    form: OutputForm,
    *,
    overwrite: bool = False,
    on_progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Write the frames of a stack to `out`. Memory does not grow with the stack.

    Parameters
    ----------
    stack
        What to write; absent frames are absent in the result.
    out
        A TIFF if it is called so, else a folder: OME-Zarr, or NDTiff if the form says so.
    form
        Its pixel type is written; whole-number types are rounded and clipped to their range.
    overwrite
        Replace something of the same kind.
    on_progress
        Called with (frames done, frames in total).

    Returns
    -------
    dict
        `frames_written`, `frames_absent`, `pixels_cut_off` (beyond the pixel type), `output`.

    Raises
    ------
    OutputError
        If `out` is or holds the recording, or cannot be written in this form.
    """
    require_apart(out, [stack.path])
    require_form(out, form)
    needed = len(stack.present_indices) * prod(stack.frame_shape)
    require_space(Path(out), needed * np.dtype(form.pixel_type).itemsize)
    attributes = dict(stack.attributes or {})
    present = [int(index) for index in stack.present_indices]
    if form.ndtiff:  # its readers know channels in the order in which they first come
        present.sort(key=lambda index: stack.axes(index).get("channel", 0))
    beyond = 0
    with (
        owned(out),
        open_writer(
            out,
            stack,
            form,
            kind=kind_of_store(attributes),
            attributes=_of_nobodys_format(attributes),
            overwrite=overwrite,
        ) as writer,
    ):
        for done, index in enumerate(present, start=1):
            frame = stack.frame(index)
            beyond += pixels_beyond(frame, form.pixel_type)
            pixels = as_pixel_type(frame, form.pixel_type)
            writer.write(pixels, written_axes(stack, index, form))
            if on_progress is not None:
                on_progress(done, len(present))
        writer.flush()
    return {
        "frames_written": len(present),
        "frames_absent": stack.absent,
        "pixels_cut_off": beyond,
        "output": str(out),
    }


def _of_nobodys_format(attributes: dict[str, Any]) -> dict[str, Any]:
    """Leave out what a format says about its own layout: the new file has another."""
    layout = {"ome", "multiscales", "omero", "bioformats2raw.layout", "plate", "well", "labels"}
    return {name: value for name, value in attributes.items() if name not in layout}
