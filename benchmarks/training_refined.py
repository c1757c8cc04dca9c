"""What twenty seconds of training make of the general model, beside `lattice` of the same time.

`refined` begins with the general model and learns from the noisy recording alone; `lattice` is
drawn and learns from it for as long. Both on nandb (six resting stacks), FMD confocal and
two-photon scenes (four noisy images each), single noisy images (w2s, FISH, after the best affine
fit), an empty field and a living scene of `training_motion` (`camera`). The noise is told from the
recording, as for a user without a calibration.

The budget is steps, so that a busy machine changes nothing: as many as take the same process time
on one core, which stands in the rows (`cpu_s`, all of a run but its export).

    python benchmarks/training_refined.py [--parts nandb nandb-context fmd pairs empty camera demo]

`long`: both for five times as long, on a stack of nandb and on the demo's recording. `split_mse`
are the squared errors of model and general model that `train` compares on held-out frames, without
the truth, and `said` what it advises. Scored frames are among those that were learned
from, as they are when a recording is denoised; the truth of nandb leaves out the frames shown.

The data are found through the environment variable QUIETSCOPE_DATA.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from skimage.io import imread
from training_general import General, _after_fit, _nandb_noise
from training_motion import TESTED, ResidentChunk, Scene, learned
from training_pairs import pairs
from training_rows import DATA, RESULTS, Image, Rows, denoised, nandb, repeats

from quietscope.acquisition.microscope.specimen import CameraLaw, Specimen
from quietscope.calibration.bootstrap import bootstrap_noise_model
from quietscope.calibration.gaussian_mixture import GaussianMixtureNoiseModel
from quietscope.inference.evaluation.metrics import psnr_db
from quietscope.inference.general.shipped import read_shipped
from quietscope.storage.stack import Stack, stack_from_array
from quietscope.training.errors import UnsuitedError
from quietscope.training.options import TrainingOptions
from quietscope.training.output.untrained_general import UntrainedGeneral
from quietscope.training.output.usefulness import usefulness_of
from quietscope.training.train import START_KEPT, fit, read
from quietscope.training.working_clock import working_s

FRAMES = range(7, 50, 12)
STEPS = 200
LATTICE_STEPS = 2.5
"""For one step of `refined`: as much process time before `lattice` had its present size, and two
thirds of it since; the rows say how long each took."""
Shown = Sequence[tuple[Image, Image, Image]]
"""Observations (1 + T, Y, X), truth, and the truth's own variance."""
Score = Callable[[Image, Image], float]


def row_set(
    rows: Rows,
    data: str,
    stack: Stack,
    shown: Shown,
    noise_model: GaussianMixtureNoiseModel,
    steps: int,
    score: Score = psnr_db,
) -> None:
    """Measure the general model, what training makes of it, and `lattice`."""
    context = len(shown[0][0]) - 1
    general = General(noise_model, shown[0][0], context)
    means = [general(observations)[:2] for observations, _, _ in shown]
    rows.add({"data": data, "method": "general", "steps": 0, **figures(means, shown, score)})
    for method, count in (("refined", steps), ("lattice", round(LATTICE_STEPS * steps))):
        said: list[str] = []
        began = time.process_time()
        options = TrainingOptions(algorithm=method, context_frames=context, steps=count)
        recordings, _ = read([stack], options, noise_model, None, said.append)
        try:
            estimator, run = fit(
                recordings, noise_model, options, started=working_s(), on_remark=said.append
            )
        except UnsuitedError as error:
            rows.add({"data": data, "method": method, "refused": str(error)})
            continue
        seconds = time.process_time() - began
        means = [denoised(estimator, observations) for observations, _, _ in shown]
        found = usefulness_of(
            estimator,
            recordings.held_out,
            noise_model,
            context_frames=context,
            seed=options.seed,
            correlation=run.noise_correlation,
            general=UntrainedGeneral.beside(run, recordings),
        )
        rows.add(
            {
                "data": data,
                "method": method if steps == STEPS else f"{method}, {count} steps",
                "steps": count,
                "cpu_s": seconds,
                **figures(means, shown, score),
                "held_out": [run.losses[0].validation_loss, run.best_score],
                "start_kept": START_KEPT in said,
                "split_mse": [found.model, found.general],
                "said": found.advice,
            }
        )


def figures(
    means: Sequence[tuple[Image, Image]], shown: Shown, score: Score
) -> dict[str, float | None]:
    """Return what estimates and their stated deviations are worth."""
    wrong = [
        np.mean((mean - truth) ** 2 / (deviation**2 + variance))
        for (mean, deviation), (_, truth, variance) in zip(means, shown, strict=True)
    ]
    pairs_of = list(zip(means, shown, strict=True))
    flat = np.ptp(shown[0][1]) == 0
    return {
        "psnr_db": None
        if flat
        else float(np.mean([score(mean, truth) for (mean, _), (_, truth, _) in pairs_of])),
        "rms_adu": float(
            np.sqrt(np.mean([np.mean((mean - of[1]) ** 2) for (mean, _), of in pairs_of]))
        ),
        "z": float(np.sqrt(np.mean(wrong))) if score is psnr_db else None,
    }


