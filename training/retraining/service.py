"""One night of one library, from the first check to the notice in the morning.

Owns what surrounds the night's training: nobody else serves the library, the disk holds what will
be written, the night was not done before, the record and the notice. The training itself is a
process of its own (`night_process`, watched over by `supervision`); no torch is loaded here.

For whoever shows it: `Window.next_start` says when the next night is, `night_record.last_night`
and `night_record.nights` what became of the earlier ones; all are plain data.
"""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil

from ...errors import QuietscopeError, one_line
from ...inference.library import Library
from ...storage.atomic_output import OutputError, require_space, write_json
from ...storage.bounded_text import read_text
from ...storage.directory_lock import DirectoryLock, holder_of, owned
from ...storage.live_sessions import state_folder, who_is_live
from ..errors import TrainingError
from . import neighbours
from .micro_manager import micro_manager_watched
from .night_record import (
    DecisionRecord,
    NightRecord,
    log_kept,
    night_of,
    nights_folder,
    write_record,
)
from .supervision import Ended, own_command, supervise
from .window import SHORTEST_SECONDS, Window

NIGHT_PROCESS = "quietscope.training.retraining.night_process"
NIGHT_BYTES = 2 * 2**30
"""What a night may write at most: candidates, checkpoints, the page. The disk is asked for it."""
UNFINISHED = 3
NOTICE_S = 60.0
"""What a notice may take."""
LOOK_EVERY_S = 1.0
PROCESS = "process.json"

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Night:
    """What a night is asked to do.

    Attributes
    ----------
    library
        The directory of runs and models.
    window
        Between which times of day.
    notify
        A command that is given the night's record as JSON on its standard input; None for none.
    """

    library: Path
    window: Window
    notify: str | None = None


@contextmanager
def serving(library: Path) -> Iterator[None]:
    """Be the only service of a library for the length of a block.

    Raises
    ------
    QuietscopeError
        If there is another one, with its process; or the library is none.
    """
    Library(library).runs()
    lock = DirectoryLock(nights_folder(library))
    try:
        lock.acquire()
    except OutputError as error:
        holder = holder_of(nights_folder(library))
        if holder is None:
            raise
        raise TrainingError(
            f"{library}: is served by another service already ({holder}); two would train the "
            "same models, so this one leaves"
        ) from error
    try:
        yield
    finally:
        lock.release()


def run_night(
    night: Night,
    *,
    now: datetime | None = None,
    say: Say = lambda line: None,
    command: list[str] | None = None,
    share: float = 1.0,
) -> NightRecord | None:
    """Train what is to be trained tonight; the caller holds `serving`.

    Parameters
    ----------
    night
        What.
    now
        The time, for tests; local. Without a time zone the clocks may change in the night.
    say
        Told what a person in front of it would like to know.
    command
        In place of the night's own process, for tests.
    share
        Of what is left of the window, where other libraries have their nights after this one.

    Returns
    -------
    The night's record; None if this is no time for it, or it was done before.
    """
    now = now or datetime.now()  # a zone of its own would be that of the evening all night
    left = night.window.left(now)
    if left < SHORTEST_SECONDS:
        start = night.window.next_start(now)
        say(f"{now:%H:%M} is outside of {night.window}; the next night begins at {start:%H:%M}")
        return None
    before = night_of(night.library, night.window.night(now))
    if before is not None and before.state == "done":
        say(f"the night of {before.night} was done at {before.ended:%H:%M}; the next is tomorrow")
        return None
    until = time.time() + left * share
    record = NightRecord(
        night=night.window.night(now),
        started=now.astimezone() if before is None else before.started,
        decisions=() if before is None else before.decisions,
    )
    neighbours.note(night.library, night.window, record.night, over=False)
    try:
        write_record(night.library, record)
        record = _worked(night, record, until, say, command, shares=share < 1)
    except OutputError as error:  # who is to be told is told, even if nothing can be written
        record = _failed(record, error)
    finally:
        neighbours.note(night.library, night.window, record.night, over=True)
    record = record.model_copy(update={"ended": datetime.now().astimezone()})
    record = _noticed(night, _with_page(night.library, record))
    write_record(night.library, record)
    return record


def _worked(
    night: Night,
    record: NightRecord,
    until: float,
    say: Say,
    command: list[str] | None,
    *,
    shares: bool,
) -> NightRecord:
    """Return the record with what the night's process did, or why it could not."""
    try:
        _end_what_was_left(night.library)
        require_space(night.library, NIGHT_BYTES, "free some before the next night")
        with log_kept(night.library) as log, micro_manager_watched(), _turn(until, say):
            _wait_for_the_microscope(until, say)
            if not shares:  # with those of the same service it does already
                until = _own_share(night.library, until, say)
            ended = supervise(
                command or _night_command(night.library, until),
                until=until,
                on_line=log.info,
                on_halt=lambda who: say(f"stands still for {who}" if who else "goes on"),
                on_start=lambda pid: _note_process(night.library, pid),
            )
        (nights_folder(night.library) / PROCESS).unlink(missing_ok=True)
    except _OverError as error:
        remarks = (*record.remarks, str(error))
        return record.model_copy(update={"state": "unfinished", "remarks": remarks})
    except (QuietscopeError, OSError) as error:
        return _failed(record, error)
    return _with_results(record, ended)


def _night_command(library: Path, until: float) -> list[str]:
    return own_command(NIGHT_PROCESS, str(library), "--until", f"{until:.0f}")


