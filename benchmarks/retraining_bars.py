"""What a facility asks of models that are retrained at night, in parts that take minutes each.

    python benchmarks/retraining_bars.py change              another specimen and light, by truth
    python benchmarks/retraining_bars.py nothing             nothing new: skipped, and how soon
    python benchmarks/retraining_bars.py sabotage            what must never be promoted
    python benchmarks/retraining_bars.py kills --times 10    kill -9 at random instants of a night
    python benchmarks/retraining_bars.py give-way            a live session starts: free cores

Specimen and camera are simulated (`acquisition.microscope.specimen`); training, gate, service and
processes are the real ones at small size. Each part adds its row to --out. With --place its
library is kept and gone on with: `nothing`, `sabotage` and `kills` then add to what they have
counted before, so that they can be run in pieces of a minute.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from quietscope.acquisition.microscope.specimen import CameraLaw, Specimen
from quietscope.benchmarks.box_model import box_graph, write_box_model
from quietscope.errors import QuietscopeError
from quietscope.inference.bundle import MANIFEST, TrainingStack, open_bundle, read_manifest
from quietscope.inference.library import Library
from quietscope.inference.runtime.onnx_denoiser import OnnxDenoiser
from quietscope.inference.runtime.providers import all_cores, cpu_name
from quietscope.storage.atomic_output import write_json
from quietscope.storage.live_sessions import live_session
from quietscope.storage.ome_zarr_writer import OmeZarrWriter
from quietscope.storage.stack import stack_from_array
from quietscope.training.options import TrainingOptions
from quietscope.training.retraining import begun, run_audit
from quietscope.training.retraining.comparison import compare
from quietscope.training.retraining.decision import weightiest
from quietscope.training.retraining.gate import judge
from quietscope.training.retraining.night_record import last_night
from quietscope.training.retraining.request import Request
from quietscope.training.retraining.retrain import another_round, retrain_slots
from quietscope.training.retraining.service import Night, run_night, serving
from quietscope.training.retraining.supervision import own_command
from quietscope.training.retraining.window import Window

SHAPE = (128, 128)
LAW = CameraLaw(0.5, 100.0, 2.0)
FRAMES = 40
QUICK = TrainingOptions(preset="fast", steps=400, batch=8, patch=64)
COUNTED = (
    "kills",
    "kills_with_a_candidate_begun",
    "nights_that_ended_before_the_kill",
    "nights_that_went_on_with_another",
)
SHORTEST_NIGHT_S = 75.0
"""In less a night begins nothing."""
LONG_NIGHT_S = 90.0
"""After the kills: enough on a busy computer."""
NIGHT = "quietscope.training.retraining.night_process"


class Stained(Specimen):
    """A specimen of which a stain shows cells, or filaments, and little of the others."""

    def structure(self, index: int, *, stain: tuple[float, float] = (1.0, 1.0)) -> Any:
        cells_only = self.seed < SECOND_SEED
        return super().structure(index, stain=(1.0, 0.05) if cells_only else (0.05, 1.0))


SECOND_SEED = 100
FIRST = Stained(SHAPE, LAW, peak_photoelectrons=15.0, seed=1)
NEW = Stained(SHAPE, LAW, peak_photoelectrons=120.0, seed=SECOND_SEED)
"""Filaments instead of cells, under eight times the light."""


def record(library: Path, name: str, frames: NDArray[Any], **camera: Any) -> None:
    """Write a run, as a session does."""
    about = {"quietscope": {"camera": {"camera": "A", **camera}}}
    with OmeZarrWriter(
        library / name / "raw.ome.zarr",
        frame_shape=frames.shape[1:],
        dtype="uint16",
        attributes=about,
    ) as writer:
        for index, frame in enumerate(frames):
            writer.write(frame, {"time": index})


def seen(specimen: Specimen, first: int = 0, count: int = FRAMES) -> NDArray[np.uint16]:
    return np.stack([specimen.observe(index) for index in range(first, first + count)])


def round_of(library: Path, options: TrainingOptions) -> Any:
    return weightiest(retrain_slots(Library(library), Request(options=options)))


def psnr_db(bundle: Path | None, specimen: Specimen, *, sigma: float | None = None) -> float:
    """PSNR by truth on frames that nobody has recorded; of a blur where `sigma` is given."""
    indices, out = range(1000, 1012), np.empty((2, *SHAPE), np.float32)
    with OnnxDenoiser(bundle, SHAPE, provider="cpu") if bundle else _nobody() as denoiser:
        found = []
        for index in indices:
            raw, truth = specimen.observe(index), specimen.truth(index).astype(np.float64)
            if denoiser is not None:
                denoiser.denoise(raw[np.newaxis], out)
                estimate = out[0].astype(np.float64)
            else:
                estimate = gaussian_filter(raw.astype(np.float64), sigma or 0.0)
            error = np.mean((estimate - truth) ** 2)
            found.append(10 * np.log10(np.ptp(truth) ** 2 / error))
    return float(np.mean(found))


@contextmanager
def _nobody() -> Iterator[None]:
    yield None


def best_blur_db(specimen: Specimen) -> float:
    return max(psnr_db(None, specimen, sigma=sigma) for sigma in (0.6, 0.8, 1.0, 1.3, 1.7, 2.2))


# ------------------------------------------------------------------------------- the parts


def change(place: Path, given: argparse.Namespace) -> dict[str, Any]:
    """Change the specimen: structure and light."""
    library = place / "library"
    for day in range(3):
        record(library, f"first {day}", seen(FIRST, 40 * day))
    first = round_of(library, replace(QUICK, steps=given.steps))
    for day in range(3):
        record(library, f"second {day}", seen(NEW, 40 * day))
    second = round_of(library, replace(QUICK, steps=3 * given.steps))
    assert first.candidate is not None
    rounds = _while_it_gains(library, second, 6 * given.steps, given.rounds - 1)
    current = Library(library).current()
    specimens = {"new": NEW, "old": FIRST}
    decision = weightiest(rounds).decision
    found = {
        name: {
            "before_db": psnr_db(first.candidate, specimen),
            "after_db": psnr_db(current, specimen),
            "best_blur_db": best_blur_db(specimen),
            "raw_db": psnr_db(None, specimen, sigma=0.0),
        }
        for name, specimen in specimens.items()
    }
    gains = {name: row["after_db"] - row["before_db"] for name, row in found.items()}
    return {
        "steps": given.steps,
        "rounds": [
            {
                "steps": 3 * given.steps * 2**number,
                "decision": one.decision,
                "reason": one.reason,
                "figures": one.figures,
                "by_truth_db": {
                    name: psnr_db(one.candidate, specimen) for name, specimen in specimens.items()
                },
            }
            for number, one in enumerate(rounds)
        ],
        "decision": decision,
        "by_truth": found,
        "gain_new_db": gains["new"],
        "gain_old_db": gains["old"],
        "bar": "promoted, at least +1 dB on the new, at most -0.1 dB on the old",
        "met": decision == "promoted" and gains["new"] >= 1 and gains["old"] >= -0.1,
    }


def _while_it_gains(library: Path, first: Any, steps: int, most: int) -> list[Any]:
    """Make further rounds as a night does: twice as long each, while they gain on the new."""
    rounds = [first]
    while (rounds[-1].decision == "promoted" or rounds[-1].promising) and len(rounds) <= most:
        options = replace(QUICK, steps=steps * 2 ** (len(rounds) - 1))
        rounds.append(another_round(Library(library), rounds[-1], Request(options=options)))
    return rounds


def nothing(place: Path, given: argparse.Namespace) -> dict[str, Any]:
    """Offer nothing new: how soon is that said, and do more rounds on the same data do harm."""
    library = place / "library"
    shelf = Library(library)
    known = {"decisions": [], "after_each_night_db": []}
    if not library.exists():
        record(library, "first 0", seen(FIRST))
        first = round_of(library, replace(QUICK, steps=given.steps))
        assert first.candidate is not None
        known |= {"first_db": psnr_db(first.candidate, FIRST)} | _said_at_once(library)
    elif given.before:
        known = given.before
    else:
        raise SystemExit(f"{given.out} holds no row of {place}; give the --out it was begun with")
    decisions, curve = known["decisions"], known["after_each_night_db"]
    for _ in range(given.times):
        night = len(decisions)
        record(library, f"again {night}", seen(FIRST, 0))  # the same scene, the same noise
        options = replace(QUICK, steps=given.steps // 3, seed=night + 1)
        request = Request(options=options, since_last=True)
        decisions.append(weightiest(retrain_slots(shelf, request)).decision)
        curve.append(psnr_db(shelf.current(), FIRST))
    return {
        **known,
        "nights": len(decisions),
        "steps_of_the_first": given.steps,
        "steps_of_a_night": given.steps // 3,
        "decisions": decisions,
        "after_each_night_db": curve,
        "best_blur_db": best_blur_db(FIRST),
        "bar": "skipped within 5 s of processor time, imports included; after no night is the "
        "model in use more than 0.1 dB worse than the first, by truth",
        "met": known["night"] == "skipped"
        and known["command_cpu_s_with_imports"] < 5
        and min(curve, default=0.0) >= known["first_db"] - 0.1,
    }


def _said_at_once(library: Path) -> dict[str, Any]:
    """Return what a night says to a library with nothing new, and what that costs."""
    began = time.process_time()
    again = round_of(library, QUICK)
    in_process_s = time.process_time() - began
    now = datetime.now()
    clock = [f"{moment:%H:%M}" for moment in (now, now + timedelta(minutes=10))]
    command = own_command("quietscope.cli", "schedule", "run", "--library", str(library))
    command += ["--at", clock[0], "--until", clock[1], "--json"]
    began, worked = time.perf_counter(), _children_s()
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return {
        "decision": again.decision,
        "night": json.loads(done.stdout)["decisions"][0]["decision"],
        "in_process_cpu_s": in_process_s,
        "command_cpu_s_with_imports": _children_s() - worked,
        "command_on_the_clock_s": time.perf_counter() - began,
    }


def _children_s() -> float:
    """Return the processor time of the processes that have ended below this one."""
    times = os.times()
    return times.children_user + times.children_system


def sabotage(place: Path, given: argparse.Namespace) -> dict[str, Any]:
    """Offer data that teach nothing true, and candidates that are worse than they look."""
    library = place / "library"
    if not library.exists():
        record(library, "good", seen(FIRST))
        round_of(library, replace(QUICK, steps=given.steps))
    current = Library(library).current()
    assert current is not None
    tries: dict[str, Callable[[int], tuple[bool, str]]] = {
        **{
            kind: partial(_spoiled, library, current, kind, spoil)
            for kind, spoil in SPOILED.items()
        },
        "channel under another's name": lambda n: _mislabelled(place / f"channels {n}", n),
        **{kind: partial(_false_candidate, place, kind) for kind in CANDIDATES},
        "corrupted on disk": partial(_corrupted, library, current),
    }
    rows: dict[str, dict[str, Any]] = given.before.get("by_kind", {})
    for kind in given.kinds or tries:
        first = rows.get(kind, {"tried": 0})["tried"]
        numbers = range(first, first + given.times)
        outcomes = (tries[kind](number) for number in numbers)
        told = [(done, reason.replace(f"{place}{os.sep}", "")) for done, reason in outcomes]
        rows[kind] = _counted(told, rows.get(kind))
    tried = sum(row["tried"] for row in rows.values())
    promoted = sum(row["promoted"] for row in rows.values())
    return {"by_kind": rows, "tried": tried, "promoted": promoted, "met": promoted == 0}


def _counted(
    outcomes: list[tuple[bool, str]], before: dict[str, Any] | None = None
) -> dict[str, Any]:
    known = before or {"tried": 0, "promoted": 0, "reason_of_the_first": outcomes[0][1]}
    return {
        "tried": known["tried"] + len(outcomes),
        "promoted": known["promoted"] + sum(promoted for promoted, _ in outcomes),
        "reason_of_the_first": known["reason_of_the_first"],
    }


def _shuffled(frames: NDArray[Any], rng: np.random.Generator) -> NDArray[Any]:
    flat = frames.reshape(len(frames), -1)
    return np.stack([rng.permutation(frame) for frame in flat]).reshape(frames.shape)


SPOILED: dict[str, Callable[[NDArray[Any], np.random.Generator], NDArray[Any]]] = {
    "shuffled": _shuffled,
    "saturated": lambda frames, rng: np.where(
        frames > np.quantile(frames, rng.uniform(0.7, 0.97)), 65535, frames
    ).astype(np.uint16),
    "constant": lambda frames, rng: np.full_like(frames, rng.integers(100, 200)),
    "hot pixels": lambda frames, rng: np.where(
        rng.random(frames.shape[1:]) < 0.02, 60_000, frames
    ).astype(np.uint16),
    "noise alone": lambda frames, rng: rng.poisson(130, frames.shape).astype(np.uint16),
    "another camera, not named": lambda frames, rng: (
        (gain := rng.integers(5, 15)) * rng.poisson(np.clip(frames / gain, 0, None))
    ).astype(np.uint16),
}


def _spoiled(
    library: Path,
    current: Path,
    kind: str,
    spoil: Callable[[NDArray[Any], np.random.Generator], NDArray[Any]],
    number: int,
) -> tuple[bool, str]:
    rng = np.random.default_rng(number)
    name = f"{kind} {number}"
    record(library, name, spoil(seen(FIRST, 50 * number), rng))
    try:
        reason = round_of(library, replace(QUICK, steps=20, seed=number)).reason
    except QuietscopeError as error:
        reason = str(error)
    shutil.rmtree(library / name)
    promoted = Library(library).current() != current
    if promoted:
        Library(library).promote(current, "after sabotage")
    return promoted, reason


def _mislabelled(library: Path, number: int) -> tuple[bool, str]:
    """Two channels change names: the model of neither may learn from the other's specimen."""
    cells, threads = (
        replace(one, seed=one.seed + number, peak_photoelectrons=40.0) for one in (FIRST, NEW)
    )
    _record_channels(library, "good", {"DAPI": seen(cells), "GFP": seen(threads)})
    shelf, before = Library(library), {}
    for channel in ("DAPI", "GFP"):
        made = write_box_model(shelf.models_dir / channel, channel=channel, camera="A")
        _says_it_learned_from(made, library / "good")
        shelf.promote(made, "by hand")
        before[channel] = made
    swapped = {"DAPI": seen(threads, 40), "GFP": seen(cells, 40)}
    _record_channels(library, "swapped", swapped)
    options = replace(QUICK, steps=20, seed=number)
    decisions = retrain_slots(shelf, Request(options=options))
    promoted = any(decision.decision == "promoted" for decision in decisions)
    return promoted, decisions[0].reason


