"""Denoise a whole stack with a filter that needs no training.

Owns which of the stack's channels have which noise, and what is written about the filter. The
filters are in `inference.classical`, the loop over the frames is `frame_loop`'s.
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from ...calibration.noise_model import NoiseModel
from ...storage.atomic_output import require_apart
from ...storage.directory_lock import owned
from ...storage.stack import Stack
from ...storage.writers.open_writer import OutputForm, require_form
from ..classical.denoiser import ClassicalDenoiser
from ..classical.settled_strength import settle_strength
from ..observation_reader import ObservationReader
from ..provenance import Provenance
from ..runtime.pipeline import BlockingLane, FramePipeline
from ..runtime.providers import cpu_name
from .frame_loop import OnProgress, denoise_frames, in_reading_order, open_store


def denoise_by_method(
    stack: Stack,
    method: str,
    out: Path | str,
    *,
    frames: int = 1,
    strength: float | None = None,
    noise_model: NoiseModel | None = None,
    noise_model_sha256: str | None = None,
    resume: bool = False,
    overwrite: bool = False,
    form: OutputForm | None = None,
    on_progress: OnProgress | None = None,
) -> dict[str, Any]:
    """Denoise `stack` into `out`, every channel for itself.

    Parameters
    ----------
    stack
        What to denoise. Absent frames are left out.
    method, frames, strength, noise_model
        See `ClassicalDenoiser`. A strength that is not given is chosen once for each channel and
        kept, so that a recording does not flicker; see `settle_strength`.
    out, resume, overwrite, form, on_progress
        See `denoise_stack`.
    noise_model_sha256
        Of the noise model's file, for the result's record.

    Returns
    -------
    dict
        As `denoise_stack`, with `method`: `name`, `frames` and the `strength` of each channel.

    Raises
    ------
    InferenceError
        If there is no such method, or it was begun with another one.
    OutputError
        If `out` cannot be written.
    """
    began = time.perf_counter()
    form = form or OutputForm()
    require_form(out, form, resume=resume)
    require_apart(out, [stack.path])
    with ExitStack() as open_things, owned(out):
        source = MethodFrames(stack, method, frames, strength, noise_model)
        open_things.callback(source.close)
        strengths = source.strengths()
        said: dict[str, str | int | float | None] = {"name": method, "frames": frames}
        said |= {f"strength of {name}": found for name, found in strengths.items()}
        record = Provenance.of(
            stack.path.name, {}, method=said, provider="CPU", precision="fp32"
        ).model_copy(update={"noise_model_sha256": noise_model_sha256})
        store = open_things.enter_context(open_store(stack, out, record, form, resume, overwrite))
        wanted = list(in_reading_order(stack, None))
        counts = denoise_frames(stack, wanted, source, [store], form, on_progress)
    return {
        "frames_denoised": counts.denoised,
        "frames_kept": counts.kept,
        "frames_absent": counts.absent,
        "pixels_cut_off": counts.pixels_cut_off,
        "seconds": time.perf_counter() - began,
        "ms_per_frame": 1e3 * counts.seconds / counts.denoised if counts.denoised else None,
        "provider": "CPU",
        "device": cpu_name(1),
        "models": {},
        "method": {"name": method, "frames": frames, "strengths": strengths},
        "forced": [],
        "output": str(out),
    }


class MethodFrames:
    """The frames of a stack as a filter takes them: one filter per channel, with its strength."""

    def __init__(
        self,
        stack: Stack,
        method: str,
        frames: int,
        strength: float | None,
        noise_model: NoiseModel | None,
    ) -> None:
        self._stack, self._frames = stack, frames
        self._reader = ObservationReader(stack, stack.dtype)
        self._denoisers = {
            name: ClassicalDenoiser(
                method,
                stack.frame_shape,
                frames=frames,
                strength=strength,
                noise_model=noise_model,
            )
            for name in stack.channel_labels
        }
        self._pipelines = [
            FramePipeline([BlockingLane(denoiser)]) for denoiser in self._denoisers.values()
        ]

    @property
    def pipelines(self) -> list[FramePipeline]:
        """All of them."""
        return self._pipelines

    def pipeline(self, index: int) -> FramePipeline:
        """Return the one of a frame's channel."""
        return self._pipelines[self._stack.axes(index).get("channel", 0)]

    def observations(self, index: int) -> NDArray[Any]:
        """Read a frame with those before it."""
        return self._reader.read(index, self._frames - 1)

    def strengths(self) -> dict[str, float | None]:
        """Return the strength for each channel; one that was not given is settled now.

        Always on the same frame, so that a run that is gone on with chooses the same.
        """
        indices = list(in_reading_order(self._stack, None))
        for number, denoiser in enumerate(self._denoisers.values()):
            own = (i for i in indices if self._stack.axes(i).get("channel", 0) == number)
            settle_strength(denoiser, self._stack, own)
        return {name: denoiser.strength for name, denoiser in self._denoisers.items()}

    def close(self) -> None:
        """Release the filters."""
        for pipeline in self._pipelines:
            pipeline.close()
        for denoiser in self._denoisers.values():
            denoiser.close()
