"""Teacher and student on scenes that neither has seen, beside supervision and what needs no model.

    python benchmarks/training_student.py [--steps 3000] [--minutes 11] [--only WORD …] [--summary]

**nandb** (real photon counts, 50 repeats of six scenes), leave-scene-out in two folds: trained on
every second scene, scored on the other three, in turn; frames and truth are those of
`training_nandb.py`, so a frame's truth leaves out every frame that was given with it. Nothing of a
tested scene, noisy or clean, was seen by any model. The teacher and the student learn from noisy
frames alone, `supervised` from the mean of a frame's other repeats:

`student`, `student from scratch`
    as `quietscope train --algorithm student` trains it, without or with 4 preceding frames; from
    scratch: without the general model's weights to begin with
`supervised student`
    the same network, first weights, steps, copies with drawn noise; the truth instead of pictures
`supervised U-Net`
    the network of `n2v` at full resolution, fitted to the truth as in `training_nandb.py`
`general`
    the model that ships, which has learned from drawn scenes
`gaussian`, `bm3d`
    of the frame, or of the mean of the frame and the 4 before it. The width of the Gaussian is the
    best by the truth; BM3D has the exact inverse and is scored on frame 19 of each scene, as the
    models are too (`psnr_19_db`).

**moving** (the held-out scenes of `training_motion.py`): trained on the frames of a scene before
those that are tested, with 4 preceding frames; beside the stored rows of today's `--context`.

Every row is stored as soon as it is measured; a training that is stopped by `--minutes` goes on
with the next call. `core_seconds` is the time of one core that teacher, pictures and student took.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from numpy.typing import NDArray
from training_motion import (
    REGIONS,
    SEEDS,
    Scene,
    by_region,
    flashes,
    learned,
    whole_frame,
)
from training_motion import ResidentChunk as Tested
from training_nandb import FRAMES, supervised, whole_loss
from training_rows import RESULTS, Example, Rows, denoised, nandb, repeats, z_by_brightness

from quietscope.calibration.bootstrap import bootstrap_noise_model
from quietscope.inference.classical.denoiser import ClassicalDenoiser
from quietscope.inference.evaluation.trivial_competitors import BlurCompetitor
from quietscope.inference.general.for_camera import general_bundle
from quietscope.inference.runtime.onnx_denoiser import OnnxDenoiser
from quietscope.storage.stack import Stack
from quietscope.training.data.recordings import Recordings
from quietscope.training.methods import student
from quietscope.training.model.estimator import Estimator
from quietscope.training.model.unet import parameter_count
from quietscope.training.options import TrainingOptions
from quietscope.training.registry import METHODS
from quietscope.training.run import Run
from quietscope.training.train import fit, read

UNTRAINED = ("gaussian", "general", "bm3d")
CONTEXT = 4
BM3D_FRAME = 19
KEY = ("data", "method", "context", "fold", "seed", "budget")


class StoppedError(Exception):
    """The time of this call is used up; the checkpoint is written."""


class FromScratch(student.Student):
    """A student that does not begin as the general model."""

    begins_as_general = False


class Supervised(student.Student):
    """A student whose pictures are the truth; nothing teaches it."""

    @classmethod
    def teacher_options(cls, options: TrainingOptions) -> TrainingOptions | None:
        return None


LEARNERS = {
    "student": student.Student,
    "student from scratch": FromScratch,
    "supervised student": Supervised,
}
for name, learner in LEARNERS.items():
    setattr(student, learner.__name__, learner)
    METHODS[name] = f"student:{learner.__name__}"


class Trainings:
    """Trains by the product's own loop, in parts: what is stopped goes on with the next call."""

    def __init__(self, folder: Path, minutes: float) -> None:
        self._folder = folder
        self._ends = time.process_time() + 60 * minutes
        folder.mkdir(parents=True, exist_ok=True)

    def fitted(
        self,
        name: str,
        stacks: Sequence[Stack],
        options: TrainingOptions,
        prepared: Callable[[Recordings], Recordings] = lambda recordings: recordings,
    ) -> tuple[Estimator, dict[str, Any]]:
        """Return a trained estimator, and how long it took."""
        checkpoint, spent = self._folder / f"{name}.pt", self._folder / f"{name}.json"
        before = json.loads(spent.read_text())["s"] if spent.is_file() else 0.0
        began = time.process_time()

        def go_on(run: Run, save: Callable[[], None]) -> None:
            if time.process_time() > self._ends:
                save()
                spent.write_text(json.dumps({"s": before + time.process_time() - began}))
                raise StoppedError

        options = replace(options, resume=checkpoint.is_file())
        recordings, _ = read(stacks, options, None, None, _unheard)
        known = bootstrap_noise_model(list(stacks), seed=options.seed)
        estimator, run = fit(
            prepared(recordings),
            known,
            options,
            started=time.monotonic(),
            checkpoint=checkpoint,
            between_steps=go_on,
            on_remark=_unheard,
        )
        return estimator.eval(), {
            "steps": run.step,
            "teacher_steps": run.teacher["steps"] if run.teacher else 0,
            "parameters": parameter_count(estimator.network),
            "core_seconds": before + time.process_time() - began,
        }