def nandb_rows(rows: Rows, steps: int) -> None:
    for number in range(len(nandb())):
        _nandb(rows, number, 0, steps)


def nandb_context_rows(rows: Rows, steps: int) -> None:
    for number in range(0, len(nandb()), 2):
        _nandb(rows, number, 4, steps)


def _nandb(rows: Rows, number: int, context: int, steps: int) -> None:
    stack = nandb()[number]
    shown = [
        (one.observations, one.truth, one.truth_variance)
        for one in repeats([stack], FRAMES, context)
    ]
    words = "4 preceding" if context else "one frame"
    row_set(rows, f"nandb {number}, {words}", stack, shown, _nandb_noise(number, 1), steps)


def fmd_rows(rows: Rows, steps: int) -> None:
    for path in sorted((DATA / "fmd_testset" / "gt").glob("*_1.png")):
        scene = path.stem.removesuffix("_1")
        if scene.startswith("WideField"):  # correlated: r2r is trained there
            continue
        truth = imread(path).astype(float)
        folder = DATA / "fmd_testset" / "raw"
        noisy = np.stack([imread(folder / f"{scene}_{n}.png") for n in (1, 2, 3, 4)])
        stack = stack_from_array(noisy)
        shown = [(noisy[:1], truth, np.zeros(1))]
        row_set(rows, f"FMD {scene}", stack, shown, bootstrap_noise_model([stack]), steps)


def pair_rows(rows: Rows, steps: int) -> None:
    for name, (noisy, truth) in pairs().items():
        stack = stack_from_array(noisy[None])
        shown = [(noisy[None], truth.astype(float), np.zeros(1))]
        noise_model = bootstrap_noise_model([stack])
        row_set(rows, name, stack, shown, noise_model, steps, _after_fit)


def empty_rows(rows: Rows, steps: int) -> None:
    rng = np.random.default_rng(1)
    for light in (1.0, 30.0):
        truth = np.full((192, 192), 100 + 2 * light)
        electrons = rng.poisson(light, (24, 192, 192)) + 1.5 * rng.standard_normal((24, 192, 192))
        noisy = np.rint(100 + 2 * electrons).clip(0).astype(np.uint16)
        stack = stack_from_array(noisy)
        shown = [(noisy[n : n + 1], truth, np.zeros(1)) for n in (3, 12, 20)]
        known = bootstrap_noise_model([stack])
        row_set(rows, f"empty, {light:g} photons", stack, shown, known, steps)


def camera_rows(rows: Rows, steps: int) -> None:
    scene = Scene(1)
    stack, moving = learned(scene), ResidentChunk(scene)
    for context in (0, 4):
        shown = [
            (moving.observations(t, context), moving.truth(t), np.zeros(1)) for t in TESTED[::4]
        ]
        words = "4 preceding" if context else "one frame"
        row_set(rows, f"sCMOS, {words}", stack, shown, bootstrap_noise_model([stack]), steps)


def demo_rows(rows: Rows, steps: int) -> None:
    """Measure both on what `quietscope demo` records, by frames that it does not learn from."""
    specimen = Specimen((512, 512), CameraLaw(1.0, 100.0, 2.5), peak_photoelectrons=20.0)
    stack = stack_from_array(np.stack([specimen.observe(index) for index in range(60)]))
    shown = [
        (specimen.observe(index)[None], specimen.truth(index).astype(float), np.zeros(1))
        for index in (1000, 1010, 1020)
    ]
    row_set(rows, "demo", stack, shown, bootstrap_noise_model([stack]), steps)


def longer_rows(rows: Rows, steps: int) -> None:
    _nandb(rows, 0, 0, 5 * steps)
    demo_rows(rows, 5 * steps)


PARTS = {
    "nandb": nandb_rows,
    "nandb-context": nandb_context_rows,
    "fmd": fmd_rows,
    "pairs": pair_rows,
    "empty": empty_rows,
    "camera": camera_rows,
    "demo": demo_rows,
    "long": longer_rows,
}


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    asked.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS))
    asked.add_argument("--steps", type=int, default=STEPS)
    asked.add_argument("--out", type=Path, default=RESULTS)
    chosen = asked.parse_args()
    torch.set_num_threads(1)
    rows = Rows(
        chosen.out / "training_refined.json",
        ("data", "method"),
        general_sha256=read_shipped().identity,
    )
    for part in chosen.parts:
        PARTS[part](rows, chosen.steps)


if __name__ == "__main__":
    main()
