"""A candidate that was begun and not yet judged: what the next night needs to go on with it.

Owns the note that lies beside the candidate's checkpoint from before the first step until after
the decision. A night that is killed, or ends before the training does, leaves it; what it names is
then trained to the end, or judged where only that is missing.
"""

from __future__ import annotations

import logging
import re
import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ...errors import one_line
from ...inference.bundle import MANIFEST
from ...inference.library import Library
from ...storage.atomic_output import write_json
from ...storage.bounded_text import read_text
from ...storage.directory_lock import is_owned
from ..errors import TrainingError
from ..options import TrainingOptions

logger = logging.getLogger(__name__)

SUFFIX = ".begun.json"
_STAGED = re.compile(r"\.(?P<name>.+?)(?:\.unfinished\.pt|\.begun\.json)?\.[0-9a-f]{8}\.partial")


class Begun(BaseModel):
    """What was begun."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    schema_version: Literal[1] = 1
    channel: str | None
    runs: tuple[str, ...] = Field(min_length=1)
    """Whole runs, as absolute paths or relative to the library."""
    options: dict[str, Any]

    def training_options(self, candidate: Path) -> TrainingOptions:
        """Return the choices, resuming where there is a checkpoint.

        Raises
        ------
        TrainingError
            If they are none of this version's.
        """
        from ..checkpoint import working_file  # torch

        others = tuple(self.options.get("other_channels", ()))
        named = {**self.options, "other_channels": others}
        try:
            return TrainingOptions(**{**named, "resume": working_file(candidate).is_file()})
        except TypeError as error:
            raise TrainingError(
                f"{candidate}: was begun by another version of quietscope ({one_line(error)})"
            ) from error


def note(
    shelf: Library,
    candidate: Path,
    runs: Sequence[Path | str],
    channel: str | None,
    options: TrainingOptions,
) -> None:
    """Write down what is begun."""
    begun = Begun(
        channel=channel,
        runs=tuple(shelf.name_of(Path(run)) for run in runs),
        options={**asdict(options), "resume": False},
    )
    write_json(_note_of(candidate), begun.model_dump(mode="json"))


def unjudged(shelf: Library) -> list[tuple[Path, Begun]]:
    """Return the candidates that were begun and not judged, oldest first.

    A note that is damaged is taken away: it is worth no night that stands still. One that another
    program holds, or whose disk does not answer, is left for the next night.
    """
    found = []
    for file in sorted(shelf.models_dir.glob(f"*{SUFFIX}")):
        candidate = file.with_name(file.name.removesuffix(SUFFIX))
        try:
            found.append((candidate, Begun.model_validate_json(read_text(file))))
        except OSError as error:
            logger.warning("%s: cannot be read now (%s); left as it is", file, one_line(error))
        except (ValueError, ValidationError):
            forget(candidate)
    return found


def sweep(shelf: Library) -> None:
    """Delete what killed trainings left half written among the models: a year of it fills a disk.

    What somebody writes at this moment stays.
    """
    for half in shelf.models_dir.glob(".*.partial"):
        named = _STAGED.fullmatch(half.name)
        if named is None or is_owned(shelf.models_dir / named["name"]):
            continue
        if half.is_dir():
            shutil.rmtree(half, ignore_errors=True)
        else:
            half.unlink(missing_ok=True)


def is_gone(shelf: Library, run: str) -> bool:
    """Whether a run that was written down was surely deleted, and is not only out of reach now.

    The folder that held it answers, and holds other things: a drive that was not mounted leaves an
    empty folder, a link to one leads nowhere. Of what lies outside the library nothing is sure.
    """
    place = shelf.path / run
    inside = [part for part in (place, *place.parents) if shelf.path in part.parents]
    try:
        for part in reversed(inside):
            there = [entry.name for entry in part.parent.iterdir()]
            if part.name not in there:
                return bool(there)
    except OSError:
        pass
    return False


def is_trained(candidate: Path) -> bool:
    """Whether only the decision is missing."""
    return (candidate / MANIFEST).is_file()


def forget(candidate: Path) -> None:
    """Take the note away, and the checkpoint: it was judged, or cannot be gone on with."""
    from ..checkpoint import working_file  # torch

    _note_of(candidate).unlink(missing_ok=True)
    working_file(candidate).unlink(missing_ok=True)


def _note_of(candidate: Path) -> Path:
    return candidate.with_name(f"{candidate.name}{SUFFIX}")
