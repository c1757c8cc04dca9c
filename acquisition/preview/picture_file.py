"""The window as a picture on disk.

Owns where it is suggested to go, and what is said if it cannot be written.
"""

from __future__ import annotations

from pathlib import Path

from PySide6.QtCore import QDateTime, QStandardPaths
from PySide6.QtWidgets import QFileDialog, QWidget


def ask_and_save(window: QWidget) -> str:
    """Ask where to put a picture of `window`; return what went wrong, "" if nothing did."""
    picture = window.grab()  # before the dialog: this very moment
    folder = QStandardPaths.writableLocation(QStandardPaths.StandardLocation.PicturesLocation)
    stamp = QDateTime.currentDateTime().toString("yyyy-MM-dd HH-mm-ss")
    place = Path(folder) if Path(folder).is_dir() else Path.home()
    suggestion = str(place / f"quietscope {stamp}.png")
    path, _ = QFileDialog.getSaveFileName(window, "Save picture", suggestion, "Picture (*.png)")
    if path and not picture.save(path, "PNG"):
        return f"{path} could not be written"
    return ""
