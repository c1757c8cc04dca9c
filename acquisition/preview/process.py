"""The process of the preview window: `python -m quietscope.acquisition.preview.process`.

Owns how that process starts and ends: options, priority, fonts, the place on the screen, the
picture of the window for a report; and that a failure reaches the acquisition as one line and
never as a traceback. It imports no Qt before `qt_platform` has said that it can be loaded.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from .mailbox import MailboxError, MailboxReader, ReaderState
from .qt_platform import explained, obstacle

if TYPE_CHECKING:
    from PySide6.QtWidgets import QApplication

    from .window import PreviewWindow


def main(arguments: Sequence[str] | None = None) -> int:
    """Open the window and return its exit status: 0 closed, 1 no window (the reason is told)."""
    options = _options(arguments)
    try:
        reader = MailboxReader(options.mailbox)
    except MailboxError as error:
        print(error, file=sys.stderr)
        return 1
    reason = obstacle()
    if reason:
        return _fail(reader, reason)
    try:
        return _run(reader, options)
    except Exception as error:  # the acquisition says it in one line; nobody reads a traceback
        return _fail(reader, explained(error))


def _run(reader: MailboxReader, options: argparse.Namespace) -> int:
    from .window import PreviewWindow

    _give_way()
    application = _application(reader)
    window = PreviewWindow(reader, still=options.snapshot is not None)
    if options.snapshot is not None:
        return _snapshot(window, reader, options.snapshot, options.size)
    _place(window)
    window.closed.connect(application.exit)  # quit() would close this window once more
    window.show()
    reader.report(ReaderState.SHOWN)
    return application.exec()


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    def size(text: str) -> tuple[int, int]:
        width, height = text.lower().split("x")
        return int(width), int(height)

    parser = argparse.ArgumentParser(
        prog="python -m quietscope.acquisition.preview.process",
        description="Shows the newest raw and denoised image of a running acquisition.",
    )
    parser.add_argument("--mailbox", type=Path, required=True, help="file the acquisition feeds")
    parser.add_argument("--snapshot", type=Path, help="draw the window into this PNG and end")
    parser.add_argument("--size", type=size, default=(1280, 720), help="of the snapshot: WxH")
    return parser.parse_args(arguments)


def _application(reader: MailboxReader) -> QApplication:
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
    provide_fonts()
    return application


def provide_fonts() -> None:
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

    # Nearly the whole of a laptop's screen; room for Micro-Manager beside it on a large one.
    space = QGuiApplication.primaryScreen().availableGeometry()
    large = space.width() > 1600
    width = round(space.width() * (0.9 if large else 1.0))
    height = round(space.height() * (0.88 if large else 0.95))
    window.resize(min(width, 1800), min(height, 1120))


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
    below_normal = getattr(psutil, "BELOW_NORMAL_PRIORITY_CLASS", 10)
    try:
        psutil.Process().nice(below_normal)
    except psutil.Error:
        return


def _fail(reader: MailboxReader, reason: str) -> int:
    reader.report(ReaderState.FAILED, reason)
    print(reason, file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
