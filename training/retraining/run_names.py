"""By what name a library knows a run, wherever the library lies.

Owns the translation of places that were written down before a library was moved to another drive
or computer: what a model has learned from is not new because of that.
"""

from __future__ import annotations

from pathlib import Path, PurePath, PurePosixPath, PureWindowsPath

from ...inference.library import Library

MOST_PARTS = 3
"""Of a run's recording within a library: two folders and the store."""
FEWEST_PARTS = 2
"""By which one that lies elsewhere now is known again; a store's name alone says nothing."""


def run_name(shelf: Library, place: Path | str) -> str:
    """Return the name of a run: its place within the library, where it lies or once lay there.

    The whole place for a run that lies elsewhere.
    """
    name = shelf.name_of(Path(place))
    if not Path(name).is_absolute() or Path(place).exists():
        return name
    parts = _pure(str(place)).parts
    for count in range(MOST_PARTS, FEWEST_PARTS - 1, -1):
        inside = Path(*parts[-count:])
        if len(parts) > count and (shelf.path / inside).exists():
            return inside.as_posix()
    return name


def known_name(shelf: Library, name: str) -> str:
    """Return the name of a run that was written down by its name, in earlier files its place."""
    return run_name(shelf, name) if _pure(name).is_absolute() else name


def _pure(place: str) -> PurePath:
    """Return a place by the rules of the system on which it was written down."""
    windows = PureWindowsPath(place)
    is_windows = bool(windows.drive) or ("\\" in place and "/" not in place)
    return windows if is_windows and not place.startswith("/") else PurePosixPath(place)
