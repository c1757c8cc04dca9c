"""Whether Qt can be loaded on this machine, and if not, what to install.

Owns the names of the system libraries that Qt needs on Linux and the words for what is missing.
Imports Qt only inside the questions, and knows no window. Qt ends the whole process when its
platform plugin cannot be loaded, so that has to be tried before a window is built.
"""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path

_ALWAYS = {
    "libEGL.so.1": "libegl1",
    "libGL.so.1": "libgl1",
    "libdbus-1.so.3": "libdbus-1-3",
    "libfontconfig.so.1": "libfontconfig1",
    "libfreetype.so.6": "libfreetype6",
    "libglib-2.0.so.0": "libglib2.0-0",
    "libX11.so.6": "libx11-6",
    "libxkbcommon.so.0": "libxkbcommon0",
}
_ON_X11 = {
    "libX11-xcb.so.1": "libx11-xcb1",
    "libxcb-cursor.so.0": "libxcb-cursor0",
    "libxcb-icccm.so.4": "libxcb-icccm4",
    "libxcb-image.so.0": "libxcb-image0",
    "libxcb-keysyms.so.1": "libxcb-keysyms1",
    "libxcb-randr.so.0": "libxcb-randr0",
    "libxcb-render-util.so.0": "libxcb-render-util0",
    "libxcb-shape.so.0": "libxcb-shape0",
    "libxcb-shm.so.0": "libxcb-shm0",
    "libxcb-sync.so.1": "libxcb-sync1",
    "libxcb-util.so.1": "libxcb-util1",
    "libxcb-xfixes.so.0": "libxcb-xfixes0",
    "libxcb-xkb.so.1": "libxcb-xkb1",
    "libxkbcommon-x11.so.0": "libxkbcommon-x11-0",
}
_ON_WAYLAND = {"libwayland-client.so.0": "libwayland-client0"}


def obstacle() -> str:
    """Return, in one line, what keeps Qt from opening a window here; "" if nothing does."""
    try:
        import PySide6
        import PySide6.QtWidgets
    except ImportError as error:
        return explained(error)
    if loses_none():
        return (
            f"PySide6 {PySide6.__version__} would crash under Python {sys.version.split()[0]}; "
            'install another: pip install "PySide6-Essentials<6.12"'
        )
    if sys.platform != "linux":
        return ""
    problems = [_plugin_problem(platform) for platform in _platforms()]
    return "" if "" in problems else problems[0]


def explained(error: Exception) -> str:
    """Return one line for an error of loading Qt: the libraries that lack, and how to get them."""
    text = str(error).split("\n")[0]
    if "cannot open shared object file" not in text:
        return f"the preview window cannot open: {text}"
    first = text.split(":")[0]
    platform = _platforms()[-1]
    known = _ALWAYS | {"xcb": _ON_X11, "wayland": _ON_WAYLAND}.get(platform, {})
    missing = [first, *(name for name in known if name != first and not _loads(name))]
    packages = [known[name] for name in missing if name in known]
    remedy = f"; on Debian or Ubuntu: apt-get install {' '.join(packages)}" if packages else ""
    return (
        f"the preview window needs system libraries that are missing: {', '.join(missing)}{remedy}"
    )


def loses_none() -> bool:
    """Whether Qt's methods drop a reference to None per call, until Python ends the process.

    So does PySide6 6.12.0; since Python 3.12 it does no harm, because None is never freed there.
    """
    from PySide6.QtCore import QObject

    probe, calls = QObject(), 100
    before = sys.getrefcount(None)
    for _ in range(calls):
        probe.setObjectName("")
    return sys.getrefcount(None) - before < -calls // 2


def _platforms() -> list[str]:
    """Return the names of the platform plugins that Qt may use here, one of which must load."""
    wanted = os.environ.get("QT_QPA_PLATFORM", "").split(":")[0]
    if wanted:
        return wanted.split(";")
    found = ["wayland"] if os.environ.get("WAYLAND_DISPLAY") else []
    return found + (["xcb"] if os.environ.get("DISPLAY") or not found else [])


def _plugin_problem(platform: str) -> str:
    import PySide6

    folder = Path(str(PySide6.__file__)).parent / "Qt" / "plugins" / "platforms"
    plugin = folder / f"libq{platform}.so"
    if not plugin.exists():
        return ""  # a plugin of another name or place: let Qt find it
    try:
        ctypes.CDLL(str(plugin))
    except OSError as error:
        return explained(error)
    return ""


def _loads(library: str) -> bool:
    try:
        ctypes.CDLL(library)
    except OSError:
        return False
    return True
