"""The colours and the type of the window, dark and light.

Owns how things look. Good, care and bad also differ in shape (`preview.widgets.Lamp`), and the two
colours of curves are told apart by colour-blind eyes as well. The live view stays dark in both: it
is looked at beside a microscope.
"""

from __future__ import annotations

from dataclasses import dataclass

from PySide6.QtCore import Qt
from PySide6.QtGui import QGuiApplication

from ..remembered import Appearance


@dataclass(frozen=True, slots=True)
class Theme:
    """The colours of one appearance."""

    background: str
    surface: str
    raised: str
    border: str
    text: str
    muted: str
    accent: str
    on_accent: str
    chosen: str
    curve: str
    other_curve: str
    bad: str


DARK = Theme(
    background="#0f1216",
    surface="#14181d",
    raised="#1d232a",
    border="#2a323a",
    text="#d9e0e6",
    muted="#93a0ab",
    accent="#5ec8b5",
    on_accent="#06241f",
    chosen="#1b2f2d",
    curve="#5ec8b5",
    other_curve="#f0a35e",
    bad="#e5675f",
)
LIGHT = Theme(
    background="#fbfcfd",
    surface="#f1f4f6",
    raised="#ffffff",
    border="#cfd7de",
    text="#1b242c",
    muted="#5a6772",
    accent="#0f7f70",
    on_accent="#ffffff",
    chosen="#d9efeb",
    curve="#0f7f70",
    other_curve="#b45f06",
    bad="#b8352d",
)


def theme_for(appearance: Appearance) -> Theme:
    """Return the colours for what she chose; `system` asks the desktop."""
    if appearance == "system":
        hints = QGuiApplication.styleHints()
        return LIGHT if hints.colorScheme() == Qt.ColorScheme.Light else DARK
    return DARK if appearance == "dark" else LIGHT


def style_sheet(theme: Theme, scale: float) -> str:
    """Return the window's style sheet, with lengths multiplied by `scale`."""

    def px(size: float) -> str:
        return f"{size * scale:.0f}px"

    t = theme
    return f"""
    QMainWindow, QWidget#page, QStackedWidget {{ background: {t.background}; }}
    QWidget {{ color: {t.text}; font-size: {px(13)}; }}
    QLabel {{ background: transparent; }}
    QToolTip {{ background: {t.raised}; color: {t.text}; border: 1px solid {t.border};
        padding: 4px; }}
    #rail {{ background: {t.surface}; border-right: 1px solid {t.border}; }}
    #rail QWidget {{ background: transparent; }}
    #brand {{ font-size: {px(17)}; font-weight: 700; }}
    #title {{ font-size: {px(21)}; font-weight: 650; }}
    #intro {{ color: {t.muted}; font-size: {px(14)}; }}
    #section {{ color: {t.muted}; font-size: {px(11)}; font-weight: 600; letter-spacing: 1px; }}
    #muted, #small {{ color: {t.muted}; font-size: {px(12)}; }}
    #value {{ font-weight: 600; }}
    #headline {{ font-size: {px(15)}; font-weight: 600; }}
    #command {{ color: {t.muted}; font-family: monospace; font-size: {px(12)}; }}
    #card {{ background: {t.surface}; border: 1px solid {t.border}; border-radius: {px(8)}; }}
    #error {{ background: {t.surface}; border: 1px solid {t.bad}; border-radius: {px(8)}; }}
    #ask {{ background: {t.chosen}; border: 1px solid {t.accent}; border-radius: {px(8)}; }}
    #step {{ text-align: left; border: none; border-radius: {px(8)}; background: transparent; }}
    #step:hover {{ background: {t.raised}; }}
    #step:checked {{ background: {t.chosen}; }}
    #step:focus {{ border: 1px solid {t.accent}; }}
    #rule {{ background: {t.border}; max-height: 1px; min-height: 1px; }}
    QPushButton {{ background: {t.raised}; border: 1px solid {t.border};
        border-radius: {px(6)}; padding: {px(6)} {px(13)}; }}
    QPushButton:hover, QPushButton:focus {{ border-color: {t.accent}; }}
    QPushButton:disabled {{ color: {t.muted}; background: transparent; }}
    QPushButton#primary {{ background: {t.accent}; color: {t.on_accent}; font-weight: 650;
        border: 2px solid {t.accent}; padding: {px(9)} {px(22)}; font-size: {px(15)}; }}
    QPushButton#primary:focus {{ border-color: {t.text}; }}
    QPushButton#primary:disabled {{ background: {t.raised}; color: {t.muted};
        border-color: {t.border}; }}
    QRadioButton, QCheckBox {{ spacing: {px(8)}; font-size: {px(14)}; }}
    QRadioButton::indicator, QCheckBox::indicator {{ width: {px(12)}; height: {px(12)};
        border: 2px solid {t.muted}; background: {t.background}; }}
    QRadioButton::indicator {{ border-radius: {px(8)}; }}
    QCheckBox::indicator {{ border-radius: {px(3)}; }}
    QRadioButton::indicator:checked, QCheckBox::indicator:checked {{ background: {t.accent};
        border-color: {t.accent}; }}
    QRadioButton:focus, QCheckBox:focus {{ color: {t.accent}; }}
    QLineEdit, QSpinBox, QDoubleSpinBox, QComboBox, QListWidget {{ background: {t.raised};
        border: 1px solid {t.border}; border-radius: {px(5)}; padding: {px(4)} {px(7)};
        selection-background-color: {t.accent}; selection-color: {t.on_accent}; }}
    QSpinBox::up-button, QSpinBox::down-button, QDoubleSpinBox::up-button,
        QDoubleSpinBox::down-button {{ width: 0px; border: none; }}
    QLineEdit:focus, QSpinBox:focus, QDoubleSpinBox:focus, QComboBox:focus, QListWidget:focus
        {{ border-color: {t.accent}; }}
    QComboBox QAbstractItemView {{ background: {t.raised}; color: {t.text};
        selection-background-color: {t.chosen}; selection-color: {t.text}; }}
    QProgressBar {{ background: {t.raised}; border: 1px solid {t.border}; max-height: {px(8)};
        border-radius: {px(4)}; }}
    QProgressBar::chunk {{ background: {t.accent}; border-radius: {px(3)}; }}
    QScrollBar {{ background: transparent; border: none; }}
    QScrollBar:vertical {{ width: {px(10)}; }}
    QScrollBar:horizontal {{ height: {px(10)}; }}
    QScrollBar::handle {{ background: {t.border}; border-radius: {px(5)}; min-height: {px(24)};
        min-width: {px(24)}; }}
    QScrollBar::handle:hover {{ background: {t.muted}; }}
    QScrollBar::add-line, QScrollBar::sub-line {{ width: 0px; height: 0px; border: none; }}
    QScrollBar::add-page, QScrollBar::sub-page {{ background: transparent; }}
    QScrollArea {{ border: none; background: transparent; }}
    QScrollArea > QWidget > QWidget {{ background: transparent; }}
    """
