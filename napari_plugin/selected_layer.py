"""Denoise what a layer of napari holds: from its data to the layers of the result.

Owns what is asked of a layer, and its refusal in a sentence. Knows neither Qt nor napari; who
asks, and shows how far it is, is in `widget`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psutil

from ..arrays.array_stack import ArrayStack, as_stack
from ..arrays.functions import denoise
from ..errors import QuietscopeError
from ..inference.general.choice import GENERAL
from ..inference.library import Library, library_near
from ..storage.open_options import AXIS_NAMES
from .layers import METADATA, OF_UNCERTAINTY, LayerData, Origin, bytes_of_result

MOST_OF_MEMORY = 0.7
"""Of what is free, that a result may take."""

OnProgress = Callable[[int, int], None]


class LayerError(QuietscopeError, ValueError):
    """A layer that cannot be denoised as it is."""


@dataclass(frozen=True, slots=True, eq=False)
class Asked:
    """What is to be denoised, and by what.

    Attributes
    ----------
    data
        The layer's array.
    axes
        A name for each of its dimensions, as "tzyx"; "" for what it says itself.
    shown
        How the layer is shown: name, scale, translate, units, axis labels, contrast, colours.
    metadata
        The layer's.
    model
        A bundle, or `general`.
    noise_model
        A calibration, for the general model; None tells the noise from the layer.
    uncertainty
        Whether its standard deviation is to be a layer as well.
    """

    data: Any
    axes: str
    shown: Mapping[str, Any]
    metadata: Mapping[str, Any]
    model: Path
    noise_model: Path | None = None
    uncertainty: bool = False


def denoise_layer(asked: Asked, on_progress: OnProgress) -> list[LayerData]:
    """Return the estimate, and if asked for its standard deviation, as layers.

    `on_progress` is called with (frames done, frames in total); what it raises ends the work.

    Raises
    ------
    LayerError
        If the layer is no recording of a camera, or its result would not fit into memory.
    QuietscopeError
        For what the model does not take.
    """
    given = _recording(asked)
    needed = bytes_of_result(given.stack, asked.uncertainty)
    free = psutil.virtual_memory().available
    if needed > MOST_OF_MEMORY * free:
        raise LayerError(
            f"{asked.shown['name']}: the result takes {needed / 2**30:.1f} GiB, of which "
            f"{free / 2**30:.1f} are free; use `quietscope denoise`, which writes to the disk"
        )
    found = denoise(
        given.stack,
        model=asked.model,
        noise_model=asked.noise_model,
        uncertainty=asked.uncertainty,
        on_progress=on_progress,
    )
    estimate, *spread = found if asked.uncertainty else (found,)
    name, origin = asked.shown["name"], asked.metadata.get(METADATA)
    of_result = dict(asked.shown)
    if isinstance(origin, Origin):  # so that nobody denoises it once more
        of_result["metadata"] = {METADATA: replace(origin, shows="denoised", array="")}
    layers: list[LayerData] = [
        (given.shaped(estimate), {**of_result, "name": f"{name} denoised"}, "image")
    ]
    for pixels in spread:
        shown = {**of_result, "name": f"{name} uncertainty", "colormap": OF_UNCERTAINTY}
        del shown["contrast_limits"]  # ADU of another kind
        layers.append((given.shaped(pixels), {**shown, "visible": False}, "image"))
    return layers


def suggested_axes(dimensions: int, labels: Sequence[Any], metadata: Mapping[str, Any]) -> str:
    """Return what a layer's dimensions are taken for, as "tyx"; "" where nobody can know."""
    origin = metadata.get(METADATA)
    if isinstance(origin, Origin) and len(origin.stack.sizes) + 2 == dimensions:
        return ",".join([*origin.stack.sizes, "y", "x"])
    named = [str(label).lower() for label in labels]
    known = {*AXIS_NAMES, *AXIS_NAMES.values(), "y", "x"}
    if len(named) == dimensions and {"y", "x"} <= set(named) <= known:
        return ",".join(named)
    return {2: "yx", 3: "tyx"}.get(dimensions, "")


def models_for(metadata: Mapping[str, Any]) -> list[Path]:
    """Return the models of the library that a layer's recording lies in, the one in use first."""
    origin = metadata.get(METADATA)
    library = library_near([origin.stack.path]) if isinstance(origin, Origin) else None
    return [] if library is None else models_of(library.path)


def models_of(folder: Path) -> list[Path]:
    """Return the models of a library, the one that came into use last first."""
    library = Library(folder)
    try:
        current = library.current()
    except QuietscopeError:  # the others can be used all the same
        current = None
    return sorted(library.models(), key=lambda model: (model != current, model.name))


def called(model: Path) -> str:
    """Return what a person is shown for a model."""
    return "general (ships with quietscope)" if model == GENERAL else model.name


def _recording(asked: Asked) -> ArrayStack:
    """Return the layer's recording itself where it is one, else its array as one."""
    origin = asked.metadata.get(METADATA)
    if isinstance(origin, Origin):
        if origin.shows != "raw":
            raise LayerError(
                f"{asked.shown['name']}: is {origin.shows} already; select the raw layer"
            )
        if origin.is_shown_by(asked.data):
            return as_stack(origin.stack)
    axes = [word.strip() for word in asked.axes.split(",")] if "," in asked.axes else asked.axes
    return as_stack(asked.data, axes or None)
