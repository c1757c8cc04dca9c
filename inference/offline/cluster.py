"""The same `denoise_stack`, spread over the processes of a Dask cluster.

Owns how a recording is divided, and what happens when a worker dies: its part is done again by
another. A part is a call of `denoise_stack` that resumes one store; a frame is one chunk, which
appears in one step, so nothing is ever half there and nothing is done twice.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from ...errors import require_extra
from ...storage.directory_lock import owned
from ...storage.open_stack import open_stack
from ...storage.stack import Stack
from ...storage.writers.open_writer import is_tiff
from ...storage.writers.pyramid import add_pyramid
from ..errors import InferenceError
from .channel_models import ChannelModels, OfflineModels
from .denoise_stack import (
    AS_ESTIMATED,
    denoise_owned,
    require_stores,
)
from .frame_loop import OnProgress, in_reading_order

PART_FRAMES = 64
"""Frames per task: opening a model takes as long as denoising a few."""

RETRIES = 3

LOCAL = "local"


def denoise_on_cluster(
    stack: Stack,
    bundle: OfflineModels,
    out: Path | str,
    scheduler: str = LOCAL,
    *,
    part_frames: int = PART_FRAMES,
    workers: int | None = None,
    resume: bool = False,
    overwrite: bool = False,
    on_progress: OnProgress | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Denoise `stack` into the OME-Zarr `out` with all workers of a Dask cluster.

    Parameters
    ----------
    stack
        Opened from a path that every worker sees as well, as are `bundle` and `out`.
    bundle, out, resume, overwrite, options
        See `denoise_stack`.
    scheduler
        Address of a scheduler (`tcp://…`), or `local` for processes on this machine.
    part_frames
        Frames per task.
    workers
        Processes of a local cluster; by default as many as there are cores.
    on_progress
        Called with (frames done, frames in total).

    Returns
    -------
    dict
        As `denoise_stack` returns it, with `parts`.

    Raises
    ------
    InferenceError
        If Dask is not installed, the stack has no path, or a part failed on every try.
    """
    if not stack.path.exists():
        raise InferenceError(
            f"{stack.path}: workers open a stack by its path, and there is none; save it first"
        )
    outputs = [out, options["uncertainty"]] if options.get("uncertainty") else [out]
    if tiffs := [str(path) for path in outputs if is_tiff(path)]:
        raise InferenceError(
            f"{', '.join(tiffs)}: --scheduler writes from many processes, a TIFF is written by "
            "one; leave --scheduler out, or write an .ome.zarr"
        )
    form = options.get("form", AS_ESTIMATED)
    with connected(scheduler, workers) as client, owned(*outputs):
        models = ChannelModels.open(stack, bundle)
        require_stores(stack, models, out, options.get("uncertainty"), form, resume=resume)
        # One frame at the far end of each axis first: then the store has its full size, and
        # workers write chunks only.
        found = _indices(stack, models)
        corners = _corners(stack, found)
        options = {
            **options,
            "threads": options.get("threads") or 1,
            "form": replace(form, pyramid=False),  # of the whole, when every part is there
        }
        first = denoise_owned(
            stack, models, out, frames=corners, resume=resume, overwrite=overwrite, **options
        )
        parts = list(_parts(found, part_frames))
        results = _run(client, stack.path, bundle, Path(out), parts, options, on_progress)
        if form.pyramid:
            for path in outputs:
                add_pyramid(path)
    wanted = sum(models.denoises(stack.axes(index)) for index in range(len(stack)))
    done = first["frames_denoised"] + sum(result["frames_denoised"] for result in results)
    seconds = sum(result["seconds"] for result in results)
    return {
        **first,
        "frames_denoised": done,
        "frames_kept": len(found) - done,
        "frames_absent": wanted - len(found),
        "seconds": seconds,
        "ms_per_frame": 1e3 * seconds / done if done else None,
        "parts": len(parts),
    }


def _run(
    client: Any,
    path: Path,
    bundle: OfflineModels,
    out: Path,
    parts: Sequence[Sequence[int]],
    options: Mapping[str, Any],
    on_progress: OnProgress | None,
) -> list[dict[str, Any]]:
    distributed: Any = importlib.import_module("distributed")
    tasks = [
        client.submit(
            denoise_part, path, bundle, out, part, dict(options), retries=RETRIES, pure=False
        )
        for part in parts
    ]
    sizes = {task.key: len(part) for task, part in zip(tasks, parts, strict=True)}
    done, total, results = 0, sum(sizes.values()), []
    for task in distributed.as_completed(tasks):
        try:
            results.append(task.result())
        except Exception as error:  # whatever happened on the other machine
            client.cancel(tasks)
            raise InferenceError(
                f"{path}: a part of {sizes[task.key]} frames failed on {RETRIES + 1} tries "
                f"({type(error).__name__}: {error}); mend the cause and go on with --resume"
            ) from error
        done += sizes[task.key]
        if on_progress is not None:
            on_progress(done, total)
    return results


def denoise_part(
    path: Path, bundle: OfflineModels, out: Path, frames: Sequence[int], options: Mapping[str, Any]
) -> dict[str, Any]:
    """Denoise some frames of the stack at `path`, into a store owned for it: a worker's task."""
    stack = open_stack(path)
    models = ChannelModels.open(stack, bundle)
    return denoise_owned(stack, models, out, frames=frames, resume=True, **dict(options))


def _indices(stack: Stack, models: ChannelModels) -> list[int]:
    """Return the frames that were recorded and have a model, in reading order."""
    return [
        index
        for index in in_reading_order(stack, None)
        if models.denoises(stack.axes(index)) and stack.is_present(index)
    ]


def _corners(stack: Stack, indices: Sequence[int]) -> list[int]:
    """Return, for each position, frames that reach as far along every axis as any does."""
    corners: dict[tuple[int, str], int] = {}
    farthest: dict[tuple[int, str], int] = {}
    for index in indices:
        axes = stack.axes(index)
        position = axes.get("position", 0)
        for name, place in axes.items():
            key = (position, name)
            if key not in farthest or place > farthest[key]:
                farthest[key], corners[key] = place, index
    return sorted(set(corners.values()))


def _parts(indices: Sequence[int], size: int) -> Iterator[list[int]]:
    for start in range(0, len(indices), size):
        yield list(indices[start : start + size])


@contextmanager
def connected(scheduler: str, workers: int | None = None) -> Iterator[Any]:
    """Be connected to a Dask cluster for the length of a block; yields its client.

    Parameters
    ----------
    scheduler
        Address of a scheduler (`tcp://…`), or `local` for processes on this machine.
    workers
        Processes of a local cluster; by default as many as there are cores.

    Raises
    ------
    QuietscopeError
        If Dask is not installed, or the scheduler cannot be reached.
    """
    require_extra("cluster", "--scheduler")
    distributed: Any = importlib.import_module("distributed")
    if scheduler == LOCAL:
        from ..runtime.providers import all_cores

        count = workers or all_cores()
        with (
            distributed.LocalCluster(
                n_workers=count, threads_per_worker=1, processes=True, dashboard_address=":0"
            ) as cluster,
            distributed.Client(cluster) as client,
        ):
            yield client
        return
    try:
        client = distributed.Client(scheduler, timeout=20)
    except (OSError, ValueError) as error:
        raise InferenceError(
            f"scheduler {scheduler}: cannot be reached ({type(error).__name__}: {error}); "
            "give the address that `dask scheduler` printed (tcp://host:8786), or `local`"
        ) from error
    with client:
        yield client
