"""What a person sees while it runs: the newest frame, the figures, and how far to trust them.

Owns when trust is measured and what the window is told. It copies what it keeps and never waits;
how the window looks is written in `preview`, what the figures mean in `inference.trust`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any

import numpy as np
from numpy import float32
from numpy.typing import NDArray

from ...calibration.errors import CalibrationError
from ...calibration.noise_files import load_noise_model
from ...inference.bundle import Bundle
from ...inference.denoiser import Denoiser
from ...inference.errors import BundleError
from ...inference.runtime.camera_pixels import CameraPixels
from ...inference.trust.figures import TrustFigures
from ...inference.trust.judge import FrameJudge
from ...inference.trust.noise_variance import NoiseVariance
from ...storage.axis_map import channel_of
from ..preview.display_levels import CONTRAST_RULES, percentile_limits
from ..preview.link import PreviewLink
from .accounting import Accounting
from .channel_denoisers import ChannelDenoisers
from .part import Recorded
from .verdict_watch import VerdictWatch

logger = logging.getLogger(__name__)

TRUST_INTERVAL_S = 0.2
TRUST_SHARE = 0.05
"""Of the time of the thread that denoises, what judging may take at most."""


class View:
    """What a person sees while it runs: the newest frame and the trust figures.

    Parameters
    ----------
    counts
        Shown with every frame.
    verdicts
        Judges the trust figures, as the window does.
    title, simulated
        Shown with every frame.
    preview
        Whether to open a window; without one the trust figures are measured all the same.
    saturation_adu, pixel_size_um
        Of the camera.
    run
        Where its frames are recorded; None where somebody else does.
    newer_model
        Returns a model that came into use meanwhile and that this run could change over to.

    Attributes
    ----------
    trust
        The newest figures of each channel; the one of a run without channels is called "".
    """

    def __init__(
        self,
        counts: Accounting,
        verdicts: VerdictWatch,
        *,
        title: str,
        simulated: bool,
        preview: bool,
        saturation_adu: float | None,
        pixel_size_um: float | None,
        run: Path | None = None,
        newer_model: Callable[[], Path | None] = lambda: None,
    ) -> None:
        self._newer_model = newer_model
        self._counts = counts
        self._verdicts = verdicts
        self._title = title
        self._simulated = simulated
        self._wanted = preview
        self._saturation_adu = saturation_adu
        self._pixel_size_um = pixel_size_um
        self._run = run
        self._link: PreviewLink | None = None
        self._began = time.monotonic()
        self._next_trust: dict[str, float] = {}
        self._noise: dict[str, NoiseVariance | None] = {}
        self._judges: dict[tuple[str, str], FrameJudge] = {}
        self.trust: dict[str, dict[str, Any]] = {}

    @property
    def reason(self) -> str:
        """Why there is no window; empty if there is one or none was wanted."""
        return self._link.reason if self._link is not None else ""

    def show(
        self,
        estimate: NDArray[float32] | None,
        recorded: Recorded,
        channel: int | str | None,
        denoisers: ChannelDenoisers,
    ) -> None:
        """Show a frame. Never waits for the window, and copies what it keeps.

        `channel` names its model; what is shown is named as the store names it.
        """
        (frame, part, place), raw = recorded, recorded.frame.pixels
        model = denoisers.model(channel)
        stored = channel_of(frame.axes)
        name = "" if stored is None else str(stored)
        if estimate is not None:
            denoiser = denoisers.denoiser(channel, part.frame_shape, part.roi)
            where = (part.number, place.position, place.z)
            self._measure_trust(name, raw, estimate, model, denoiser, frame.index, where)
        if not self._wanted:
            return
        link = self._link_for(raw)
        figures = self._figures(name, recorded, denoisers, model)
        if estimate is None:
            link.show(raw, None, figures)
        else:
            link.show(raw, estimate[0], figures, estimate[1] if _states_it(model) else None)

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
                run=self._run,
            )
        return self._link

    def _measure_trust(
        self,
        channel: str,
        raw: NDArray[Any],
        estimate: NDArray[float32],
        model: Any,
        denoiser: Denoiser,
        frame_index: int,
        where: Hashable,
    ) -> None:
        now = time.monotonic()
        if now < self._next_trust.get(channel, 0.0):
            return
        noise_variance = self._noise_variance(model)
        pixels = CameraPixels.of(denoiser, noise_variance)
        figures = TrustFigures.measure(
            raw,
            estimate[0],
            estimate[1],
            noise_variance,
            saturation_adu=self._saturation_adu,
            pixels=pixels,
        )
        self.trust[channel] = {**figures.result()}
        judge = self._judge(channel, model)
        if judge is not None:
            judged = judge.add(raw, estimate[0], estimate[1], pixels=pixels, place=where)
            self.trust[channel] |= judged.result()
        shown = percentile_limits(estimate[0], CONTRAST_RULES[0])
        self._verdicts.add(channel, self.trust[channel], shown.span, frame_index)
        interval = max(TRUST_INTERVAL_S, (time.monotonic() - now) / TRUST_SHARE)
        self._next_trust[channel] = now + interval * max(1, len(self._next_trust))

    def _judge(self, channel: str, model: Any) -> FrameJudge | None:
        noise = self._noise_variance(model)
        if noise is None:
            return None
        key = (channel, model.model_sha256)
        if key not in self._judges:
            limit = self._saturation_adu
            saturation_adu = np.inf if limit is None else limit
            try:
                judge = FrameJudge.of_bundle(model, noise, saturation_adu=saturation_adu)
            except BundleError as error:  # of a later version, say: no reason to stop a run
                logger.warning("%s; the picture is judged without it", error)
                judge = FrameJudge(noise, None, saturation_adu=saturation_adu)
            self._judges[key] = judge
        return self._judges[key]

    def _noise_variance(self, model: Any) -> NoiseVariance | None:
        if not isinstance(model, Bundle):
            return None
        if model.model_sha256 not in self._noise:
            self._noise[model.model_sha256] = _noise_of(model)
        return self._noise[model.model_sha256]

    def _figures(
        self, channel: str, recorded: Recorded, denoisers: ChannelDenoisers, model: Any
    ) -> dict[str, Any]:
        frame, counts, place = recorded.frame, self._counts, recorded.place
        return {
            "frame_index": frame.index,
            "frame_rate_hz": counts.frame_rate_hz,
            "latency_ms": (time.perf_counter_ns() - frame.received_ns) / 1e6,
            "frames_recorded": counts.recorded,
            "frames_denoised": counts.denoised,
            "frames_skipped_live": counts.skipped_live,
            "frames_missing": counts.missing,
            **self.trust.get(channel, {}),
            "provider": denoisers.provider,
            "channel": channel or None,
            "position": place.position,
            "z": place.z,
            "model": model.path.name if isinstance(model, Bundle) else type(model).__name__,
            "elapsed_s": time.monotonic() - self._began,
            "simulated": self._simulated,
            "newer_model": self._newer_model(),
        }


def _states_it(model: Any) -> bool:
    """Whether what stands beside the estimate is an uncertainty."""
    return not isinstance(model, Bundle) or model.manifest.states_uncertainty


def _noise_of(bundle: Bundle) -> NoiseVariance | None:
    if bundle.noise_model_path is None:
        return None
    try:
        return NoiseVariance(load_noise_model(bundle.noise_model_path))
    except CalibrationError as error:  # of a later version, say: no reason to stop a run
        logger.warning("%s; the picture is judged without the camera's noise", error)
        return None