def _record_channels(library: Path, name: str, channels: dict[str, NDArray[Any]]) -> None:
    first = next(iter(channels.values()))
    with OmeZarrWriter(
        library / name / "raw.ome.zarr",
        frame_shape=first.shape[1:],
        dtype="uint16",
        attributes={"quietscope": {"camera": {"camera": "A"}}},
    ) as writer:
        for index in range(len(first)):
            for channel, frames in channels.items():
                writer.write(frames[index], {"time": index, "channel": channel})


def _says_it_learned_from(bundle: Path, run: Path) -> None:
    """Let a bundle name a run that it has learned from, as one that was trained does."""
    manifest = read_manifest(bundle)
    part = TrainingStack(
        path=str(run / "raw.ome.zarr"),
        frames=FRAMES,
        recorded_frames=FRAMES,
        frame_shape=SHAPE,
        sha256="0" * 64,
    )
    training = manifest.training.model_copy(update={"stacks": (part,)})
    told = manifest.model_copy(update={"training": training})
    (bundle / MANIFEST).write_text(told.model_dump_json(), encoding="utf-8")


def _corrupted(library: Path, current: Path, number: int) -> tuple[bool, str]:
    """One byte of a bundle on disk is another one: it must not come into use."""
    broken = library / "models" / f"broken {number}"
    shutil.copytree(current, broken)
    rng = random.Random(number)
    file = rng.choice([f for f in sorted(broken.iterdir()) if f.name != MANIFEST])
    content = bytearray(file.read_bytes())
    content[rng.randrange(len(content))] ^= 0xFF
    file.write_bytes(content)
    try:
        Library(library).promote(broken, "sabotage")
    except QuietscopeError as error:
        shutil.rmtree(broken)
        return False, str(error)
    return True, "promoted"