def _unheard(remark: str) -> None:
    """Say nothing."""


def true_pictures(recordings: Recordings) -> Recordings:
    """Return recordings whose pictures are the mean of all other repeats."""
    means = {}
    for stack in recordings.stacks:
        pixels = stack.frames(range(len(stack))).astype(np.float64)
        means[stack] = pixels.sum(axis=0), len(pixels)

    def truth(stack: Stack, frame: NDArray[Any], crop: Any = ...) -> NDArray[np.float32]:
        total, count = means[stack]
        mean = ((total[crop] - frame) / (count - 1)).astype(np.float32)
        return np.stack([mean, mean])

    for part in recordings.resident:
        part.pictures = np.stack([truth(part.chunk.stack, frame) for frame in part.pixels])
        part.pictured = np.ones(len(part.pixels), np.bool_)
    held_out = []
    for sample in recordings.held_out:
        assert sample.origin is not None
        stack, _, crop = sample.origin
        target = truth(stack, sample.observations[0], crop)
        held_out.append(replace(sample, target=target))
    return replace(recordings, held_out=tuple(held_out)).with_patch(recordings.patch)


# ---------------------------------------------------------------------------------- nandb


def learned_row(
    trainings: Trainings, method: str, context: int, fold: int, given: argparse.Namespace
) -> dict[str, Any]:
    stacks = nandb()
    seen, tested = stacks[fold::2], stacks[1 - fold :: 2]
    options = TrainingOptions(
        algorithm=method, steps=given.steps, seed=given.seed, context_frames=context
    )
    if method == "supervised student":
        options = replace(options, steps=given.steps - round(student.TEACHER_SHARE * given.steps))
    name = f"{method} {context} {fold} {given.steps} {given.seed}".replace(" ", "-")
    prepared = true_pictures if method == "supervised student" else lambda found: found
    estimator, took = trainings.fitted(name, seen, options, prepared)
    return took | scores(lambda one: denoised(estimator, one.observations), tested, context)


def unet_row(fold: int, given: argparse.Namespace) -> dict[str, Any]:
    stacks = nandb()
    began = time.process_time()
    options = TrainingOptions(algorithm="n2v", steps=given.unet_steps, seed=given.seed)
    model = supervised(stacks[fold::2], options, whole_loss)
    took = time.process_time() - began

    def estimate(one: Example) -> tuple[NDArray[Any], NDArray[Any]]:
        mean = model.mean(one.observations)
        return mean, np.zeros_like(mean)

    return {"steps": model.figures["steps"], "core_seconds": took} | scores(
        estimate, stacks[1 - fold :: 2], 0
    )


def general_row(context: int, fold: int) -> dict[str, Any]:
    stacks = nandb()
    tested = stacks[1 - fold :: 2]
    with tempfile.TemporaryDirectory() as folder:
        # The camera is known as well as to the others: from the scenes that are not tested.
        known = bootstrap_noise_model(list(stacks[fold::2]))
        bundle = general_bundle(known, "uint8", context_frames=context, kept_in=Path(folder))
        denoiser = OnnxDenoiser(bundle, stacks[0].frame_shape, provider="cpu")
        out = np.empty((2, *stacks[0].frame_shape), np.float32)

        def estimate(one: Example) -> tuple[NDArray[Any], NDArray[Any]]:
            denoiser.denoise(one.observations, out)
            return out[0].astype(np.float64), out[1].astype(np.float64)

        found = scores(estimate, tested, context)
        denoiser.close()
    return found


