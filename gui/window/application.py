"""How the window starts: whether there is a screen, fonts, the one application.

Owns the refusal in one line where no window can be opened.
"""

from __future__ import annotations

import sys
from pathlib import Path

from ...acquisition.preview.link import missing_screen
from ...acquisition.preview.qt_platform import obstacle
from ..errors import NoWindowError


def no_window() -> str:
    """Return why no window can be opened here, "" if one can. Asks without loading Qt first."""
    if missing_screen():
        return (
            "no screen: neither DISPLAY nor WAYLAND_DISPLAY is set, so no window can be opened; "
            "use the commands (quietscope --help), or start it on the computer's own desktop"
        )
    return obstacle()


def open_window(folder: Path | None = None) -> int:
    """Open the window and return when it is closed.

    Parameters
    ----------
    folder
        Where it keeps what it remembers; the user's own place if not given.

    Raises
    ------
    NoWindowError
        Without a screen or without Qt.
    """
    if reason := no_window():
        raise NoWindowError(reason)
    from PySide6.QtWidgets import QApplication

    from ...acquisition.preview.process import provide_fonts
    from ..session import Session
    from .main_window import MainWindow

    running = QApplication.instance()
    if running is not None and not isinstance(running, QApplication):
        raise NoWindowError(
            "this program already runs Qt without windows (QCoreApplication); make a QApplication "
            "there, or start quietscope on its own"
        )
    application = running or QApplication(sys.argv[:1])
    application.setApplicationName("quietscope")
    provide_fonts()
    window = MainWindow(Session(folder))
    window.show()
    return int(application.exec())
