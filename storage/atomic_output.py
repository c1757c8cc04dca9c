"""Where results go: whole or not at all, and never over what is already there.

Owns the checks before anything is touched (apart from every input, nothing there that may not be
replaced, space on the disk), the step that makes a finished file or directory visible
(`Path.replace`, one step on Windows and POSIX alike), and what is moved aside until its successor
holds something. Does not know what is written; which thing may replace which is told by
`output_kinds`, who writes where at the moment by `directory_lock`.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Self

from ..errors import QuietscopeError
from .output_kinds import Kind, kind_of
from .urls import UrlPath, is_url, local_path

RESERVE_BYTES = 256 * 2**20
"""Free space that is left untouched: a full system disk stops more than this program."""


RENAME_PAUSES_S = (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0)
"""On Windows a virus scanner or an indexer holds what was just written, for a moment."""

DEEPEST = 64
LARGEST_INTEGER = 2**63
"""Readers in other languages, and the digits that Python itself prints, end somewhere."""

OTHER_FORMATS = (".tif", ".tiff", ".h5", ".hdf5", ".npy", ".npz", ".nd2", ".czi", ".zip", ".png")
"""Suffixes that promise a file which is not written."""


class OutputError(QuietscopeError, RuntimeError):
    """A place where results cannot be written."""


ELSEWHERE = "free some space or choose another --out"


def existing_parent(path: Path) -> Path:
    """Return the nearest directory on the way up from `path` that exists."""
    for candidate in (path, *path.absolute().parents):
        if candidate.is_dir():
            return candidate
    raise OutputError(f"{path}: no folder on the way to it exists; check the drive and the name")


def require_space(path: Path, needed_bytes: int, remedy: str = ELSEWHERE) -> None:
    """Raise OutputError if the disk that would hold `path` lacks `needed_bytes`."""
    free = shutil.disk_usage(existing_parent(path)).free
    if free < needed_bytes + RESERVE_BYTES:
        raise OutputError(
            f"{path}: needs {_gib(needed_bytes)} of disk space (and {_gib(RESERVE_BYTES)} in "
            f"reserve), {_gib(free)} is free; {remedy}"
        )


def require_apart(out: Path | str, inputs: Iterable[Path | str]) -> None:
    """Raise OutputError if `out` is one of `inputs`, lies inside one, or holds one.

    Links, other spellings of a name and file systems that ignore case are seen through. Inputs
    need not exist; those at a URL are never at an output.

    Parameters
    ----------
    out
        What is to be written.
    inputs
        Everything that is read for it: recordings (`Stack.path`), models, noise models; and
        other outputs of the same command, which must not be this one either.
    """
    out = Path(out)
    for given in inputs:
        source = _on_this_computer(given)
        relation = None if source is None else _relation(out, source)
        if relation is not None:
            raise OutputError(
                f"{out}: {relation} {given}, which this command uses; nothing was changed. Choose "
                "another --out, apart from everything it reads"
            )


def _on_this_computer(place: Path | str) -> Path | None:
    if isinstance(place, UrlPath):
        return None
    if isinstance(place, str) and is_url(place):
        return local_path(place)
    return Path(place)


def _relation(out: Path, source: Path) -> str | None:
    if _is_same(out, source):
        return "is the same as"
    if any(_is_same(above, source) for above in _above(out)):
        return "lies inside"
    if any(_is_same(out, above) for above in _above(source)):
        return "holds"
    return None


def _above(path: Path) -> set[Path]:
    """Return the folders that a path lies in, by its own name and by where links lead."""
    return {*path.absolute().parents, *_resolved(path).parents}


def _is_same(one: Path, other: Path) -> bool:
    try:
        return one.samefile(other)
    except OSError:
        pass
    one, other = _resolved(one), _resolved(other)
    if one.exists() or other.exists():
        return one == other
    # Neither is there yet: many systems will take two spellings for one name.
    return str(one).casefold() == str(other).casefold()


def real_path(path: Path) -> Path:
    """Return the place itself for a path that is a link or only dots: it is what gets replaced.

    A link to another disk then stays one, and its target is what is written.
    """
    return _resolved(path) if path.is_symlink() or path.name in ("", "..") else path


def _resolved(path: Path) -> Path:
    try:
        return path.resolve()
    except (OSError, RuntimeError) as error:
        raise OutputError(
            f"{path}: its links lead nowhere ({error}); give the place itself"
        ) from error


def require_zarr_name(path: Path | str) -> None:
    """Raise OutputError if a store is to be written under the name of another format."""
    if Path(path).suffix.lower() in OTHER_FORMATS:
        raise OutputError(
            f"{path}: only OME-Zarr and TIFF are written; give a name that ends in .ome.zarr or "
            f".ome.tif, as {Path(path).with_suffix('').name}.ome.zarr"
        )


def require_absent(path: Path, *, overwrite: bool = False, kind: Kind | None = None) -> None:
    """Raise OutputError if `path` already holds something that may not be replaced.

    An empty directory counts as absent, and so does an empty file with `overwrite`.

    Parameters
    ----------
    path
        What is to be written.
    overwrite
        Whether something of the same kind may be replaced. Anything else is refused all the same,
        so that a mistyped --out costs nobody's data, and no recording.
    kind
        What is to be written there; None only for files that are this program's own by the place
        they have, inside a directory that was checked.
    """
    if not path.exists() or (path.is_dir() and not any(path.iterdir())):
        return
    if not overwrite:
        raise OutputError(
            f"{path}: already exists and would be overwritten; choose another --out "
            "or pass --overwrite (in Python overwrite=True) to replace it"
        )
    if kind is not None:
        _require_kind(path, kind)
    elif path.is_dir():
        raise OutputError(f"{path}: is a folder, expected a file; choose another name")


def require_writable(path: Path) -> None:
    """Raise OutputError unless something can be written at `path`; its folder is made.

    For what takes minutes to measure: a drive that is read-only is said before, not afterwards.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path.parent) as file:
            file.write(b"0")
    except OSError as error:
        raise OutputError(
            f"{path}: cannot be written ({error.strerror}); choose a folder that you may write to"
        ) from error