def scores(
    estimate: Callable[[Example], tuple[NDArray[Any], NDArray[Any]]],
    tested: Sequence[Stack],
    context: int,
) -> dict[str, Any]:
    """Return PSNR by scene, in all and on BM3D's frame, and how honest the uncertainty is."""
    by_scene, on_one, estimates, examples = [], [], [], []
    for stack in tested:
        wanted = repeats([stack], FRAMES, context)
        found = [estimate(one) for one in wanted]
        values = [one.psnr_db(mean) for one, (mean, _) in zip(wanted, found, strict=True)]
        by_scene.append(float(np.mean(values)))
        on_one.append(values[list(FRAMES).index(BM3D_FRAME)])
        estimates += found
        examples += wanted
    stated = all((deviation > 0).all() for _, deviation in estimates)
    squares = [
        (mean - one.truth) ** 2 / (deviation**2 + one.truth_variance)
        for one, (mean, deviation) in zip(examples, estimates, strict=True)
    ]
    return {
        "psnr_db": float(np.mean(by_scene)),
        "by_scene_db": by_scene,
        "psnr_19_db": float(np.mean(on_one)),
        "z": float(np.sqrt(np.mean(squares))) if stated else None,
        "z_by_brightness": z_by_brightness(estimates, examples) if stated else None,
    }


def gaussian_row(context: int, fold: int) -> dict[str, Any]:
    tested = nandb()[1 - fold :: 2]
    blurs, on_one = BlurCompetitor(), BlurCompetitor()
    for stack in tested:
        for index, one in zip(FRAMES, repeats([stack], FRAMES, context), strict=True):
            picture = one.observations.astype(np.float64).mean(axis=0)
            blurs.add(picture, one.truth)
            if index == BM3D_FRAME:
                on_one.add(picture, one.truth)
    best, best_19 = blurs.best(), on_one.best()
    assert best is not None
    assert best_19 is not None
    return {
        "psnr_db": best.psnr_db,
        "sigma_px": best.sigma_px,
        "psnr_19_db": best_19.psnr_db,
    }


def bm3d_row(context: int, fold: int) -> dict[str, Any]:
    stacks = nandb()
    known, values = bootstrap_noise_model(list(stacks)), []
    for stack in stacks[1 - fold :: 2]:
        shape = stack.frame_shape
        filtered = ClassicalDenoiser("bm3d", shape, noise_model=known, frames=1 + context)
        (one,) = repeats([stack], (BM3D_FRAME,), context)
        out = np.empty((2, *shape), np.float32)
        filtered.denoise(one.observations, out)
        values.append(one.psnr_db(out[0]))
    return {"psnr_db": None, "psnr_19_db": float(np.mean(values)), "by_scene_db": values}


# --------------------------------------------------------------------------------- moving


def moving_row(trainings: Trainings, seed: int, given: argparse.Namespace) -> dict[str, Any]:
    scene = Scene(seed)
    options = TrainingOptions(algorithm="student", steps=given.steps, context_frames=CONTEXT)
    name = f"moving-{seed}-{given.steps}"
    estimator, took = trainings.fitted(name, [learned(scene)], options)
    moving, still = Tested(scene), Tested(scene, still=True)
    return {
        **took,
        "psnr_regions_db": by_region(estimator, moving, CONTEXT),
        "standing_still_db": whole_frame(estimator, still, CONTEXT),
        "no_frame_before_db": whole_frame(estimator, moving, CONTEXT, range(1, CONTEXT + 1)),
        **flashes(estimator, moving, CONTEXT),
    }


def moving_summary(rows: Sequence[dict[str, Any]]) -> None:
    """Print what students gain over no context, beside what today's context gains."""
    stored = json.loads((RESULTS / "training_motion.json").read_text(encoding="utf-8"))["rows"]
    today = {(row["seed"], row["context"]): row["psnr_db"] for row in stored}
    found = {row["seed"]: row["psnr_regions_db"] for row in rows if row["data"] == "moving"}
    if not found:
        return
    print("\n| region | today's --context 4 | student | student − today, each scene |")
    print("|---|---|---|---|")
    for region in ("whole", *REGIONS):
        none = np.array([today[seed, 0][region] for seed in found])
        context = np.array([today[seed, CONTEXT][region] for seed in found])
        ours = np.array([found[seed][region] for seed in found])
        each = ", ".join(f"{gain:+.2f}" for gain in ours - context)
        print(
            f"| {region} | {np.mean(context - none):+.2f} | {np.mean(ours - none):+.2f} | {each} |"
        )


