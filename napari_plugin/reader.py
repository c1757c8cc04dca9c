"""napari's reader: runs, recordings and denoised stacks as they lie on the disk.

Owns which paths are ours and what of a run is shown; how it is shown is in `layers`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from ..storage.open_stack import open_stack
from ..storage.output_kinds import Kind, kind_of
from .layers import LayerData, Shows, layers_of

ReadPath = Callable[[str | list[str]], list[LayerData]]

STORE = ".ome.zarr"
UNCERTAINTY = "uncertainty"
"""In the name of a store: `denoise --uncertainty` writes standard deviations by that."""


def get_reader(path: str | list[str]) -> ReadPath | None:
    """Return what reads a path, None for what is not ours.

    Parameters
    ----------
    path
        A run directory or a Zarr store; of a list every one has to be.
    """
    paths = path if isinstance(path, list) else [path]
    return read if paths and all(map(_is_ours, paths)) else None


def read(path: str | list[str]) -> list[LayerData]:
    """Return the layers of runs and stores, one for each channel.

    Raises
    ------
    StackError
        If one cannot be read, or a run holds nothing yet.
    """
    paths = path if isinstance(path, list) else [path]
    return [layer for one in paths for layer in _layers(Path(one))]


def _is_ours(path: str) -> bool:
    place = Path(path)
    if place.is_dir():
        return kind_of(place) in (Kind.RUN, Kind.RECORDING, Kind.DENOISED)
    return place.is_file() and place.name.endswith(".zarr.zip")


def _layers(path: Path) -> Iterator[LayerData]:
    if kind_of(path) is not Kind.RUN:
        yield from layers_of(open_stack(path), _name(path), _shows(path))
        return
    stores = sorted(path.glob(f"*{STORE}"), key=_order)
    if not stores:
        stores = [path]  # whose reader says in one sentence what is missing
    for store in stores:
        yield from layers_of(open_stack(store), f"{path.name} {_name(store)}", _shows(store))


def _order(store: Path) -> tuple[int, str]:
    """Raw first, what was made of it above it."""
    return ("raw", "denoised", UNCERTAINTY).index(_shows(store)), store.name


def _shows(path: Path) -> Shows:
    if UNCERTAINTY in path.name.lower():
        return "uncertainty"
    return "denoised" if kind_of(path) is Kind.DENOISED else "raw"


def _name(path: Path) -> str:
    return path.name.removesuffix(".zip").removesuffix(".zarr").removesuffix(".ome")
