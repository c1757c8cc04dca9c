"""What the tags of a TIFF say: pixel size, names and times by ImageJ, Micro-Manager, LSM, TIFF.

Owns which of them is believed. Axes and pages are the business of `tiff_series`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ..display_range import plausible
from ..stack import DisplayRange, Stack
from ..units import length_um, time_s
from . import micro_manager

LARGEST_PRINTED_UM = 20.0
"""1200 dots per inch: what is coarser than this is the resolution of a printer, not of a lens."""
SMALLEST_UM = 1e-4
"""Of an atom: what is finer than this is a number that nobody set."""
_PER_INCH, _PER_CENTIMETRE = 2, 3


def with_tags(stack: Stack, file: Any, page: Any) -> Stack:
    """Add what ImageJ, Micro-Manager and the resolution tags say."""
    said = file.imagej_metadata or {}
    image, summary = micro_manager_tags(file, page)
    size, remarks = _pixel_size_yx_um(file, page, said)
    of_manager = micro_manager.pixel_size_um(image, summary)
    channels = stack.sizes.get("channel", 1)
    found = replace(
        stack,
        pixel_size_yx_um=(of_manager, of_manager) if of_manager else size,
        z_step_um=length_um(said.get("spacing"), said.get("zunit") or said.get("unit")),
        time_interval_s=time_s(said.get("finterval"), said.get("tunit") or "s"),
        channel_names=micro_manager.channel_names(summary, channels) or _labelled(said, channels),
        display_ranges=_shown(said, channels),
        attributes={"imagej": dict(said)} if said else None,
        remarks=(*stack.remarks, *(() if of_manager else remarks)),
    )
    return micro_manager.described(found, image, summary)


def micro_manager_tags(file: Any, page: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what Micro-Manager says of a page, and of the whole; {} where it says nothing."""
    summary = (file.micromanager_metadata or {}).get("Summary")
    return micro_manager_tag(page), dict(summary or {})


def micro_manager_tag(page: Any) -> dict[str, Any]:
    """Return what Micro-Manager says of one page; {} where it says nothing."""
    tag = page.tags.get("MicroManagerMetadata")
    value = None if tag is None else tag.value
    return value if isinstance(value, dict) else {}


def _shown(said: dict[str, Any], channels: int) -> tuple[DisplayRange, ...]:
    """Return from where to where ImageJ shows the channels."""
    edges = [*(said.get("Ranges") or ())] or [said.get("min"), said.get("max")]
    ranges = list(zip(edges[::2], edges[1::2], strict=False))
    return plausible(ranges) if len(ranges) == channels else ()


def _labelled(said: dict[str, Any], channels: int) -> tuple[str, ...]:
    """Return the channels' names where ImageJ's slices are labelled by their channel alone."""
    labels = said.get("Labels")
    if not isinstance(labels, list) or len(labels) != said.get("images"):
        return ()
    names = tuple(str(label) for label in labels[:channels])  # channels come first in its order
    repeated = all(label == names[i % channels] for i, label in enumerate(labels))
    return names if repeated and len(set(names)) == channels and channels > 1 else ()


def _pixel_size_yx_um(
    file: Any, page: Any, imagej: dict[str, Any]
) -> tuple[tuple[float, float] | None, tuple[str, ...]]:
    """Return the size of a pixel by the resolution tags, and a remark where they are no lens's."""
    per_unit = [_rational(page.tags.get(f"{axis}Resolution")) for axis in "YX"]
    if None in per_unit:
        return _lsm_pixel_size_yx_um(file), ()
    unit = imagej.get("unit")
    units = [imagej.get("yunit") or unit, unit]
    tag = page.tags.get("ResolutionUnit")
    kind = 0 if tag is None else int(tag.value)
    if length_um(1, unit) is None:
        units = [{_PER_INCH: "inch", _PER_CENTIMETRE: "cm"}.get(kind)] * 2
    height, width = (
        length_um(1 / number, u) if number else None
        for number, u in zip(per_unit, units, strict=True)
    )
    if height is None or width is None:
        left = unit and unit not in {"pixel", "pixels"} and per_unit != [1.0, 1.0]
        return None, ((f"its pixel size is left out: its unit is {unit!r}",) if left else ())
    if min(height, width) < SMALLEST_UM:
        return None, (f"its pixel size is left out: {width:.3g} µm is less than an atom",)
    if not imagej and max(height, width) > LARGEST_PRINTED_UM:
        return None, (f"its resolution ({width:.3g} µm a pixel) is a printer's, so left out",)
    return (height, width), ()


def _rational(tag: Any) -> float | None:
    try:
        numerator, denominator = tag.value
    except (AttributeError, TypeError, ValueError):
        return None
    return numerator / denominator if numerator and denominator else None


def _lsm_pixel_size_yx_um(file: Any) -> tuple[float, float] | None:
    said = file.lsm_metadata or {}
    height, width = (length_um(said.get(f"VoxelSize{axis}"), "m") for axis in "YX")
    return (height, width) if height and width else None
