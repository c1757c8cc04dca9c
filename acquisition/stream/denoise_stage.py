"""The second stage: the newest frames to `denoised.ome.zarr` and to the preview.

Owns what happens when the denoiser is behind (frames are skipped here and counted; `completion`
makes up for them), the latency, and what the preview is shown. It sees frames only after they went
to the disk, and nothing that happens here reaches back to the recorder.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...inference.bundle import Bundle
from ...inference.denoiser import Denoiser
from ...inference.runtime.pipeline import FramePipeline
from ...storage.axis_map import channel_of
from ...storage.ome_zarr_writer import OmeZarrWriter
from ..preview.link import PreviewLink
from .accounting import Accounting
from .channel_denoisers import ChannelDenoisers, require_finite
from .context import Context, Load, further_frames, observations
from .recorder import Part, Recorded
from .run_directory import RunDirectory
from .stage import Stage
from .thread_priority import let_others_go_first

MAX_WAITING = 2
"""One frame in work and two that wait: more would only make the view older."""
MAX_WAITING_BYTES = 256 * 2**20

TRUST_INTERVAL_S = 0.2
SKIP_LOG_INTERVAL_S = 10.0


class Waiting(NamedTuple):
    """A frame in front of the denoiser, with what else its model is given."""

    recorded: Recorded
    channel: int | str | None
    """The name by which it finds its model."""
    further: list[Load]


class DenoisedStores:
    """The denoised stores of a run, one per part, opened with the first frame of each."""

    def __init__(
        self,
        run: RunDirectory,
        attributes: Callable[[Part], Mapping[str, Any]],
        pixel_size_um: float | None,
    ) -> None:
        self._run = run
        self._attributes = attributes
        self._pixel_size_um = pixel_size_um
        self._stores: dict[int, OmeZarrWriter] = {}
        self._named: dict[int, int] = {}

    def of(self, part: Part) -> OmeZarrWriter:
        """Return the store of one part."""
        if part.number not in self._stores:
            self._stores[part.number] = OmeZarrWriter(
                self._run.denoised(part.number),
                frame_shape=part.frame_shape,
                dtype="float32",
                pixel_size_um=self._pixel_size_um,
                attributes=self._attributes(part),
                axis_map=part.axis_map,
            )
        store = self._stores[part.number]
        channels = len(part.axis_map.channel_names)
        if self._named.setdefault(part.number, channels) != channels:
            self._named[part.number] = channels
            store.update_attributes(self._attributes(part))
        return store

    def paths(self) -> list[Path]:
        """Return the stores that were written."""
        return [store.path for store in self._stores.values()]

    def close(self) -> None:
        """Close every store; raises the first error after all are closed."""
        errors = []
        for store in self._stores.values():
            try:
                store.close()
            except Exception as error:
                errors.append(error)
        if errors:
            raise errors[0]


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
        self._contexts: dict[int, Context] = {}
        self._pipeline: FramePipeline | None = None
        self._next_skip_log = 0.0

    def start(self) -> None:
        """Start the thread and wait until the models are warm; raises what kept them from it."""
        super().start()
        self._warm.result()

    def offer(self, recorded: Recorded) -> None:
        """Take a frame that was recorded. Never waits; called from the recorder's thread."""
        channel = self._denoisers.named(recorded.frame.axes, recorded.frame.metadata)
        waiting = Waiting(recorded, channel, self._further(recorded, channel))
        if self._denoisers.model(channel) is None:
            self._counts.without_model += bool(self._denoisers)
            if self._view is None:
                return
        for skipped in self._inbox.displace(waiting, recorded.frame.pixels.nbytes):
            self._note_skip(skipped)

    def _further(self, recorded: Recorded, channel: int | str | None) -> list[Load]:
        part, pixels = recorded.part, recorded.frame.pixels
        context = self._contexts.setdefault(
            part.number, Context(part.raw.read if part.raw is not None else lambda _: None)
        )
        return further_frames(
            context,
            recorded.place,
            lambda: pixels,
            part=part,
            denoisers=self._denoisers,
            channel=channel,
        )

    def _note_skip(self, skipped: Waiting) -> None:
        if self._denoisers.model(skipped.channel) is None:
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
        let_others_go_first()
        try:
            self._warm_up()
        except BaseException as error:
            self._warm.set_exception(error)
            raise
        self._warm.set_result(None)

    def _handle(self, waiting: Waiting) -> None:
        self._denoise_or_show(waiting)
        if not self.waiting:
            # The next frame is not there yet: nothing to overlap with, and this one is wanted.
            self._finish_frames()

    def _denoise_or_show(self, waiting: Waiting) -> None:
        (frame, part, place), channel, further = waiting
        if self._denoisers.model(channel) is None:
            self._show(waiting, None)
            return
        self._denoisers.require_other_channels(channel, part.axis_map.channel_names, place.time)
        pipeline = self._denoisers.pipeline(channel, part.frame_shape, part.roi)
        if pipeline is not self._pipeline:
            self._finish_frames()  # of another channel or shape: they come first
            self._pipeline = pipeline
        taken = self._denoisers.denoiser(channel, part.frame_shape, part.roi).context_frames
        for done, estimate in pipeline.put(waiting, observations(frame.pixels, further, taken)):
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


