"""Rounds of several libraries, each on a worker of a Dask cluster: several machines, or GPUs.

Owns who trains what, one library at a time on each worker, and what becomes of one that fails. A
round is the `retrain` command in a process of its own on the worker: it gives way to the live
sessions of that machine, frees its GPU at the end, and holds the library's lock, so that nobody
trains it twice.
"""

from __future__ import annotations

import importlib
import json
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from ...inference.offline.cluster import connected
from ...inference.runtime.providers import all_cores
from ..errors import TrainingError
from .supervision import own_command

TRIES = 2
"""Of a library whose worker is gone; what was begun is gone on with."""

_one_at_a_time = threading.Lock()
"""In a worker that was given more threads than one."""

Say = Callable[[str], None]


def rounds_on_cluster(
    libraries: Sequence[Path], arguments: Sequence[str], scheduler: str, say: Say
) -> dict[Path, dict[str, Any]]:
    """Make a round of each library on the workers of a cluster.

    Parameters
    ----------
    libraries
        Folders that every worker sees at the same place.
    arguments
        Further ones of the command `retrain --once`, for each library.
    scheduler
        Address of a scheduler (`tcp://…`), or `local` for processes on this machine.
    say
        Told as each library is done.

    Returns
    -------
    dict
        For each library what the command prints as JSON, or a `failure` in a line.

    Raises
    ------
    QuietscopeError
        If Dask is missing, or its scheduler or workers are.
    """
    distributed: Any = importlib.import_module("distributed")
    places = {library: library.absolute() for library in libraries}
    found: dict[Path, dict[str, Any]] = {}
    with connected(scheduler, min(len(libraries), all_cores())) as client:
        workers = list(client.nthreads())
        if not workers:
            raise TrainingError(
                f"scheduler {scheduler}: has no workers; start some on the machines that are to "
                f"train, with `dask worker {scheduler}`"
            )
        left = iter(places.items())

        def submitted(worker: str) -> Iterator[tuple[Any, tuple[Path, str]]]:
            for library, place in left:
                task = client.submit(
                    round_on_worker,
                    str(place),
                    list(arguments),
                    workers=[worker],
                    allow_other_workers=True,  # where this one is gone
                    retries=TRIES - 1,
                    pure=False,
                )
                yield task, (library, worker)
                return

        tasks = {task: of for worker in workers for task, of in submitted(worker)}
        done = distributed.as_completed(list(tasks))
        for task in done:
            library, worker = tasks[task]
            found[library] = _result(task, worker)
            say(f"{library}: {found[library].get('failure') or found[library]['decision']}")
            for following, of in submitted(worker):
                tasks[following] = of
                done.add(following)
    return {library: found[library] for library in libraries}


def _result(task: Any, worker: str) -> dict[str, Any]:
    try:
        found: dict[str, Any] = task.result()
    except Exception as error:  # whatever happened on the other machine
        words = " ".join(str(error).split())
        return {"failure": f"worker {worker}: {type(error).__name__}: {words}", "decisions": []}
    return found


def round_on_worker(library: str, arguments: Sequence[str]) -> dict[str, Any]:
    """Make a round of one library in a process of its own: a worker's task."""
    command = own_command("quietscope.cli", "retrain", "--once", "--json", "--library", library)
    with _one_at_a_time:
        done = subprocess.run(
            [*command, *arguments],
            capture_output=True,
            text=True,
            encoding="utf-8",
            errors="replace",
            stdin=subprocess.DEVNULL,
            check=False,
        )
    try:
        found: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        said = done.stderr.strip().splitlines()
        last = said[-1].removeprefix("error: ") if said else f"ended with {done.returncode}"
        return {"failure": last, "decisions": []}
    return found