CANDIDATES = ("biased", "oversmooths", "invents texture")


def _false_candidate(place: Path, kind: str, seed: int) -> tuple[bool, str]:
    """Judge, as a night does, a candidate that is the model in use with one defect."""
    rng = np.random.default_rng(seed)
    frames = seen(replace(FIRST, seed=seed, peak_photoelectrons=60.0), 0, 60)
    stack = stack_from_array(frames, path=f"scene {seed}")
    noise = float(np.sqrt(LAW.gain_adu_per_e * (np.median(frames) - 100) + 1))
    defects: dict[str, dict[str, Any]] = {
        "biased": {"added": rng.choice([-1, 1]) * rng.uniform(0.15, 0.6) * noise},
        "oversmooths": {"radius": int(rng.integers(5, 9))},
        "invents texture": {"added": rng.uniform(0.25, 0.6) * noise * _woven(rng)},
    }
    graphs = [box_graph(spread=0.8), box_graph(spread=0.8, **defects[kind])]
    current, candidate = (
        open_bundle(write_box_model(place / f"{name} {kind} {seed}", graph=graph))
        for name, graph in zip(("current", "candidate"), graphs, strict=True)
    )
    yardstick = partial(run_audit.yardstick, calibrated=None, seed=seed)
    verdict = judge(compare(candidate, current, [stack], yardstick, seed=seed), candidate)
    return verdict.promote, verdict.reason


