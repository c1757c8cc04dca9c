"""The colours of the preview window and of its images.

Owns how things look. Colours suit a dark microscope room: near-black, no pure white in the frame.
What is drawn with them is in `widgets` and `image_panel`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from ...inference.trust.verdict import Grade
from .display_levels import GREYS

BACKGROUND = "#0b0d10"


SURFACE = "#13171b"


RAISED = "#1b2026"


BORDER = "#262d34"


TEXT = "#d3dae0"


MUTED = "#8b97a2"


ACCENT = "#5ec8b5"


RAW_COLOUR = "#87929c"


LOST, INVENTED = "#f0a35a", "#6aa9ff"
"""Places where something was removed, and where something was added."""
GRADE_COLOURS = {
    Grade.UNKNOWN: "#5b6670",
    Grade.GOOD: "#45b584",
    Grade.CARE: "#dca545",
    Grade.BAD: "#e5675f",
}
SATURATED_COLOUR = (255, 72, 66)


def style_sheet(scale: float) -> str:
    """Return the window's style sheet, with lengths multiplied by `scale`."""

    def px(size: float) -> str:
        return f"{size * scale:.0f}px"

    return f"""
    QWidget {{ background: {BACKGROUND}; color: {TEXT}; font-size: {px(13)}; }}
    QLabel {{ background: transparent; }}
    QToolTip {{ background: {RAISED}; color: {TEXT}; border: 1px solid {BORDER}; padding: 4px; }}
    #bar, #side {{ background: {SURFACE}; }}
    #bar QWidget, #side QWidget {{ background: transparent; }}
    #side {{ border-left: 1px solid {BORDER}; }}
    #title {{ font-size: {px(15)}; font-weight: 600; }}
    #section {{ color: {MUTED}; font-size: {px(11)}; font-weight: 600; letter-spacing: 1px; }}
    #muted {{ color: {MUTED}; font-size: {px(12)}; }}
    #small {{ color: {MUTED}; font-size: {px(12)}; }}
    #value {{ font-weight: 600; }}
    #panel {{ font-size: {px(14)}; font-weight: 600; }}
    #headline {{ font-size: {px(15)}; font-weight: 600; }}
    #badge {{ color: {GRADE_COLOURS[Grade.CARE]}; border: 1px solid {GRADE_COLOURS[Grade.CARE]};
              border-radius: {px(4)}; padding: {px(2)} {px(8)}; font-size: {px(11)};
              font-weight: 700; letter-spacing: 1px; }}
    #overlay {{ color: {MUTED}; font-size: {px(15)}; }}
    #verdict {{ border-radius: {px(8)}; }}
    #rule {{ background: {BORDER}; max-height: 1px; min-height: 1px; }}
    #bar QPushButton, QPushButton {{ background: {RAISED}; border: 1px solid {BORDER};
              border-radius: {px(5)}; padding: {px(4)} {px(11)}; color: {TEXT}; }}
    #bar QPushButton:hover, QPushButton:hover {{ border-color: {MUTED}; }}
    #bar QPushButton:checked, QPushButton:checked {{ background: #1f3f3a; border-color: {ACCENT};
              color: {TEXT}; }}
    QPushButton:disabled {{ color: {GRADE_COLOURS[Grade.UNKNOWN]}; }}
    QComboBox {{ background: {RAISED}; border: 1px solid {BORDER}; border-radius: {px(5)};
              padding: {px(2)} {px(8)}; font-size: {px(12)}; }}
    QComboBox QAbstractItemView {{ background: {RAISED}; color: {TEXT};
              selection-background-color: #1f3f3a; }}
    QCheckBox {{ font-size: {px(12)}; spacing: {px(6)}; }}
    QCheckBox::indicator {{ width: {px(11)}; height: {px(11)}; border: 1px solid {MUTED};
              border-radius: {px(3)}; background: {RAISED}; }}
    QCheckBox::indicator:checked {{ background: {ACCENT}; border-color: {ACCENT}; }}
    """


def coloured_table(*stops: tuple[int, int, int]) -> NDArray[np.uint8]:
    """Return (256, 3) uint8: from the first colour to the last, and that of saturation last."""
    table = _gradient(list(stops))
    table[-1] = SATURATED_COLOUR
    return table


def grey_table() -> NDArray[np.uint8]:
    """Return (256, 3) uint8: greys, and the colour of saturated pixels last."""
    table = np.repeat(np.linspace(0, 255, GREYS)[:, None], 3, axis=1)
    return np.vstack([table, SATURATED_COLOUR]).round().astype(np.uint8)


def difference_table() -> NDArray[np.uint8]:
    """Return (256, 3) uint8: blue below zero, dark at zero, orange above."""
    return _gradient([(96, 165, 255), (16, 19, 23), (255, 166, 84)])


def uncertainty_table() -> NDArray[np.uint8]:
    """Return (256, 3) uint8: dark where it is sure, bright where it is not."""
    return _gradient([(8, 9, 20), (84, 44, 120), (200, 76, 96), (250, 170, 90), (252, 240, 190)])


def _gradient(stops: list[tuple[int, int, int]]) -> NDArray[np.uint8]:
    positions = np.linspace(0, GREYS - 1, len(stops))
    channels = [
        np.interp(np.arange(256), positions, channel) for channel in zip(*stops, strict=True)
    ]
    return np.stack(channels, axis=1).round().astype(np.uint8)


BLACK, WHITE = (0, 0, 0), (255, 255, 255)

TABLES: Mapping[str, Callable[[], NDArray[np.uint8]]] = {
    "Grey": grey_table,
    "Grey, inverted": lambda: coloured_table(WHITE, BLACK),
    "Green": lambda: coloured_table(BLACK, (0, 158, 115), (190, 255, 225)),
    "Magenta": lambda: coloured_table(BLACK, (204, 80, 167), (255, 214, 240)),
    "Blue": lambda: coloured_table(BLACK, (40, 120, 210), (200, 230, 255)),
    "Orange": lambda: coloured_table(BLACK, (213, 110, 20), (255, 230, 190)),
    "Heat": lambda: coloured_table(
        (0, 0, 4), (87, 16, 110), (188, 55, 84), (249, 142, 9), (252, 255, 164)
    ),
}
"""Colours of a channel. The single ones are those that colour-blind eyes tell apart (Okabe & Ito
2008), and each grows steadily in brightness, as does Heat (inferno)."""
