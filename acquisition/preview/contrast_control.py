"""The contrast of each channel, and what a person does to it.

Owns which limits hold for the channel that is looked at. The rules are in `display_levels`, the
histogram in `plots`.
"""

from __future__ import annotations

from typing import Any

from numpy.typing import NDArray
from PySide6.QtCore import QObject, Signal

from .display_levels import CONTRAST_RULES, Limits, SharedContrast
from .mailbox import Picture
from .plots import ContrastPlot
from .widgets import later


class ContrastControl(QObject):
    """One contrast per channel, kept while another one is looked at."""

    changed = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.plot = ContrastPlot()
        self._now = SharedContrast()
        self._of_channel = {"": self._now}
        self._picture: Picture | None = None
        self.plot.auto_box.toggled.connect(self._toggle_automatic)
        self.plot.rule_box.currentIndexChanged.connect(self._choose_rule)
        self.plot.levels.sigRegionChanged.connect(later(self._levels_dragged))

    @property
    def limits(self) -> Limits:
        """Black and white, ADU."""
        return self._now.limits

    def limits_of(self, channel: str) -> Limits:
        """Black and white of a channel, ADU, whether it is looked at or not."""
        return self._of(channel).limits

    def follow_beside(self, channel: str, picture: Picture, since_last: float) -> None:
        """Let a channel follow its picture that is not the one looked at."""
        self._of(channel).follow(_followed(picture), since_last)

    def _of(self, channel: str) -> SharedContrast:
        return self._of_channel.setdefault(channel, SharedContrast())

    def turn_to(self, channel: str) -> None:
        """Use the contrast of another channel."""
        self._now = self._of(channel)
        self.plot.show_rule(self._now)

    def follow(self, picture: Picture, since_last: float) -> None:
        """Let automatic limits follow a picture."""
        self._picture = picture
        self._now.follow(_followed(picture), since_last)

    def draw(self) -> None:
        """Draw the histogram of the picture that was followed last."""
        if self._picture is not None:
            self.plot.show(self._picture, self.limits)

    def next_rule(self) -> None:
        """Take the next rule of automatic contrast."""
        here = CONTRAST_RULES.index(self._now.rule)
        self.plot.rule_box.setCurrentIndex((here + 1) % len(CONTRAST_RULES))

    def nudge(self, *, black: float = 0.0, white: float = 0.0) -> None:
        """Move black and white by these shares of what lies between them; by hand from now on."""
        low, high = self.limits
        span = self.limits.span
        self.plot.levels.setRegion((low + black * span, high + white * span))

    def _toggle_automatic(self, automatic: bool) -> None:
        if automatic:
            self._now.set_automatic()
            self._follow_at_once()
        else:
            self._now.set_by_hand(*self._now.limits)

    def _choose_rule(self, index: int) -> None:
        self._now.set_automatic(CONTRAST_RULES[index])
        self.plot.auto_box.setChecked(True)
        self._follow_at_once()

    def _follow_at_once(self) -> None:
        if self._picture is not None:
            self.follow(self._picture, 0.0)
            self.changed.emit()
            self.draw()

    def _levels_dragged(self) -> None:
        low, high = self.plot.levels.getRegion()
        self._now.set_by_hand(low, high)
        self.plot.auto_box.setChecked(False)
        self.changed.emit()
        self.plot.show_limits(Limits(low, high))


def _followed(picture: Picture) -> NDArray[Any]:
    """Return the image whose range is that of the specimen, where there is one."""
    return picture.raw if picture.denoised is None else picture.denoised