def _woven(rng: np.random.Generator) -> NDArray[np.float64]:
    """Return a woven pattern of ±1, of a random width and phase."""
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    period, phase = rng.integers(2, 5), rng.random()
    woven = np.sin(np.pi * (x / period + phase)) * np.sin(np.pi * (y / period + phase))
    return np.asarray(np.where(woven >= 0, 1.0, -1.0))


def kills(place: Path, given: argparse.Namespace) -> dict[str, Any]:
    """Kill a night at random instants: is what is in use usable, and does a night end well."""
    library = place / "library"
    shelf, before = Library(library), given.before
    if not library.exists():
        record(library, "run 0", seen(FIRST))
        round_of(library, replace(QUICK, steps=given.steps))
    rng = random.Random(f"{given.seed} {before.get('kills', 0)}")
    failures: list[str] = before.get("failures", [])
    counts = dict.fromkeys(COUNTED, 0) | {name: before[name] for name in COUNTED if before}
    for _ in range(given.times):
        number = len(shelf.runs())
        if not begun.unjudged(shelf):
            record(library, f"run {number}", seen(FIRST, 40 * number))
        counts["nights_that_went_on_with_another"] += bool(begun.unjudged(shelf))
        night = _night(library, max(given.night_s, SHORTEST_NIGHT_S))
        try:
            night.wait(rng.uniform(0.5, 1.1 * given.night_s))
            counts["nights_that_ended_before_the_kill"] += 1
        except subprocess.TimeoutExpired:
            night.kill()
            night.wait()
            counts["kills"] += 1
            counts["kills_with_a_candidate_begun"] += bool(begun.unjudged(shelf))
        failures += _wrong(shelf, f"kill {counts['kills']}")
    said = _undisturbed(library, failures) if given.last else []
    left = [path.name for path in shelf.models_dir.iterdir() if path.name.endswith(".partial")]
    unjudged = len(begun.unjudged(shelf))
    return {
        **counts,
        "failures": failures,
        "unjudged_at_the_end": unjudged,
        "staging_left": len(left),
        "undisturbed_night": said,
        "bar": "50 kills: always a usable model in use, no half bundle, and a night that goes on",
        "met": counts["kills"] >= 50 and not failures and bool(said) and not unjudged,
    }


