"""The live view inside a page: the preview window of a run, found by its mailbox.

Owns when one is opened and let go. What is in it is `acquisition.preview`.
"""

from __future__ import annotations

from pathlib import Path

from PySide6.QtCore import Qt
from PySide6.QtWidgets import QStackedLayout, QWidget

from ...acquisition.preview.mailbox import MailboxError, MailboxReader, ReaderState
from ...acquisition.preview.widgets import label
from ...acquisition.preview.window import PreviewWindow


class LiveView(QWidget):
    """The preview of one run after the other.

    Parameters
    ----------
    empty
        What is said where there is no picture yet.
    camera_alone
        Whether the runs have no model.
    """

    def __init__(self, empty: str, *, camera_alone: bool = False) -> None:
        super().__init__()
        self._camera_alone = camera_alone
        self._mailbox = ""
        self.preview: PreviewWindow | None = None
        self._empty = label("intro", empty, wrap=True)
        self._empty.setAlignment(Qt.AlignmentFlag.AlignCenter)
        self._stack = QStackedLayout(self)
        self._stack.addWidget(self._empty)

    def show_mailbox(self, mailbox: str) -> None:
        """Show the run whose pictures lie there; "" leaves what is shown."""
        if not mailbox or mailbox == self._mailbox:
            return
        self._mailbox = mailbox
        try:
            reader = MailboxReader(Path(mailbox))
        except MailboxError:
            return  # the run is over, and its last picture was cleared away
        self.leave()
        self.preview = PreviewWindow(reader, embedded=True)
        if self._camera_alone:
            self.preview.show_camera_alone()
        self._stack.addWidget(self.preview)
        self._stack.setCurrentWidget(self.preview)
        reader.report(ReaderState.SHOWN)

    def leave(self) -> None:
        """Let the mailbox go."""
        if self.preview is not None:
            preview, self.preview = self.preview, None
            self._stack.setCurrentWidget(self._empty)
            self._stack.removeWidget(preview)
            preview.close()
            preview.deleteLater()
