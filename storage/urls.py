"""Stacks that are not on this computer's disk: URLs as fsspec understands them.

Owns the opening of a URL, the name of the package that is missing for it, and the removal of
credentials from everything that is shown or stored. What lies at the URL is read in `stacks`.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import IO, Any, cast
from urllib.parse import parse_qsl, urlsplit
from urllib.request import url2pathname

from ..errors import QuietscopeError


class UrlError(QuietscopeError, ValueError):
    """A URL that cannot be opened."""


def is_url(place: str | os.PathLike[str]) -> bool:
    """Return whether a string is a URL rather than a path on this computer."""
    return isinstance(place, str) and ("://" in place or "::" in place)


def local_path(url: str) -> Path | None:
    """Return the path that a `file://` URL stands for, None for other URLs."""
    parts = urlsplit(url)
    if parts.scheme not in {"file", "local"} or "::" in url:
        return None
    # A second slash, as in file://server/share, is a network path of Windows.
    return Path(url2pathname(f"//{parts.netloc}{parts.path}" if parts.netloc else parts.path))


# Secrets may hold slashes, as those of Amazon do; host:port is no user and password.
_USER_AND_PASSWORD = re.compile(r"://(?![^/@:]*:\d+/)([^@]*:[^@]*|[^/@]*)@")


def without_credentials(url: str) -> str:
    """Return a URL without user names, passwords and queries, in all parts of a chain (a::b).

    A query may be a signature that opens the place to everybody who has it.
    """
    return "::".join(_without_user(part).partition("?")[0] for part in url.split("::"))


def _without_user(url: str) -> str:
    """Return a URL without user and password, which may hold further @."""
    shown = _USER_AND_PASSWORD.sub("://", url)
    return shown if shown == url else _without_user(shown)


class UrlPath(type(Path())):  # type: ignore[misc]
    """A URL, without credentials, where a path stands for messages and provenance.

    Nothing on this computer is at it: it neither exists nor is it a directory.
    """

    def __new__(cls, url: str) -> UrlPath:
        """Take the URL, without its credentials."""
        shown = without_credentials(url)
        self = super().__new__(cls, shown)
        self._shown, self._hides = shown, shown != url
        return cast(UrlPath, self)

    @property
    def hides_credentials(self) -> bool:
        """Whether the URL had any, so that what an error says may hold them."""
        return bool(self._hides)

    def __init__(self, url: str) -> None:
        if type(Path()).__init__ is not object.__init__:  # Python 3.12 and later
            super().__init__(without_credentials(url))

    def with_segments(self, *segments: str) -> Path:
        """Return what is derived from it, a parent for one, as a plain path."""
        return Path(*segments)

    def __str__(self) -> str:
        """Return the URL; pathlib's own would lose one of its slashes."""
        return str(self._shown) if hasattr(self, "_shown") else str(super().__str__())

    def __truediv__(self, part: str) -> UrlPath:
        child = UrlPath(f"{self}/{part}")
        child._hides = self._hides
        return child


def joined(url: str, part: str) -> str:
    """Return the URL of what is called `part` inside of `url`, which may be a chain (a::b).

    A query, as a signature, stays at the end.
    """
    head, chain, rest = url.partition("::")
    head, mark, query = head.partition("?")
    root = head if head.endswith("://") else head.rstrip("/") + "/"
    return f"{root}{part}{mark}{query}{chain}{rest}"


def query_apart(url: str) -> tuple[str, dict[str, Any] | None]:
    """Return a web URL without its query, and the options by which fsspec sends it each time.

    The names of a Zarr's files belong before the query, a signature mostly; zarr puts them behind.
    """
    bare, mark, query = url.partition("?")
    if not mark or "::" in url or not bare.startswith(("http://", "https://")):
        return url, None
    return bare, {"params": parse_qsl(query, keep_blank_values=True)}


def open_file(url: str) -> IO[bytes]:
    """Open the file at a URL for reading; the caller closes it.

    Raises
    ------
    UrlError
        If fsspec lacks a package for it, or does not know its kind.
    """
    filesystem, path = _filesystem(url)
    return cast(IO[bytes], filesystem.open(path, "rb"))


def exists(url: str, part: str) -> bool:
    """Return whether something called `part` is inside of what is at a URL.

    Raises
    ------
    UrlError
        As `open_file`.
    """
    _filesystem(url)  # a message that names what was given
    filesystem, path = _filesystem(joined(url, part))
    return bool(filesystem.exists(path))


def _filesystem(url: str) -> tuple[Any, str]:
    import fsspec

    try:
        filesystem, path = fsspec.url_to_fs(url)
    except ImportError as error:
        raise UrlError(
            f"{without_credentials(url)}: reading it needs a package that is not installed "
            f"({error}); install it with: pip install {_package(url)}"
        ) from error
    except ValueError as error:
        # Not the error's own words: they may quote a password.
        raise UrlError(
            f"{without_credentials(url)}: no URL that fsspec understands; give a path, or a URL "
            "as s3://bucket/name.zarr or https://host/name.tif"
        ) from error
    return filesystem, path


def _package(url: str) -> str:
    from fsspec.registry import known_implementations

    protocol = url.rpartition("::")[2].partition("://")[0]
    package = known_implementations.get(protocol, {}).get("class", "").partition(".")[0]
    if package != "fsspec":
        return str(package)
    # Those that fsspec brings itself name what they need as extras.
    return f'"fsspec[{"http" if protocol == "https" else protocol}]"'