def _undisturbed(library: Path, failures: list[str]) -> list[str | None]:
    """Make a night that nobody kills; return its decisions, and add what went wrong."""
    night = _night(library, LONG_NIGHT_S, subprocess.PIPE)
    told, _ = night.communicate(timeout=2 * LONG_NIGHT_S)
    if night.returncode:
        failures.append(f"the night after the kills ended with {night.returncode}: {told!r}")
    failures += _wrong(Library(library), "at the end")
    return [json.loads(line).get("decision") for line in told.splitlines()]


def _night(
    library: Path, seconds: float, told: int = subprocess.DEVNULL
) -> subprocess.Popen[bytes]:
    command = own_command(NIGHT, str(library), "--until", f"{time.time() + seconds:.0f}")
    return subprocess.Popen(command, stdout=told, stderr=subprocess.DEVNULL)


def _wrong(shelf: Library, when: str) -> list[str]:
    """Return what a person would find broken."""
    wrong = []
    try:
        current = shelf.current()
        assert current is not None
        with OnnxDenoiser(open_bundle(current), SHAPE, provider="cpu") as denoiser:
            denoiser.denoise(seen(FIRST, 0, 1), np.empty((2, *SHAPE), np.float32))
    except (QuietscopeError, AssertionError) as error:
        wrong.append(f"{when}: no usable model in use ({error})")
    for folder in shelf.models_dir.iterdir():
        if folder.is_dir() and not folder.name.startswith("."):
            try:
                open_bundle(folder)
            except QuietscopeError as error:
                wrong.append(f"{when}: half a bundle ({error})")
    return wrong


