"""The second stage: the newest frames to `denoised.ome.zarr` and to the preview.

Owns what happens when the denoiser is behind (frames are skipped here and counted; `completion`
makes up for them) and the latency. It sees frames only after they went to the disk, and nothing
that happens here reaches back to the recorder.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...errors import QuietscopeError
from ...inference.denoiser import Denoiser
from ...inference.errors import FrameMismatchError
from ...inference.runtime.pipeline import FramePipeline
from ...storage.axis_map import Place
from ..errors import AcquisitionError
from .accounting import Accounting
from .channel_denoisers import ChannelDenoisers, require_finite
from .context import Contexts, Load, observations, side_input_loaders
from .denoised_stores import DenoisedStores
from .frame import Frame
from .model_switch import Successor
from .part import Part, Recorded
from .run_directory import RunDirectory
from .stage import Stage
from .thread_priority import lower_thread_priority
from .view import View

logger = logging.getLogger(__name__)

MAX_WAITING = 2
"""One frame in work and two that wait: more would only make the view older."""
MAX_WAITING_BYTES = 256 * 2**20

SKIP_LOG_INTERVAL_S = 10.0
MAX_MISFITS_TOLD = 20


class Waiting(NamedTuple):
    """A frame in front of the denoiser, with the side inputs of its model."""

    recorded: Recorded
    channel: int | str | None
    """The name by which it finds its model."""
    loaders: list[Load]
    denoised: bool
    """Whether it has a model that fits; otherwise it is only shown."""


class DenoiseStage(Stage[Waiting]):
    """Denoise what can be denoised in time, and show it.

    Parameters
    ----------
    run, counts
        Of the run; `denoised_live`, `skipped_live` and the latency are counted here.
    denoisers, stores
        What denoises, and where to.
    view
        Shown every frame; None if nothing is denoised and there is no window.
    warm_up
        Called in this stage's thread before the first frame; `start` waits for it. Threads that
        a model starts then have the low priority of this stage.

    Attributes
    ----------
    misfit
        Why frames were not denoised although their channel has a model; None if all were.
    """

    def __init__(
        self,
        run: RunDirectory,
        counts: Accounting,
        denoisers: ChannelDenoisers,
        stores: DenoisedStores,
        view: View | None,
        warm_up: Callable[[], None],
    ) -> None:
        super().__init__(
            "denoiser", max_items=MAX_WAITING, max_bytes=MAX_WAITING_BYTES, may_hang=True
        )
        self._run_directory = run
        self._counts = counts
        self._denoisers = denoisers
        self._stores = stores
        self._view = view
        self._warm_up = warm_up
        self._warm: Future[None] = Future()
        self._contexts = Contexts(_read_recorded)
        self._pipeline: FramePipeline | None = None
        self._next_skip_log = 0.0
        self._unused_told = False
        self._misfits_told: set[str] = set()
        self._misfit_lock = threading.Lock()  # the recorder's thread finds some, this one others
        self.misfit: QuietscopeError | None = None

    def start(self) -> None:
        """Start the thread and wait until the models are warm; raises what kept them from it."""
        super().start()
        self._warm.result()

    def offer(self, recorded: Recorded) -> None:
        """Take a frame that was recorded. Never waits; called from the recorder's thread."""
        channel = self._denoisers.named(recorded.frame.axes, recorded.frame.metadata)
        self._tell_unused_models(recorded)
        fits = self._has_fitting_model(recorded, channel)
        if not fits and self._view is None:
            return
        waiting = Waiting(recorded, channel, self._further(recorded, channel), fits)
        for skipped in self._inbox.displace(waiting, recorded.frame.pixels.nbytes):
            self._note_skip(skipped)

    def follow_with(self, successor: Successor) -> None:
        """Let another model denoise from the next frame on.

        Raises
        ------
        AcquisitionError
            If this run denoises no further frame.
        """
        if not self.running or self.error is not None:
            raise AcquisitionError(
                f"{self._run_directory.path}: this run denoises no further frame; the next one "
                "can use that model"
            )
        self._denoisers.put_forward(successor)

    def _tell_unused_models(self, recorded: Recorded) -> None:
        """Say, once the second time point begins, to which channels' models no frame came."""
        if self._unused_told or recorded.place.time < 1:
            return
        self._unused_told = True
        if unused := self._denoisers.names_without_frames():
            there = ", ".join(recorded.part.axis_map.channel_names) or "no named channel"
            words = f"no frame of channel {', '.join(unused)} has come, to which a model was given"
            self._run_directory.log(f"frame {recorded.frame.index}: {words} (there is {there})")
            logger.warning("%s: it denoises nothing; this run has %s", words, there)

    def _has_fitting_model(self, recorded: Recorded, channel: int | str | None) -> bool:
        """Whether a frame is to be denoised; counts those that are not."""
        if self._denoisers.model(channel) is None:
            self._counts.without_model += bool(self._denoisers)
            return False
        frame, part, _ = recorded
        misfit = self._denoisers.misfit(channel, frame.camera, part.frame_shape)
        if misfit is None:
            return True
        self._note_misfit(frame, misfit)
        return False

    def _note_misfit(self, frame: Frame, misfit: QuietscopeError) -> None:
        """Count a frame that its model is not for; say so once for each reason."""
        with self._misfit_lock:
            self._counts.misfits += 1
            told = self._misfits_told
            new = str(misfit) not in told and len(told) < MAX_MISFITS_TOLD
            told.update({str(misfit)} if new else ())
            self.misfit = self.misfit or misfit
        if new:
            self._run_directory.log(f"frame {frame.index}: not denoised, {misfit}")
            logger.warning("frame %d is recorded but not denoised: %s", frame.index, misfit)

    def _further(self, recorded: Recorded, channel: int | str | None) -> list[Load]:
        part, pixels = recorded.part, recorded.frame.pixels
        return side_input_loaders(
            self._contexts.of(part),
            recorded.place,
            lambda: pixels,
            part=part,
            denoisers=self._denoisers,
            channel=channel,
        )

    def _note_skip(self, skipped: Waiting) -> None:
        if not skipped.denoised:
            return  # only the view would have had it
        self._counts.skipped_live += 1
        now = time.monotonic()
        if now >= self._next_skip_log:
            self._next_skip_log = now + SKIP_LOG_INTERVAL_S
            self._run_directory.log(
                f"frame {skipped.recorded.frame.index}: skipped in the live view, the denoiser is "
                f"behind ({self._counts.skipped_live} so far); it is denoised afterwards"
            )

    def _begin(self) -> None:
        lower_thread_priority()
        try:
            self._warm_up()
        except BaseException as error:
            self._warm.set_exception(error)
            raise
        self._warm.set_result(None)

    def _handle(self, waiting: Waiting) -> None:
        if self._denoisers.successor_waits:
            self._take_over(waiting.recorded.frame.index)
        self._denoise_or_show(waiting)
        if not self.waiting:
            # The next frame is not there yet: nothing to overlap with, and this one is wanted.
            self._finish_frames()

    def _take_over(self, from_frame: int) -> None:
        """Let another model denoise from this frame on; those before it are finished first."""
        self._finish_frames()
        self._pipeline = None  # its session may go
        for switch in self._denoisers.take_over(from_frame):
            self._run_directory.log(switch.line())

    def _denoise_or_show(self, waiting: Waiting) -> None:
        (frame, part, place), channel, loaders, denoised = waiting
        if not denoised:
            self._show(waiting, None)
            return
        self._denoisers.require_other_channels(
            channel, part.axis_map.channel_names, part=part.number, time_point=place.time
        )
        try:
            pipeline = self._denoisers.pipeline(channel, part.frame_shape, part.roi)
        except FrameMismatchError as error:
            self._denoisers.note_misfit(channel, frame.camera, part.frame_shape, error)
            self._note_misfit(frame, error)
            self._show(waiting, None)
            return
        if pipeline is not self._pipeline:
            self._finish_frames()  # of another channel or shape: they come first
            self._pipeline = pipeline
        taken = self._denoisers.denoiser(channel, part.frame_shape, part.roi).context_frames
        for done, estimate in pipeline.put(waiting, observations(frame.pixels, loaders, taken)):
            self._publish(done, estimate)

    def _finish_frames(self) -> None:
        if self._pipeline is not None:
            for done, estimate in self._pipeline.drain():
                self._publish(done, estimate)

    def _publish(self, waiting: Waiting, estimate: NDArray[np.float32]) -> None:
        frame, part, place = waiting.recorded
        require_finite(estimate, f"frame {frame.index}")
        self._stores.of(part).write(estimate[0], place)
        now = time.perf_counter_ns()
        self._counts.first_denoised_ns = self._counts.first_denoised_ns or now
        self._counts.latency.add(now - frame.received_ns)
        self._counts.denoised_live += 1
        self._show(waiting, estimate)

    def _show(self, waiting: Waiting, estimate: NDArray[np.float32] | None) -> None:
        if self._view is not None:
            self._view.show(estimate, waiting.recorded, waiting.channel, self._denoisers)


def _read_recorded(part: Part, place: Place) -> NDArray[Any] | None:
    return None if part.raw is None else part.raw.read(place)


def denoise(
    denoiser: Denoiser,
    pixels: NDArray[Any],
    loaders: list[Load],
    estimate: NDArray[np.float32],
    index: int,
) -> None:
    """Denoise one frame into `estimate` (2, Y, X), for whoever does one at a time."""
    denoiser.denoise(observations(pixels, loaders, denoiser.context_frames), estimate)
    require_finite(estimate, f"frame {index}")
