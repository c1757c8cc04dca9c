"""Draw several pictures of every frame that the model thinks possible.

Owns which draws those are, and what is refused. They are written along an axis of their own, or
one estimate of them is (`sample_estimate`). What a sample is, is in the model's own second graph
(`SAMPLER` of a bundle); models without one know the mean alone.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...storage.directory_lock import owned
from ...storage.stack import Stack
from ...storage.writers.open_writer import OutputForm, as_pixel_type, written_axes
from ..bundle import Bundle
from ..errors import InferenceError
from ..graph.inspection import DRAW, INPUT, read_pixel_maps
from ..observation_reader import ObservationReader
from ..provenance import Provenance
from ..runtime.providers import Provider, RunningSession, all_cores, open_session
from ..side_inputs import other_channel_numbers
from .channel_models import ChannelModels, OfflineModels
from .denoise_stack import AS_ESTIMATED, require_stores
from .frame_loop import OnProgress, in_reading_order, open_store
from .sample_estimate import Estimate, estimate_of, require_estimate, require_memory

SAMPLE = "sample"
"""The axis, which comes last."""
MOST_SAMPLES = 1000
DRAW_SAMPLES = ("divnoising", "hdn")
"""The methods whose models can, where pixels are alike: see `training.output.write_bundle`."""


def draw_samples(
    stack: Stack,
    bundle: OfflineModels,
    out: Path | str,
    samples: int,
    *,
    estimate: Estimate | None = None,
    seed: int = 0,
    provider: Provider = "auto",
    threads: int | None = None,
    overwrite: bool = False,
    force: bool = False,
    form: OutputForm = AS_ESTIMATED,
    on_progress: OnProgress | None = None,
) -> dict[str, Any]:
    """Draw `samples` pictures of each frame of `stack`; write them, or one estimate, in ADU.

    Parameters
    ----------
    stack, bundle, out, provider, threads, overwrite, force, form, on_progress
        As of `denoise_stack`.
    samples
        How many. Each is one picture that could have been, not an estimate.
    estimate
        `mmse` writes the samples' mean, `map` the most probable picture; None writes the samples
        along an axis of their own, the last.
    seed
        Of the draws: the same seed draws the same, whatever machine.

    Returns
    -------
    dict
        As `denoise_stack`, with `samples` and `estimate`.

    Raises
    ------
    InferenceError
        If the model draws no samples, or so many are none or too many for an estimate.
    OutputError
        If `out` cannot be written.
    """
    if not 1 <= samples <= MOST_SAMPLES:
        raise InferenceError(f"samples is {samples}, expected 1 to {MOST_SAMPLES}")
    if estimate is not None:
        require_estimate(estimate)
        require_memory(samples, stack.frame_shape)
    began = time.perf_counter()
    models = ChannelModels.open(stack, bundle)
    require_stores(stack, models, out, None, form)
    remarks = models.require_match(stack, force=force)
    sessions = {
        path: _session(model, provider, threads) for path, model in models.distinct().items()
    }
    first = next(iter(sessions.values()))
    record = Provenance.of(
        stack.path.name,
        models.identities(),
        provider=first.provider,
        precision="fp32",
        forced=tuple(remarks),
        samples=samples,
        estimate=estimate,
    )
    reader = ObservationReader(stack, models.pixel_type)
    planned = [i for i in in_reading_order(stack, None) if models.denoises(stack.axes(i))]
    wanted = [index for index in planned if stack.is_present(index)]
    written = stack if estimate else _with_samples(stack, samples)
    with owned(out), open_store(written, out, record, form, False, overwrite) as store:
        for done, index in enumerate(wanted, start=1):
            axes = stack.axes(index)
            model = models.of(axes)
            observations = _observations(reader, stack, model, index)
            session = sessions[model.path]
            draws = [(seed, index, number) for number in range(samples)]
            drawn = map(partial(_drawn, session, observations), draws)
            for place, pixels in _pictures(drawn, axes, estimate):
                store.write(
                    as_pixel_type(pixels, form.pixel_type),
                    written_axes(written, written.index(place), form),
                )
            if on_progress is not None:
                on_progress(done, len(wanted))
        store.flush()
    seconds = time.perf_counter() - began
    return {
        "frames_denoised": len(wanted),
        "frames_kept": 0,
        "frames_absent": len(planned) - len(wanted),
        "samples": samples,
        "estimate": estimate,
        "seconds": seconds,
        "ms_per_frame": 1e3 * seconds / len(wanted) if wanted else None,
        "provider": first.provider,
        "device": first.device,
        "models": record.model_dump()["models"],
        "forced": remarks,
        "output": str(out),
    }


def _session(model: Bundle, provider: Provider, threads: int | None) -> RunningSession:
    if model.sampler_path is None:
        algorithm = model.manifest.algorithm
        if algorithm in DRAW_SAMPLES and read_pixel_maps(model.model_path) is not None:
            raise InferenceError(
                f"{model.path}: takes each pixel of the camera as its own, and of such a model no "
                "samples are drawn; train one without (--no-pixel-maps), or leave out --samples"
            )
        raise InferenceError(
            f"{model.path}: a model of {algorithm} knows one estimate and draws no samples; train "
            f"one that does (--algorithm {' or '.join(DRAW_SAMPLES)}), or leave out --samples"
        )
    return open_session(model.sampler_path, provider=provider, threads=threads or all_cores())


def _pictures(
    drawn: Iterable[NDArray[np.float32]],
    axes: Mapping[str, int],
    estimate: Estimate | None,
) -> Iterator[tuple[dict[str, int], NDArray[np.float32]]]:
    """Return what is written of the samples of a frame, and where."""
    if estimate is not None:
        yield dict(axes), estimate_of(np.stack(list(drawn)), estimate)
        return
    for number, pixels in enumerate(drawn):
        yield {**axes, SAMPLE: number}, pixels


def _with_samples(stack: Stack, samples: int) -> Stack:
    """Return a stack with a further axis, along which the frames are the same."""
    present = stack.present
    if present is not None:
        present = np.repeat(present[..., np.newaxis], samples, axis=-1)
    sizes = {**stack.sizes, SAMPLE: samples}
    return replace(stack, sizes=sizes, present=present, read=lambda at: stack.read(at[:-1]))


def _observations(
    reader: ObservationReader, stack: Stack, model: Bundle, index: int
) -> NDArray[Any]:
    manifest = model.manifest
    others = other_channel_numbers(stack, manifest.other_channels, what="its model")
    return reader.read(index, manifest.context_frames, others, manifest.planes)


def _drawn(
    running: RunningSession, observations: NDArray[Any], which: tuple[int, int, int]
) -> NDArray[np.float32]:
    """Return one sample (Y, X): `which` says by seed, frame and number."""
    draw = np.random.default_rng(which).integers(0, 2**31, 3)
    (found,) = running.session.run(None, {INPUT: observations[np.newaxis], DRAW: draw})
    drawn: NDArray[np.float32] = found[0, 0]
    return drawn