def _require_kind(path: Path, kind: Kind) -> None:
    if path.is_file() and path.stat().st_size == 0:
        return
    found = kind_of(path)
    if found is kind:
        return
    what = (
        f"is {found.value}, which --overwrite does not replace by {kind.value}"
        if found is not None
        else f"is not {kind.value} that quietscope wrote, so --overwrite does not replace it"
    )
    raise OutputError(f"{path}: {what}; choose another --out")


class MovedAside:
    """What stood at a path, under a hidden name until its successor holds something.

    A program that is killed in between leaves it there; `recover` puts it back.
    """

    def __init__(self, path: Path) -> None:
        self.path = path = real_path(path)
        self.aside = path.with_name(f".{path.name}.replaced")
        self._doomed = path.with_name(f".{path.name}.deleted")

    @classmethod
    def of(cls, path: Path) -> Self | None:
        """Move what stands at `path` aside; None if nothing stands there."""
        if not path.exists():
            return None
        moved = cls(path)
        if moved.aside.exists():
            raise OutputError(
                f"{path}: what it replaced earlier still lies in {moved.aside.name}; move it "
                "elsewhere, or delete it if it is not needed"
            )
        _rename(moved.path, moved.aside)
        return moved

    def let_go(self) -> None:
        """Delete it: its successor holds something. What is half deleted never comes back."""
        if self.aside.exists():
            _delete(self._doomed)
            _rename(self.aside, self._doomed)
        _delete(self._doomed)

    def bring_back(self) -> None:
        """Put it back in place of a successor that holds nothing."""
        _delete(self.path)
        _rename(self.aside, self.path)


def recover(path: Path, *, holds_something: bool) -> None:
    """Mend what a kill left of a replacement at `path`: the old one comes back, or goes for good.

    Parameters
    ----------
    path
        Where something was replaced; the caller owns it.
    holds_something
        Whether the successor at `path` had begun to hold what it was made for.
    """
    moved = MovedAside(path)
    if moved.aside.exists() and not holds_something:
        moved.bring_back()
    moved.let_go()


