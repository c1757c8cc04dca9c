"""The denoisers that are open at the same time: the most recently used ones.

Owns how many there are and what is released when. Every frame shape and every region of the sensor
needs a session of its own, and a script may move the region for hours.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from ...calibration.pixel_maps import Region
from ...inference.denoiser import Denoiser
from ...inference.runtime.onnx_denoiser import OnnxDenoiser
from ...inference.runtime.pipeline import BlockingLane, FramePipeline

Key = tuple[str, tuple[int, int], Region | None]
"""What names a model, the frame shape (Y, X), and the region of the sensor."""


class Session:
    """A denoiser that is open, and the way for many frames through it once there is one.

    Parameters
    ----------
    denoiser
        For frames of one shape.
    own
        Whether it was built for this run and is closed with it.
    """

    def __init__(self, denoiser: Denoiser, *, own: bool) -> None:
        self.denoiser = denoiser
        self._own = own
        self._pipeline: FramePipeline | None = None

    def pipeline(self) -> FramePipeline:
        """Return the way for many frames, always the same one."""
        if self._pipeline is None:
            self._pipeline = (
                self.denoiser.pipeline()
                if isinstance(self.denoiser, OnnxDenoiser)
                else FramePipeline([BlockingLane(self.denoiser)])
            )
        return self._pipeline

    def close(self) -> None:
        """Release the pipeline, and the denoiser unless it was handed in."""
        if self._pipeline is not None:
            self._pipeline.close()
            self._pipeline = None
        if self._own:
            self.denoiser.close()


class SessionCache:
    """Sessions by what they are for. Used from one thread at a time.

    Parameters
    ----------
    most
        How many stay open; at least two, so that the frames of the one before can be finished.
    """

    def __init__(self, most: int) -> None:
        self._most = max(2, most)
        self._sessions: OrderedDict[Key, Session] = OrderedDict()

    def __len__(self) -> int:
        return len(self._sessions)

    def get(self, key: Key, build: Callable[[], Session]) -> Session:
        """Return the session of `key`, built if there is none; then the oldest in use may go."""
        if key not in self._sessions:
            self._sessions[key] = build()
            if len(self._sessions) > self._most:
                _, oldest = self._sessions.popitem(last=False)
                oldest.close()
        self._sessions.move_to_end(key)
        return self._sessions[key]

    def drop(self, model: str) -> None:
        """Release the sessions of a model that is not in use any more."""
        for key in [key for key in self._sessions if key[0] == model]:
            self._sessions.pop(key).close()

    def close(self) -> None:
        """Release all; engines that TensorRT lacked are compiled for the next run."""
        sessions, self._sessions = list(self._sessions.values()), OrderedDict()
        for session in sessions:
            session.close()
        for session in sessions:
            if isinstance(session.denoiser, OnnxDenoiser):
                session.denoiser.compile_missing_engines()