def give_way(place: Path, given: argparse.Namespace) -> dict[str, Any]:
    """Start live sessions at random instants of a night, and see until when it computes."""
    library, rng = place / "library", random.Random(given.seed)
    for day in range(2):
        record(library, f"run {day}", seen(FIRST, 40 * day, 80))
    rows: list[dict[str, float]] = []
    over = threading.Event()
    child: list[psutil.Process] = []

    def sessions() -> None:
        while not over.is_set() and len(rows) < given.times:
            over.wait(rng.uniform(2, 12))
            own = psutil.Process()
            child[:] = [p for p in own.children() if NIGHT in " ".join(p.cmdline())]
            if not child:
                continue
            rows.append(_session(child[0]))

    threading.Thread(target=sessions, daemon=True).start()
    now = datetime.now()
    end = now + timedelta(seconds=max(given.night_s, LONG_NIGHT_S))
    with serving(library):
        run_night(Night(library, Window(now.time(), end.time())))
    over.set()
    record_of = last_night(library)
    delays = [row["until_free_s"] for row in rows]
    return {
        "sessions": len(rows),
        "until_free_s": {"median": float(np.median(delays)), "max": max(delays)},
        "used_while_live_s": max(row["used_while_live_s"] for row in rows),
        "waited_s": record_of.waited_s if record_of else None,
        "state": record_of.state if record_of else None,
        "failure": record_of.failure if record_of else None,
        "decisions": [one.decision for one in record_of.decisions] if record_of else [],
        "bar": "cores free within 2 s, and none used until the session ends",
        "met": max(delays) <= 2.0 and max(row["used_while_live_s"] for row in rows) == 0.0,
    }


def _session(process: psutil.Process) -> dict[str, float]:
    """Hold a session for five seconds, and look until when the process computes."""
    began, last, used = time.monotonic(), 0.0, _used(process)
    with live_session():
        while time.monotonic() - began < 5.0:
            time.sleep(0.05)
            if (now := _used(process)) > used:
                last, used = time.monotonic() - began, now
        at_two = _used(process)
        time.sleep(0.5)
        return {"until_free_s": last, "used_while_live_s": _used(process) - at_two}


def _used(process: psutil.Process) -> float:
    try:
        times = process.cpu_times()
    except psutil.Error:
        return 0.0
    return float(times.user + times.system)


PARTS = {
    "change": change,
    "nothing": nothing,
    "sabotage": sabotage,
    "kills": kills,
    "give-way": give_way,
}


def main() -> None:
    """Run a part and add its row."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--times", type=int, default=5, help="Nights, kills or sessions.")
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=3, help="Of the night of `change`, at most.")
    parser.add_argument("--night-s", type=float, default=40.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("retraining_bars.json"))
    parser.add_argument("--place", type=Path, help="Keep the library here and go on with it.")
    parser.add_argument("--kinds", nargs="*", help="Of sabotage; all without.")
    parser.add_argument(
        "--last", action=argparse.BooleanOptionalAction, default=True, help="A night after kills."
    )
    given = parser.parse_args()
    known = json.loads(given.out.read_text("utf-8")) if given.out.is_file() else {}
    given.before = known.get(given.part, {}) if given.place is not None else {}
    began = time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="quietscope nights ") as folder:
        os.environ["QUIETSCOPE_STATE"] = str(Path(folder) / "state")
        row = PARTS[given.part](given.place or Path(folder), given)
    row |= {
        "seconds": time.perf_counter() - began + given.before.get("seconds", 0.0),
        "hardware": cpu_name(all_cores()),
        "other_load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
    }
    write_json(given.out, {**known, given.part: row})
    print(json.dumps(row, indent=2))


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    main()