def _delete(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def clear_directory(path: Path, kind: Kind, *, overwrite: bool = False) -> None:
    """Make `path` an empty directory, for results that are written where they stay."""
    path = real_path(path)
    require_absent(path, overwrite=overwrite, kind=kind)
    if path.exists():
        retired = _staging_name(path)
        _rename(path, retired)
        shutil.rmtree(retired, ignore_errors=True)
    _make(path)


@contextmanager
def new_directory(path: Path, kind: Kind, *, overwrite: bool = False) -> Iterator[Path]:
    """Yield a temporary sibling directory that becomes `path` when the block ends well.

    If the block raises, nothing is left behind and what stood at `path` still stands there.
    """
    path = real_path(path)
    require_absent(path, overwrite=overwrite, kind=kind)
    staging = _staging_name(path)
    _make(staging)
    try:
        yield staging
        _replace(staging, path)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


@contextmanager
def staged(path: Path, *, beside: Path | None = None) -> Iterator[Path]:
    """Yield a temporary directory that becomes `path`, where nothing may be, in one step.

    `beside` names the directory beside which it lies meanwhile, where that is not `path` itself.
    """
    path = real_path(path)
    staging = _staging_name(real_path(beside or path))
    _make(staging)
    try:
        yield staging
        if path.is_dir() and not any(path.iterdir()):
            path.rmdir()  # Windows renames over no folder, not even an empty one
        _rename(staging, path)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


@contextmanager
def new_file(
    path: Path,
    *,
    overwrite: bool = True,
    kind: Kind | None = None,
    beside: Path | None = None,
) -> Iterator[Path]:
    """Yield a temporary sibling file name that becomes `path` when the block ends well.

    `overwrite` and `kind` as for `require_absent`; `beside` as for `staged`.
    """
    path = real_path(path)
    require_absent(path, overwrite=overwrite, kind=kind)
    _make(path.parent)
    staging = _staging_name(real_path(beside or path))
    try:
        yield staging
        _replace(staging, path)
    finally:
        with suppress(OSError):  # a name that could not be made hides why
            staging.unlink()


def write_json(path: Path, content: Mapping[str, Any], *, beside: Path | None = None) -> None:
    """Write `content` as JSON in one visible step, after it was read back.

    What JSON has no form for is written as `jsonable` says.

    Raises
    ------
    OutputError
        If it cannot be written, or the disk does not give back what it was given.
    """
    plain = jsonable(content)
    text = json.dumps(plain, indent=2, ensure_ascii=False, allow_nan=False)
    with new_file(path, beside=beside) as staging:
        staging.write_text(text + "\n", encoding="utf-8")
        if json.loads(staging.read_text(encoding="utf-8")) != plain:
            raise OutputError(
                f"{path}: the disk does not give back what was written; check it, and choose "
                "another one"
            )


def jsonable(value: Any, _around: tuple[int, ...] = ()) -> Any:
    """Return `value` in JSON's own types, whatever it is.

    NumPy scalars and arrays become plain ones; NaN and infinity null; keys, paths and everything
    else their words; half a surrogate pair, as in file names of other encodings, its escape; what
    contains itself or lies too deep, an ellipsis.
    """
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return value.encode("utf-8", "backslashreplace").decode("utf-8")
    if isinstance(value, int):
        return int(value) if abs(value) < LARGEST_INTEGER else hex(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if hasattr(value, "tolist"):
        return jsonable(value.tolist(), _around)
    if isinstance(value, Mapping | list | tuple | set | frozenset):
        if id(value) in _around or len(_around) == DEEPEST:
            return "…"
        inside = (*_around, id(value))
        if isinstance(value, Mapping):
            return {jsonable(str(key)): jsonable(item, inside) for key, item in value.items()}
        return [jsonable(item, inside) for item in value]
    return jsonable(str(value))


def _staging_name(path: Path) -> Path:
    # A sibling, because a rename cannot cross from one disk to another.
    if not path.name:
        raise OutputError(f"{path}: is a whole disk; give a folder on it")
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
    for pause_s in RENAME_PAUSES_S if os.name == "nt" else ():
        try:
            old.replace(new)
        except PermissionError:
            time.sleep(pause_s)
        else:
            return
    try:
        old.replace(new)
    except OSError as error:
        raise OutputError(
            f"{new if old.suffix == '.partial' else old}: cannot be replaced ({error.strerror}); "
            "close the program that holds it open and try again"
        ) from error


def _gib(size: int) -> str:
    return f"{size / 2**30:.2f} GiB"
