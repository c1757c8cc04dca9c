"""Step 1, connect: which microscope, and what was found there, in words.

Owns the choice and the sentences about the camera. The camera is asked by `quietscope camera`,
the computer examined by `quietscope doctor`.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from ...acquisition.preview.model import Reading
from ...inference.trust.verdict import Grade
from ...reporting.console import command_line
from ..job import Job, JobSnapshot
from ..remembered import MicroscopeChoice
from .facts import listens
from .step import Step, StepSnapshot, StepState

LOOK_S = 3.0


@dataclass(frozen=True, slots=True, eq=False)
class ConnectSnapshot(StepSnapshot):
    """What the page shows.

    Attributes
    ----------
    choice
        Which microscope would be connected.
    server_answers
        Whether a Micro-Manager listens on its port.
    found
        What the camera is and how it is set, one reading each; empty while nothing is connected.
    examined
        What `doctor` found of this computer.
    examining
        How far that is; None if it does not run.
    examine_command
        The command for that.
    """

    choice: MicroscopeChoice
    server_answers: bool
    found: tuple[Reading, ...]
    examined: tuple[Reading, ...]
    examining: JobSnapshot | None
    examine_command: str


class Examination(Step):
    """The examination of this computer, beside the first step."""

    name = "doctor"
    uses_folder = False

    def words(self) -> list[str]:
        """Return the command."""
        choice = self.facts.choice
        port = ["--attach", "--port", str(choice.port)] if choice.kind == "attach" else []
        folder = self.facts.workspace.path
        place = ["--folder", str(folder)] if folder.is_dir() and not port else []
        return ["doctor", *port, *place]

    def finished(self, job: Job, seen: JobSnapshot) -> bool:
        """Nothing follows."""
        return False


class Connect(Step):
    """Step 1."""

    name = "connect"
    uses_camera = True
    uses_folder = False

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.examination = Examination(self.facts)
        self._server_answers = False
        self._next_look = 0.0

    def choose(self, **changes: Any) -> None:
        """Take another microscope, or another setting of it; it has to be connected anew."""
        choice = self.facts.choice.model_copy(update=changes)
        if choice != self.facts.remembered.microscope:
            self.facts.remember(microscope=choice)
            self.facts.microscope = None
            self.error = ""

    def words(self) -> list[str]:
        """Return the command."""
        return ["camera", *self.facts.choice.words()]

    def missing(self) -> str:
        """Return what the choice lacks."""
        choice = self.facts.choice
        if choice.kind == "config" and not (choice.mm_dir and choice.config):
            return "choose the folder of Micro-Manager and its configuration file"
        return ""

    def line(self) -> str:
        """Return what is connected."""
        found = self.facts.microscope
        if found is None:
            return "no microscope yet"
        height, width = found["frame_shape"]
        return f"{'Demo camera' if self.facts.simulated else found['camera']}, {width}×{height}"

    def done(self) -> StepState | None:
        """Return whether a microscope is connected."""
        return None if self.facts.microscope is None else StepState.DONE

    def finished(self, job: Job, seen: JobSnapshot) -> bool:
        """Take what was found, and go on."""
        if "fingerprint" not in seen.result:
            self.error = "the microscope did not say what it is; start this step again"
            return False
        if self.facts.remembered.microscope is None:
            self.facts.remember(microscope=self.facts.choice)
        self.facts.connect(seen.result)
        return True

    def tick(self) -> bool:
        """Read the jobs, and look now and then whether a Micro-Manager listens."""
        self.examination.tick()
        if time.monotonic() > self._next_look and self.facts.microscope is None:
            self._server_answers = listens(self.facts.choice.port)
            kind: Literal["attach", "demo"] = "attach" if self._server_answers else "demo"
            self.facts.suggested = MicroscopeChoice(kind=kind)
            self._next_look = time.monotonic() + LOOK_S
        return super().tick()

    def snapshot(self) -> ConnectSnapshot:
        """Return what the page shows."""
        seen = self.examination.seen
        checks = () if seen is None else tuple(map(_examined, seen.result.get("checks", ())))
        return ConnectSnapshot(
            **self.common(),
            choice=self.facts.choice,
            server_answers=self._server_answers,
            found=tuple(camera_readings(self.facts.microscope)),
            examined=checks,
            examining=seen if seen is not None and seen.running else None,
            examine_command=command_line(*self.examination.words()),
        )


def _examined(check: Mapping[str, Any]) -> Reading:
    grade = Grade.GOOD if check["passed"] else Grade.BAD
    sentence = f"{check['value']}. {check['advice']}".strip(". ")
    return Reading(str(check["name"]).capitalize(), "", sentence, grade)


def camera_readings(found: Mapping[str, Any] | None) -> list[Reading]:
    """Return what the camera is and how it is set, and what to do about what is missing."""
    if found is None:
        return []
    height, width = found["frame_shape"]
    simulated = found["simulated"]
    model = found["model"] or ""
    named = found["camera"] if model in ("", found["camera"]) else f"{found['camera']} ({model})"
    if simulated:
        named = "Micro-Manager's demo camera"
        said = "A simulation: it computes a living specimen. Nothing here is measured."
    else:
        said = str(found["version"])
    edge = found["binning"]
    binning = "No binning." if edge == 1 else f"Binning {edge}×{edge}."
    return [
        Reading("Camera", named, said, Grade.GOOD),
        Reading("Region", f"{width} × {height} pixels", binning, Grade.GOOD),
        _depth(found),
        Reading("Exposure", f"{found['exposure_ms']:g} ms", "", Grade.GOOD),
        _pixel_size(found["pixel_size_um"]),
        _channels(found["channels"], str(found["channel_group"])),
    ]


def _depth(found: Mapping[str, Any]) -> Reading:
    depth = f"{found['bit_depth']} bit"
    if found["bit_depth"] <= 8 and not found["simulated"]:
        said = "Faint light is rounded away in 8 bit. Choose 12 or 16 bit if the camera has it."
        return Reading("Grey levels", depth, said, Grade.CARE)
    return Reading("Grey levels", depth, "", Grade.GOOD)


def _pixel_size(size_um: float | None) -> Reading:
    if size_um is None:
        said = (
            "Not known, so there is no scale bar. Tell Micro-Manager under Devices > Pixel Size "
            "Calibration; everything else works without."
        )
        return Reading("Pixel size", "–", said, Grade.CARE)
    return Reading("Pixel size", f"{size_um:g} µm", "", Grade.GOOD)


def _channels(channels: list[str], group: str) -> Reading:
    if not channels:
        said = (
            "None are set up: images are recorded as the light path stands. Define a group named "
            "Channel in Micro-Manager to choose them here."
        )
        return Reading("Channels", "–", said, Grade.GOOD)
    return Reading("Channels", f"{len(channels)}", ", ".join(channels), Grade.GOOD)