# ------------------------------------------------------------------------------------ all


def summary(rows: Sequence[dict[str, Any]]) -> None:
    """Print the means over both folds, and the moving scenes."""
    print("| method | preceding | PSNR, dB | on frame 19 | z | core seconds, each fold |")
    print("|---|---|---|---|---|---|")
    told_apart = ("context", "method", "budget")
    kinds = {tuple(row[key] for key in told_apart) for row in rows if row["data"] == "nandb"}
    for context, method, budget in sorted(kinds, key=str):
        kind = (context, method, budget)
        folds = [row for row in rows if tuple(row[key] for key in told_apart) == kind]
        cells = []
        for key, form in (
            ("psnr_db", ".2f"),
            ("psnr_19_db", ".2f"),
            ("z", ".2f"),
            ("core_seconds", ".0f"),
        ):
            values = [row[key] for row in folds if row.get(key) is not None]
            cells.append(format(np.mean(values), form) if values else "")
        steps = "" if budget is None else f", {budget} steps"
        only = ", ".join(str(row["fold"]) for row in folds)
        part = steps + ("" if len(folds) == 2 else f" (fold {only} alone)")
        print(f"| {method}{part} | {context} | {' | '.join(cells)} |")
    moving_summary(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=3000, help="Of teacher and student together.")
    parser.add_argument("--unet-steps", type=int, default=2000, help="Of the supervised U-Net.")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=11.0, help="Core time of this call.")
    parser.add_argument("--only", nargs="*", help="Words, one of which a row has to hold.")
    parser.add_argument("--summary", action="store_true")
    parser.add_argument("--out", type=Path, default=RESULTS / "training_student.json")
    parser.add_argument(
        "--work", type=Path, default=Path(tempfile.gettempdir()) / "training-student"
    )
    given = parser.parse_args()
    torch.set_num_threads(1)
    rows = Rows(given.out, KEY, threads=1)
    if given.summary:
        summary(rows.rows)
        return
    trainings = Trainings(given.work, given.minutes)
    plan: list[tuple[tuple[Any, ...], Callable[[], dict[str, Any]]]] = []
    for fold in (0, 1):
        for context in (0, CONTEXT):
            plan.append(
                (
                    ("nandb", "gaussian", context, fold),
                    lambda c=context, f=fold: gaussian_row(c, f),
                )
            )
            plan.append(
                (("nandb", "general", context, fold), lambda c=context, f=fold: general_row(c, f))
            )
        for context in (0, CONTEXT):
            for method in LEARNERS:
                plan.append(
                    (
                        ("nandb", method, context, fold),
                        lambda m=method, c=context, f=fold: learned_row(trainings, m, c, f, given),
                    )
                )
        plan.append((("nandb", "supervised U-Net", 0, fold), lambda f=fold: unet_row(f, given)))
        for context in (0, CONTEXT):
            plan.append(
                (("nandb", "bm3d", context, fold), lambda c=context, f=fold: bm3d_row(c, f))
            )
    plan += [
        (("moving", "student", CONTEXT, seed), lambda s=seed: moving_row(trainings, s, given))
        for seed in SEEDS["held-out"]
    ]
    there = {tuple(row[key] for key in KEY) for row in rows.rows}
    ends = time.process_time() + 60 * given.minutes
    for (data, method, context, fold), measure in plan:
        # A moving scene is told by its own seed; it has no folds.
        seed = fold if data == "moving" else given.seed
        place = None if data == "moving" else fold
        steps = given.unet_steps if method == "supervised U-Net" else given.steps
        budget = None if method in UNTRAINED else steps
        key = dict(zip(KEY, (data, method, context, place, seed, budget), strict=True))
        label = f"{data} {method} {context} {fold}"
        wanted = not given.only or any(word in label for word in given.only)
        if tuple(key.values()) in there or not wanted:
            continue
        if time.process_time() > ends:
            print("more is left to measure: call again")
            return
        try:
            found = measure()
        except StoppedError:
            print(f"{label}: stopped; call again to go on")
            return
        rows.add({**key, **found, "load": round(psutil.getloadavg()[0], 1)})


if __name__ == "__main__":
    main()