def _own_share(library: Path, until: float, say: Say) -> float:
    """Return until when a library may be trained whose turn it is: others wait for theirs."""
    left = until - time.time()
    if left < SHORTEST_SECONDS:
        raise _OverError(f"only {max(left, 0):.0f} s of the window were left when its turn came")
    others = neighbours.still_to_come(library, datetime.now())
    if not others:
        return until
    share = left / (1 + len(others))
    say(f"has {share / 60:.0f} minutes: other libraries come after it ({', '.join(others)})")
    return time.time() + max(share, SHORTEST_SECONDS)


def _failed(record: NightRecord, error: Exception) -> NightRecord:
    return record.model_copy(update={"state": "failed", "failure": one_line(error)})


class _OverError(Exception):
    """The night was over before anything could begin, in words: because of whom."""


@contextmanager
def _turn(until: float, say: Say) -> Iterator[None]:
    """Wait until no other library is trained on this computer: one after the other."""
    waiting, told = state_folder() / "training", False
    with ExitStack() as held:  # errors of the block itself are no reason to wait
        while True:
            try:
                held.enter_context(owned(waiting))
                break
            except OutputError:
                if holder_of(waiting) is None:
                    raise
                if time.time() >= until:
                    raise _OverError(
                        "other libraries were trained on this computer until the window ended"
                    ) from None
            if not told:
                say("another library is trained on this computer; waiting")
                told = True
            time.sleep(LOOK_EVERY_S)
        yield


def _wait_for_the_microscope(until: float, say: Say) -> None:
    told = False
    while (who := who_is_live()) is not None:
        if time.time() >= until:
            raise _OverError("a live session lasted until the window ended")
        if not told:
            say(f"a live session runs ({who}); training begins when it has ended")
            told = True
        time.sleep(LOOK_EVERY_S)


# ------------------------------------------------------------------------- what came of it


@dataclass(slots=True)
class _Results:
    decisions: list[DecisionRecord] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    remarks: list[str] = field(default_factory=list)


def _with_results(record: NightRecord, ended: Ended) -> NightRecord:
    results = _Results()
    for line in ended.lines:
        _take(line, results)
    state, failure = "done", None
    if results.failures:
        state, failure = "failed", "; ".join(results.failures)
    elif ended.overran or ended.status == UNFINISHED:
        state = "unfinished"
    elif ended.status != 0:
        last = ended.last_words[-1] if ended.last_words else "it said nothing"
        state, failure = "failed", f"the training process ended with {ended.status}: {last}"
    return record.model_copy(
        update={
            "state": state,
            "failure": failure,
            "decisions": (*record.decisions, *results.decisions),
            "remarks": (*record.remarks, *results.remarks),
            "waited_s": record.waited_s + ended.waited_s,
        }
    )


def _take(line: str, results: _Results) -> None:
    try:
        told: Mapping[str, Any] = json.loads(line)
        if "failure" in told:
            channel = f"{told['channel']}: " if told.get("channel") else ""
            results.failures.append(f"{channel}{told['failure']}")
        elif "unfinished" in told:
            results.remarks.append(str(told["unfinished"]))
        else:
            results.decisions.append(DecisionRecord.model_validate(told))
    except (ValueError, TypeError, KeyError):
        results.remarks.append(line)


def _with_page(library: Path, record: NightRecord) -> NightRecord:
    from .night_page import write_night_page

    try:
        write_record(library, record)  # the page is drawn from the records
        page = write_night_page(library, record)
    except (QuietscopeError, OSError) as error:  # no reason to lose the night
        remark = f"the page could not be written: {one_line(error)}"
        return record.model_copy(update={"remarks": (*record.remarks, remark)})
    return record.model_copy(update={"page": str(page)})


def _noticed(night: Night, record: NightRecord) -> NightRecord:
    """Return the record after the command that the user named was given it."""
    if night.notify is None:
        return record
    command = night.notify if os.name == "nt" else shlex.split(night.notify)
    try:
        done = subprocess.run(
            command,
            input=record.model_dump_json(),
            text=True,
            encoding="utf-8",
            errors="replace",
            capture_output=True,
            timeout=NOTICE_S,
            check=False,
        )
        problem = f"ended with {done.returncode}: {done.stderr.strip()}" if done.returncode else ""
    except (OSError, subprocess.TimeoutExpired) as error:
        problem = one_line(error)
    if not problem:
        return record
    remark = f"the notice could not be given ({night.notify}): {' '.join(problem.split())}"
    return record.model_copy(update={"remarks": (*record.remarks, remark)})


# --------------------------------------------------------- a process that a killed service left


def _note_process(library: Path, pid: int) -> None:
    with suppress(psutil.Error):
        began = psutil.Process(pid).create_time()
        write_json(nights_folder(library) / PROCESS, {"pid": pid, "began": began})


def _end_what_was_left(library: Path) -> None:
    """End the training of a service that was killed: halted, it would hold the models for ever.

    Who holds `serving` knows that its own service is gone.
    """
    file = nights_folder(library) / PROCESS
    try:
        noted = json.loads(read_text(file))
        left = psutil.Process(int(noted["pid"]))
        if left.create_time() == noted["began"]:
            for one in (*left.children(recursive=True), left):
                one.kill()
            left.wait(10)
    except (OSError, ValueError, KeyError, TypeError, psutil.Error):
        pass  # there is none
    file.unlink(missing_ok=True)
