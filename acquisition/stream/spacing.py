"""How far planes and time points lie apart, as the images of a run tell.

Owns the two distances. Nobody may know them beforehand: a script of the user's own plans its
acquisition itself, and only the tags of its images say where the focus stood and when.
"""

from __future__ import annotations

from ...storage.axis_map import Place
from .camera_settings import elapsed_ms, z_um
from .frame import Frame


class Spacing:
    """Learns from one frame after the other.

    Attributes
    ----------
    z_step_um
        Distance of neighbouring planes; None until two were seen.
    interval_s
        Mean time between the starts of two time points; None until two were seen.
    """

    def __init__(self) -> None:
        self.z_step_um: float | None = None
        self.interval_s: float | None = None
        self._first: tuple[Place, float | None, float | None] | None = None

    def note(self, frame: Frame, place: Place) -> bool:
        """Take a frame into account; return whether a distance became known with it."""
        z, elapsed = z_um(frame.metadata), elapsed_ms(frame.metadata)
        if self._first is None:
            self._first = (place, z, elapsed)
            return False
        before = (self.z_step_um is None, self.interval_s is None)
        first, first_z, first_ms = self._first
        if self.z_step_um is None and place.z != first.z and z is not None and first_z is not None:
            self.z_step_um = abs((z - first_z) / (place.z - first.z)) or None
        same_but_time = place._replace(time=first.time) == first and place.time > first.time
        if same_but_time and elapsed is not None and first_ms is not None:
            interval_s = (elapsed - first_ms) / (place.time - first.time) / 1000
            self.interval_s = interval_s if interval_s > 0 else None
        return before != (self.z_step_um is None, self.interval_s is None)
