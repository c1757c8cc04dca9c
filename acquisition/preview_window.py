"""The process of the preview window: `python -m quietscope.acquisition.preview_window`.

Owns how the window's process starts and ends: it finds out whether Qt can be loaded, says why
not in words that name the missing library, and never prints a traceback. It imports no Qt before
it knows.
"""

from __future__ import annotations

import argparse
import ctypes
import importlib.util
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from .preview_mailbox import MailboxError, MailboxReader, ReaderState

if TYPE_CHECKING:
    from PySide6.QtWidgets import QApplication

    from .preview_view import PreviewWindow

_PACKAGES = {
    "libEGL.so": "libegl1",
    "libGL.so": "libgl1",
    "libxkbcommon.so": "libxkbcommon0",
    "libxkbcommon-x11.so": "libxkbcommon-x11-0",
    "libdbus-1.so": "libdbus-1-3",
    "libfontconfig.so": "libfontconfig1",
    "libglib-2.0.so": "libglib2.0-0",
    "libxcb-cursor.so": "libxcb-cursor0",
    "libxcb-icccm.so": "libxcb-icccm4",
    "libxcb-image.so": "libxcb-image0",
    "libxcb-keysyms.so": "libxcb-keysyms1",
    "libxcb-randr.so": "libxcb-randr0",
    "libxcb-render-util.so": "libxcb-render-util0",
    "libxcb-shape.so": "libxcb-shape0",
    "libxcb-sync.so": "libxcb-sync1",
    "libxcb-util.so": "libxcb-util1",
    "libxcb-xfixes.so": "libxcb-xfixes0",
    "libxcb-xkb.so": "libxcb-xkb1",
    "libX11-xcb.so": "libx11-xcb1",
}
"""Debian and Ubuntu packages of the system libraries that Qt loads."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Open the window and return its exit status: 0 closed, 1 no window (the reason is told)."""
    options = _options(arguments)
    try:
        reader = MailboxReader(options.mailbox)
    except MailboxError as error:
        print(error, file=sys.stderr)
        return 1
    try:
        _give_way()
        application = _application(reader)
        from .preview_view import PreviewWindow

        window = PreviewWindow(reader, still=options.snapshot is not None)
        if options.snapshot is not None:
            return _snapshot(window, reader, options.snapshot, options.size)
        _place(window)
        window.show()
        reader.report(ReaderState.SHOWN)
        return application.exec()
    except Exception as error:  # the acquisition says it in one line; nobody reads a traceback
        return _fail(reader, _explained(error))


def missing_library() -> str:
    """Return what keeps Qt from loading on this machine, in words; "" if nothing does."""
    try:
        import PySide6.QtWidgets
    except ImportError as error:
        return _explained(error)
    if sys.platform != "linux":
        return ""
    # Qt ends the whole process if its platform plugin cannot be loaded: try that first.
    wanted = os.environ.get("QT_QPA_PLATFORM", "").split(":")[0]
    if not wanted:
        wanted = "xcb" if os.environ.get("DISPLAY") else "wayland"
    plugins = Path(str(PySide6.QtWidgets.__file__)).parent / "Qt" / "plugins" / "platforms"
    plugin = plugins / f"libq{wanted}.so"
    if plugin.exists():
        try:
            ctypes.CDLL(str(plugin))
        except OSError as error:
            return _explained(error)
    return ""


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    def size(text: str) -> tuple[int, int]:
        width, height = text.lower().split("x")
        return int(width), int(height)

    parser = argparse.ArgumentParser(
        prog="python -m quietscope.acquisition.preview_window",
        description="Shows the newest raw and denoised image of a running acquisition.",
    )
    parser.add_argument("--mailbox", type=Path, required=True, help="file the acquisition feeds")
    parser.add_argument("--snapshot", type=Path, help="draw the window into this PNG and end")
    parser.add_argument("--size", type=size, default=(1280, 720), help="of the snapshot: WxH")
    return parser.parse_args(arguments)


def _application(reader: MailboxReader) -> QApplication:
    reason = missing_library()
    if reason:
        raise MailboxError(reason)
    from PySide6.QtCore import QMessageLogContext, QtMsgType, qInstallMessageHandler
    from PySide6.QtWidgets import QApplication

    def hear(kind: QtMsgType, context: QMessageLogContext, message: str) -> None:
        # Qt ends the process after a fatal message, so this is the last chance to pass it on.
        if kind == QtMsgType.QtFatalMsg:
            words = message.split("\n")[0].strip()
            reader.report(ReaderState.FAILED, f"the preview window cannot open: {words}")

    qInstallMessageHandler(hear)
    application = QApplication(["quietscope"])
    application.setApplicationDisplayName("quietscope")
    _provide_fonts()
    return application


def _provide_fonts() -> None:
    """Let a bare server without fonts draw text all the same: matplotlib brings some."""
    from PySide6.QtGui import QFont, QFontDatabase
    from PySide6.QtWidgets import QApplication

    if QFontDatabase.families():
        return
    found = importlib.util.find_spec("matplotlib")
    if found is None or found.origin is None:
        return
    folder = Path(found.origin).parent / "mpl-data" / "fonts" / "ttf"
    for name in ("DejaVuSans.ttf", "DejaVuSans-Bold.ttf"):
        QFontDatabase.addApplicationFont(str(folder / name))
    QApplication.setFont(QFont("DejaVu Sans"))


def _place(window: PreviewWindow) -> None:
    from PySide6.QtGui import QGuiApplication

    space = QGuiApplication.primaryScreen().availableGeometry()
    width = min(round(space.width() * 0.9), 1800)
    window.resize(width, min(round(space.height() * 0.88), round(width * 0.62)))


def _snapshot(
    window: PreviewWindow, reader: MailboxReader, path: Path, size: tuple[int, int]
) -> int:
    from PySide6.QtWidgets import QApplication

    picture = reader.take()
    if picture is None:
        return _fail(reader, "the mailbox holds no picture to draw")
    window.resize(*size)
    window.show()
    window.show_picture(picture)
    if picture.uncertainty is not None:
        window.show_extra(1)
    window.refresh()
    for _ in range(5):  # layout, then the fit that waits for it, then the drawing
        QApplication.processEvents()
    if not window.grab().save(str(path), "PNG"):
        return _fail(reader, f"{path}: the picture could not be written there")
    return 0


def _give_way() -> None:
    """Let camera and denoiser go first when the cores are busy."""
    below_normal = getattr(psutil, "BELOW_NORMAL_PRIORITY_CLASS", 5)
    try:
        psutil.Process().nice(below_normal)
    except psutil.Error:
        return


def _explained(error: Exception) -> str:
    """Return one line that names the library Qt lacks and how to get it."""
    text = str(error).split("\n")[0]
    library = text.split(":")[0]
    if "cannot open shared object file" not in text:
        return f"the preview window cannot open: {text}"
    package = next((p for name, p in _PACKAGES.items() if library.startswith(name)), None)
    remedy = f"on Debian or Ubuntu: apt-get install {package}" if package else "install it"
    return f"the preview window needs the system library {library}, which is missing; {remedy}"


def _fail(reader: MailboxReader, reason: str) -> int:
    reader.report(ReaderState.FAILED, reason)
    print(reason, file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
