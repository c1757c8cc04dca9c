"""After the run: denoise what was skipped live, so that the denoised store ends complete.

Owns the replay of the frame log. Each frame gets the input that it would have had live, and goes
through the same denoiser, so the result does not depend on what was skipped.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...inference.errors import BundleError, FrameMismatchError
from ...storage.axis_map import Place
from .accounting import Accounting
from .channel_denoisers import ChannelDenoisers
from .context import Contexts, side_input_loaders
from .denoise_stage import denoise
from .denoised_stores import DenoisedStores
from .part import Part
from .run_directory import RunDirectory, read_frame_log

Axes = dict[str, int | str]
OnProgress = Callable[[int, int], None]
ReadRaw = Callable[[Part, Place, Axes], NDArray[Any] | None]


def complete(
    run: RunDirectory,
    parts: Sequence[Part],
    denoisers: ChannelDenoisers,
    stores: DenoisedStores,
    counts: Accounting,
    read_raw: ReadRaw,
    on_progress: OnProgress | None = None,
) -> None:
    """Denoise every frame of the run that is not in the denoised store yet.

    Parameters
    ----------
    run, parts, denoisers, stores, counts
        Of the run; its stages have ended.
    read_raw
        Returns the pixels of a recorded frame, None if there is none.
    on_progress
        Called with (frames denoised afterwards, frames that were to do).

    Raises
    ------
    BundleError, FrameMismatchError
        After all others were denoised, if a model is gone by now, or does not take frames of some
        shape or region.
    """
    to_do = counts.still_to_denoise
    unusable: BundleError | FrameMismatchError | None = None
    contexts = Contexts(lambda part, place: read_raw(part, place, {}))
    estimate = np.empty((2, 0, 0), np.float32)
    with denoisers.as_they_were() as models_of:
        for number, place, line in read_frame_log(run.frame_log):
            if counts.still_to_denoise <= 0:
                break
            models_of(line["index"])
            part, axes = parts[number - 1], line["axes"]
            channel = denoisers.named(axes, line["metadata"])
            load = cache(partial(read_raw, part, place, axes))
            loaders = side_input_loaders(
                contexts.of(part), place, load, part=part, denoisers=denoisers, channel=channel
            )
            settings = part.settings_of(axes, line["metadata"])
            misfit = denoisers.misfit(channel, settings, part.frame_shape)
            if denoisers.model(channel) is None or misfit is not None:
                continue
            store = stores.of(part)
            if store.holds(place):
                continue
            pixels = load()
            if pixels is None:
                continue
            if estimate.shape[1:] != part.frame_shape:
                estimate = np.empty((2, *part.frame_shape), np.float32)
            try:
                denoiser = denoisers.denoiser(channel, part.frame_shape, part.roi)
            except (BundleError, FrameMismatchError) as error:  # other frames may be done
                denoisers.note_misfit(channel, settings, part.frame_shape, error)
                unusable = unusable or error
                continue
            denoisers.require_other_channels(
                channel, part.axis_map.channel_names, part=number, time_point=place.time
            )
            denoise(denoiser, pixels, loaders, estimate, line["index"])
            store.write(estimate[0], place)
            counts.denoised_afterwards += 1
            if on_progress is not None:
                on_progress(counts.denoised_afterwards, to_do)
    if unusable is not None:
        raise unusable