def denoise(
    denoiser: Denoiser,
    pixels: NDArray[Any],
    further: list[Load],
    estimate: NDArray[np.float32],
    index: int,
) -> None:
    """Denoise one frame into `estimate` (2, Y, X), for whoever does one at a time."""
    denoiser.denoise(observations(pixels, further, denoiser.context_frames), estimate)
    require_finite(estimate, f"frame {index}")


class View:
    """What a person sees while it runs: the newest frame and the trust figures.

    Parameters
    ----------
    counts
        Shown with every frame.
    title, simulated
        Shown with every frame.
    preview
        Whether to open a window; without one the trust figures are measured all the same.
    saturation_adu, pixel_size_um
        Of the camera.

    Attributes
    ----------
    trust
        The newest figures of each channel; the one of a run without channels is called "".
    """

    def __init__(
        self,
        counts: Accounting,
        *,
        title: str,
        simulated: bool,
        preview: bool,
        saturation_adu: float | None,
        pixel_size_um: float | None,
    ) -> None:
        self._counts = counts
        self._title = title
        self._simulated = simulated
        self._wanted = preview
        self._saturation_adu = saturation_adu
        self._pixel_size_um = pixel_size_um
        self._link: PreviewLink | None = None
        self._began = time.monotonic()
        self._next_trust: dict[str, float] = {}
        self._noise: dict[str, Any] = {}
        self.trust: dict[str, dict[str, float | None]] = {}

    @property
    def reason(self) -> str:
        """Why there is no window; empty if there is one or none was wanted."""
        return self._link.reason if self._link is not None else ""

    def show(
        self,
        estimate: NDArray[np.float32] | None,
        recorded: Recorded,
        channel: int | str | None,
        denoisers: ChannelDenoisers,
    ) -> None:
        """Show a frame. Never waits for the window, and copies what it keeps.

        `channel` names its model; what is shown is named as the store names it.
        """
        (frame, part, _), raw = recorded, recorded.frame.pixels
        model = denoisers.model(channel)
        stored = channel_of(frame.axes)
        name = "" if stored is None else str(stored)
        if estimate is not None:
            denoiser = denoisers.denoiser(channel, part.frame_shape, part.roi)
            self._measure_trust(name, raw, estimate, model, denoiser)
        if not self._wanted:
            return
        link = self._link_for(raw)
        figures = self._figures(name, recorded, denoisers, model)
        if estimate is None:
            link.show(raw, None, figures)
        else:
            link.show(raw, estimate[0], figures, estimate[1])

    def finish(self) -> None:
        """Say that no further frame will be shown, while skipped ones are still denoised."""
        if self._link is not None:
            self._link.finish()

    def close(self) -> None:
        """Leave the final counts beside the last frame; the window may stay."""
        if self._link is not None:
            counts = self._counts
            self._link.close(
                figures={
                    "frames_recorded": counts.recorded,
                    "frames_denoised": counts.denoised,
                    "frames_skipped_live": counts.skipped_live,
                    "frames_missing": counts.missing,
                }
            )

    def _link_for(self, raw: NDArray[Any]) -> PreviewLink:
        # One window for the run: it takes frames of any shape, as regions and cameras change.
        if self._link is None:
            self._link = PreviewLink.open(
                frame_shape=(raw.shape[0], raw.shape[1]),
                pixel_type=str(raw.dtype),
                title=self._title,
                saturation_adu=self._saturation_adu,
                pixel_size_um=self._pixel_size_um,
            )
        return self._link

    def _measure_trust(
        self,
        channel: str,
        raw: NDArray[Any],
        estimate: NDArray[np.float32],
        model: Any,
        denoiser: Denoiser,
    ) -> None:
        from ...inference.runtime.camera_pixels import CameraPixels
        from ...inference.trust import TrustFigures

        now = time.monotonic()
        if now < self._next_trust.get(channel, 0.0):
            return
        self._next_trust[channel] = now + TRUST_INTERVAL_S * max(1, len(self._next_trust))
        noise_variance = self._noise_variance(model)
        figures = TrustFigures.measure(
            raw,
            estimate[0],
            estimate[1],
            noise_variance,
            saturation_adu=self._saturation_adu,
            pixels=CameraPixels.of(denoiser, noise_variance),
        )
        self.trust[channel] = figures.result()

    def _noise_variance(self, model: Any) -> Any:
        if not isinstance(model, Bundle):
            return None
        if model.model_sha256 not in self._noise:
            from ...calibration.noise_files import load_noise_model
            from ...inference.trust import NoiseVariance

            self._noise[model.model_sha256] = NoiseVariance(
                load_noise_model(model.noise_model_path)
            )
        return self._noise[model.model_sha256]

    def _figures(
        self, channel: str, recorded: Recorded, denoisers: ChannelDenoisers, model: Any
    ) -> dict[str, float | int | str | None]:
        frame, counts = recorded.frame, self._counts
        return {
            "frame_index": frame.index,
            "frame_rate_hz": counts.frame_rate_hz,
            "latency_ms": (time.perf_counter_ns() - frame.received_ns) / 1e6,
            "frames_recorded": counts.recorded,
            "frames_denoised": counts.denoised,
            "frames_skipped_live": counts.skipped_live,
            "frames_missing": counts.missing,
            **self.trust.get(channel, {}),
            "provider": denoisers.result()["provider"],
            "channel": channel or None,
            "model": model.path.name if isinstance(model, Bundle) else type(model).__name__,
            "elapsed_s": time.monotonic() - self._began,
            "simulated": self._simulated,
        }
