"""Where results go: whole or not at all, and never over what is already there.

Owns the claim on an output path, the check of free disk space, and the step that makes a
finished file or directory visible (`Path.replace`, one step on Windows and POSIX alike). Does
not know what is written.
"""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..errors import QuietscopeError

RESERVE_BYTES = 256 * 2**20
"""Free space that is left untouched: a full system disk stops more than this program."""


OWN_FILES = ("manifest.json", "zarr.json", "report.json", "events.log", "current.json", "library")
"""A directory that holds one of these was made by this program."""


class OutputError(QuietscopeError, RuntimeError):
    """A place where results cannot be written."""


def existing_parent(path: Path) -> Path:
    """Return the nearest directory on the way up from `path` that exists."""
    for candidate in (path, *path.absolute().parents):
        if candidate.is_dir():
            return candidate
    raise OutputError(f"{path}: no folder on the way to it exists; check the drive and the name")


def require_space(path: Path, needed_bytes: int) -> None:
    """Raise OutputError if the disk that would hold `path` lacks `needed_bytes`."""
    free = shutil.disk_usage(existing_parent(path)).free
    if free < needed_bytes + RESERVE_BYTES:
        raise OutputError(
            f"{path}: needs {_gib(needed_bytes)} of disk space (and {_gib(RESERVE_BYTES)} in "
            f"reserve), {_gib(free)} is free; free some space or choose another --out"
        )


def require_absent(path: Path, *, overwrite: bool = False) -> None:
    """Raise OutputError if `path` already holds something that may not be replaced.

    An empty directory counts as absent. With `overwrite`, a file or a directory that this
    program wrote may be replaced; any other directory is refused all the same, so that a
    mistyped --out cannot cost somebody's data.
    """
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        return
    if not overwrite:
        raise OutputError(
            f"{path}: already exists and would be overwritten; choose another --out "
            "or pass --overwrite to replace it"
        )
    if path.is_dir() and not any((path / name).exists() for name in OWN_FILES):
        raise OutputError(
            f"{path}: holds files that quietscope did not write, so --overwrite does not "
            "replace it; choose another --out"
        )


def clear_directory(path: Path, *, overwrite: bool = False) -> None:
    """Make `path` an empty directory, for results that are written where they stay."""
    require_absent(path, overwrite=overwrite)
    if path.exists():
        retired = _staging_name(path)
        _rename(path, retired)
        shutil.rmtree(retired, ignore_errors=True)
    _make(path)


@contextmanager
def new_directory(path: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Yield a temporary sibling directory that becomes `path` when the block ends well.

    If the block raises, nothing is left behind and what stood at `path` still stands there.
    """
    require_absent(path, overwrite=overwrite)
    staging = _staging_name(path)
    _make(staging)
    try:
        yield staging
        _replace(staging, path)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


@contextmanager
def new_file(path: Path, *, overwrite: bool = True) -> Iterator[Path]:
    """Yield a temporary sibling file name that becomes `path` when the block ends well."""
    require_absent(path, overwrite=overwrite)
    _make(path.parent)
    staging = _staging_name(path)
    try:
        yield staging
        _replace(staging, path)
    finally:
        staging.unlink(missing_ok=True)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write `content` as JSON in one visible step. NaN and infinity become null."""
    with new_file(path) as staging:
        text = json.dumps(jsonable(content), indent=2, ensure_ascii=False, allow_nan=False)
        staging.write_text(text + "\n", encoding="utf-8")


def jsonable(value: Any) -> Any:
    """Return `value` in JSON's own types: NumPy scalars and arrays, paths, NaN as null."""
    if isinstance(value, Mapping):
        return {str(key): jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [jsonable(item) for item in value]
    if hasattr(value, "tolist"):
        return jsonable(value.tolist())
    if isinstance(value, float):
        return value if abs(value) < float("inf") else None
    if isinstance(value, str | int | bool) or value is None:
        return value
    return str(value)


def _staging_name(path: Path) -> Path:
    # A sibling, because a rename cannot cross from one disk to another.
    return path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.partial")


def _make(directory: Path) -> None:
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"{directory}: cannot be created ({error.strerror}); choose a folder "
            "that you may write to"
        ) from error


def _replace(staging: Path, path: Path) -> None:
    retired = _staging_name(path)
    if path.is_dir():
        # A rename cannot replace a directory that holds something: move it aside first.
        _rename(path, retired)
    try:
        _rename(staging, path)
    except OutputError:
        if retired.exists():
            retired.replace(path)
        raise
    shutil.rmtree(retired, ignore_errors=True)


def _rename(old: Path, new: Path) -> None:
    try:
        old.replace(new)
    except OSError as error:
        raise OutputError(
            f"{new if old.suffix == '.partial' else old}: cannot be replaced ({error.strerror}); "
            "close the program that holds it open and try again"
        ) from error


def _gib(size: int) -> str:
    return f"{size / 2**30:.2f} GiB"
