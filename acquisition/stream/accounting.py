"""Every frame counted: delivered, recorded, denoised, skipped in the view, missing.

Owns the counters, the distribution of durations in constant memory, and the detection of gaps in
the camera's own frame numbers. Any thread may read; each counter is written by one thread.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .camera_settings import camera_label

_SHORTEST_NS = 1e3
_STEP = math.log(1.02)  # two neighbouring classes differ by 2 %
MOST_NUMBERED = 2**48
"""Images; what a camera counts beyond is no number of one."""
_CLASSES = 1400  # from 1 µs to 18 minutes


class Durations:
    """A distribution of durations, exact to 2 %, in constant memory."""

    def __init__(self) -> None:
        self._counts = np.zeros(_CLASSES, dtype=np.int64)
        self.longest_ns = 0

    def add(self, duration_ns: int) -> None:
        """Count one duration."""
        place = int(math.log(max(duration_ns, _SHORTEST_NS) / _SHORTEST_NS) / _STEP)
        self._counts[min(place, _CLASSES - 1)] += 1
        self.longest_ns = max(self.longest_ns, duration_ns)

    def percentile_ms(self, percent: float) -> float | None:
        """Return a percentile in ms, None if nothing was counted."""
        reached = np.cumsum(self._counts)
        total = int(reached[-1])
        if total == 0:
            return None
        place = int(np.searchsorted(reached, math.ceil(total * percent / 100)))
        upper_ns = _SHORTEST_NS * math.exp((place + 1) * _STEP)
        return min(upper_ns, self.longest_ns) / 1e6

    def result(self) -> dict[str, float | None]:
        """Return p50, p95, p99 and max in ms, as reports take them."""
        figures = {f"p{p}": self.percentile_ms(p) for p in (50, 95, 99)}
        return {**figures, "max": self.longest_ns / 1e6 if self.longest_ns else None}

    def histogram(self) -> list[tuple[float, int]]:
        """Return (upper limit in ms, how many) for every class that holds something."""
        counts = self._counts.copy()  # another thread may be counting
        return [
            (_SHORTEST_NS * math.exp((place + 1) * _STEP) / 1e6, int(counts[place]))
            for place in np.flatnonzero(counts)
        ]


@dataclass
class Accounting:
    """The counts of one run.

    Every frame delivered is recorded; every frame recorded is denoised live, denoised afterwards,
    belongs to a channel without a model, or is a misfit: its model is for other settings of the
    camera. `RunReport` says whether the sums agree. Images that
    could not become frames are refused and are none of those delivered.
    """

    delivered: int = 0
    refused: int = 0
    recorded: int = 0
    denoised_live: int = 0
    denoised_afterwards: int = 0
    skipped_live: int = 0
    without_model: int = 0
    misfits: int = 0
    missing: int = 0
    first_missing: int | None = None
    first_frame_ns: int | None = None
    last_frame_ns: int | None = None
    first_denoised_ns: int | None = None
    hook: Durations = field(default_factory=Durations)
    latency: Durations = field(default_factory=Durations)

    @property
    def denoised(self) -> int:
        """Frames in the denoised store."""
        return self.denoised_live + self.denoised_afterwards

    @property
    def still_to_denoise(self) -> int:
        """Recorded frames that have a model, and are not denoised yet."""
        return self.recorded - self.denoised - self.without_model - self.misfits

    @property
    def frame_rate_hz(self) -> float | None:
        """Mean rate at which frames were delivered."""
        if self.first_frame_ns is None or self.last_frame_ns is None or self.delivered < 2:
            return None
        span_ns = self.last_frame_ns - self.first_frame_ns
        return (self.delivered - 1) / (span_ns / 1e9) if span_ns > 0 else None

    def note_missing(self, first_index: int, count: int) -> None:
        """Count frames that the camera took and that never came."""
        self.missing += count
        if self.first_missing is None:
            self.first_missing = first_index

    def result(self) -> dict[str, Any]:
        """Return the counts by the names that reports and `--json` use."""
        return {
            "frames_delivered": self.delivered,
            "frames_refused": self.refused,
            "frames_recorded": self.recorded,
            "frames_denoised": self.denoised,
            "frames_denoised_live": self.denoised_live,
            "frames_denoised_afterwards": self.denoised_afterwards,
            "frames_skipped_live": self.skipped_live,
            "frames_without_model": self.without_model,
            "frames_not_of_the_models_camera": self.misfits,
            "frames_missing": self.missing,
            "first_missing_frame": self.first_missing,
            "frame_rate_hz": self.frame_rate_hz,
            "latency_ms": self.latency.result(),
            "latency_histogram_ms": self.latency.histogram(),
            "hook_ms": self.hook.result(),
        }


class FrameNumbers:
    """Find gaps in the numbers that a camera gives its frames.

    Micro-Manager tags frames of a hardware sequence with `ImageNumber`, which starts at 0 with
    every sequence. Single exposures carry none and are not judged.
    """

    def __init__(self) -> None:
        self._last: dict[str, int] = {}

    def missing_before(self, metadata: Mapping[str, Any]) -> int:
        """Return how many frames the camera took between the last one and this one."""
        try:
            number = int(metadata["ImageNumber"])
        except (KeyError, TypeError, ValueError, OverflowError):
            return 0
        if not 0 <= number < MOST_NUMBERED:
            return 0
        camera = camera_label(metadata)
        last = self._last.get(camera)
        self._last[camera] = number
        if last is None or number <= last:
            return number  # a new sequence: its first frame is number 0
        return number - last - 1
