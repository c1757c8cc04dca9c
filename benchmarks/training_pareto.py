"""Which network sizes are worth having: quality against operations and milliseconds.

For each candidate, `lattice` after a fixed number of steps or minutes, on

- nandb: six stacks of real photon counts; truth of a frame: the mean of the other 49;
- single: four single noisy images (a confocal one, three wide-field), each trained on itself;
  scored after an affine fit as in `training_pairs.py`;
- moving: a simulated scene with 4 preceding frames, whole and by region as in
  `training_motion.py`;
- specimen: that of the demo at two fifths of its light, whole and where filaments run;

and time: GFLOP per 512² frame counted from the exported graph, and milliseconds of one core's own
time from host array to host array, all candidates in turn, which holds on a busy machine
(`inference_presets.py` times the presets on one core and on all of an idle one). All write into
the same rows. A further seed draws other weights and patches, and of what is simulated another
scene, the same for every candidate: their differences are compared seed by seed.
Prints the front on each set and draws them, `results/training_pareto.png`.

    python benchmarks/training_pareto.py --sets nandb single --steps 2000
    python benchmarks/training_pareto.py --sets moving specimen --seeds 0 1 2
    python benchmarks/training_pareto.py --sets time
    python benchmarks/training_pareto.py --sets nandb --plans width=16,depth=3

Rows of another number of steps are kept apart. The data are found through the environment variable
QUIETSCOPE_DATA.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import numpy as np
from training_motion import SEEDS, ResidentChunk, Scene, by_region, learned
from training_pairs import pairs, score
from training_rows import (
    RESULTS,
    Rows,
    as_live,
    denoised,
    fitted,
    mean_psnr_db,
    nandb,
    repeats,
)

from quietscope.acquisition.microscope.specimen import CameraLaw, Specimen
from quietscope.inference.graph.operations import count_gflop
from quietscope.inference.runtime.onnx_denoiser import OnnxDenoiser
from quietscope.storage.stack import Stack, stack_from_array
from quietscope.training.options import LATTICE_PLANS, NetworkPlan, TrainingOptions
from quietscope.training.train import train

FRAMES = range(7, 50, 12)
SHAPE = (512, 512)
COST = "cpu_ms_512"
ROUNDS = 15
SINGLE_IMAGES = ("fish", "w2s_010_0", "w2s_044_0", "w2s_049_0")
MOVING_CONTEXT = 4
LAW = CameraLaw(1.0, 99.25, 2.5)
LOW_LIGHT_ELECTRONS = 8.0
"""Of the brightest structures; the demo's give 20."""
RECORDED, LATER = range(60), range(1000, 1060, 6)
ON_FILAMENTS = 0.25
SIZES = (  # width, depth, convolutions per block at the network's own resolution, growth
    (16, 1, 1),
    (16, 1, 2),
    (16, 2, 1),
    (16, 2, 2),
    (16, 3, 1),
    (24, 1, 1),
    (32, 1, 1),
    (32, 1, 1, 4),
    (32, 2, 1),
    (32, 2, 2),
    (32, 3, 1),
    (48, 2, 1),
)

Scores = dict[str, float]


def candidates() -> list[NetworkPlan]:
    """Return the presets' plans, and the sizes around them."""
    return list(dict.fromkeys([*LATTICE_PLANS.values(), *(NetworkPlan(*size) for size in SIZES)]))


def parsed(text: str) -> NetworkPlan:
    """Return the plan that `width=16,depth=2` names."""
    return NetworkPlan(
        **{name: int(value) for name, value in (p.split("=") for p in text.split(","))}
    )


def name_of(plan: NetworkPlan) -> str:
    sizes = asdict(plan) if plan.growth != 2 else asdict(plan) | {"growth": None}
    named = (f"{name} {value}" for name, value in sizes.items() if value is not None)
    return " ".join(named).replace("_", " ")


def presets_of(plan: NetworkPlan) -> list[str]:
    return [preset for preset, own in LATTICE_PLANS.items() if own == plan]


def nandb_scores(options: TrainingOptions) -> Scores:
    stacks = nandb()
    estimator, _ = fitted(stacks, options)
    return {"whole": mean_psnr_db(estimator, repeats(stacks, FRAMES, options.context_frames))}


def single_scores(options: TrainingOptions) -> Scores:
    """Score single noisy images, each by a network that was trained on it alone."""
    known, scores = pairs(), {}
    for name in SINGLE_IMAGES:
        noisy, truth = known[name]
        estimator, _ = fitted([stack_from_array(noisy[None])], options)
        scores[name] = score(denoised(estimator, noisy[None])[0], truth)
    return {"whole": fmean(scores.values()), **scores}


def moving_scores(options: TrainingOptions) -> Scores:
    """Score a scene in motion, whole and by region, on frames after those that were learned."""
    resident, recording = moving(SEEDS["held-out"][options.seed % len(SEEDS["held-out"])])
    estimator, _ = fitted([recording], replace(options, context_frames=MOVING_CONTEXT))
    return by_region(estimator, resident, MOVING_CONTEXT)


@cache
def moving(seed: int) -> tuple[ResidentChunk, Stack]:
    scene = Scene(seed)
    return ResidentChunk(scene), learned(scene)


def specimen_scores(options: TrainingOptions) -> Scores:
    """Score the demo's specimen at low light, long after the frames that were learned."""
    specimen = Specimen((256, 256), LAW, LOW_LIGHT_ELECTRONS, seed=options.seed)
    stack = stack_from_array(np.stack([specimen.observe(index) for index in RECORDED]))
    estimator, _ = fitted([stack], options)
    found = []
    for index in LATER:
        truth = specimen.truth(index).astype(np.float64)
        error = (denoised(estimator, specimen.observe(index)[None])[0] - truth) ** 2
        filaments = specimen.structure(index, stain=(0.0, 1.0)) > ON_FILAMENTS
        found.append((np.ptp(truth), error.mean(), error[filaments].mean()))
    span, *errors = np.mean(found, axis=0)
    whole, filaments = (float(10 * np.log10(span**2 / error)) for error in errors)
    return {"whole": whole, "filaments": filaments}


QUALITY = {
    "nandb": nandb_scores,
    "single": single_scores,
    "moving": moving_scores,
    "specimen": specimen_scores,
}


def measure_quality(
    rows: Rows, plans: Sequence[NetworkPlan], name: str, options: TrainingOptions
) -> None:
    for plan in plans:
        began = time.process_time()
        with as_live(plan):
            scores = QUALITY[name](options)
        taken = {"process_seconds": round(time.process_time() - began, 1)}
        row = rows.row({"plan": name_of(plan)})
        known = row.get("db", {}).get(name, {})
        budget = budget_of(options)
        seeds = known.get(budget, {}) | {str(options.seed): scores | taken}
        rows.add(row | {"db": row.get("db", {}) | {name: known | {budget: seeds}}})


def budget_of(options: TrainingOptions) -> str:
    return f"{options.steps} steps" if options.steps else f"{options.seconds:g} s"


def measure_time(rows: Rows, plans: Sequence[NetworkPlan]) -> None:
    """Time all plans in turn, round by round; speed does not depend on the weights."""
    specimen = Specimen((128, 128), LAW)
    stack = stack_from_array(np.stack([specimen.observe(index) for index in range(24)]))
    frame = np.random.default_rng(0).poisson(300, (1, *SHAPE)).astype(np.uint16)
    out = np.empty((2, *SHAPE), np.float32)
    with tempfile.TemporaryDirectory() as folder, ExitStack() as opened:
        denoisers: dict[NetworkPlan, OnnxDenoiser] = {}
        for plan in plans:
            bundle = Path(folder) / name_of(plan)
            with as_live(plan):
                train([stack], bundle, TrainingOptions(steps=2))
            denoiser = OnnxDenoiser(bundle, SHAPE, provider="cpu", threads=1)
            denoisers[plan] = opened.enter_context(denoiser)
        taken: dict[NetworkPlan, list[float]] = {plan: [] for plan in plans}
        for _ in range(ROUNDS):
            for plan, denoiser in denoisers.items():
                began = time.process_time()
                denoiser.denoise(frame, out)
                taken[plan].append(1e3 * (time.process_time() - began))
        for plan, denoiser in denoisers.items():
            gflop = count_gflop(denoiser.bundle.model_path, SHAPE)
            found = {"gflop_512": gflop, COST: statistics.median(taken[plan])}
            rows.add(rows.row({"plan": name_of(plan)}) | found)


def summary(rows: Sequence[Mapping[str, Any]], budget: str) -> None:
    """Print quality beside time on each set, and by how much each differs from the first plan."""
    timed = [row for row in rows if COST in row]
    for name in QUALITY:
        points = points_of(timed, name, budget)
        if not points:
            continue
        print(f"{name}, lattice after {budget}:")
        for row, found in points:
            front = "front" if is_on_front(row, points) else ""
            print(
                f"  {row['plan']:38} {'/'.join(row['presets']):6} {row['gflop_512']:6.1f} GFLOP "
                f"{row[COST]:6.1f} ms {in_words(found):24} "
                f"{in_words(differences(points[0][1], found)):24} {front}"
            )


Seeds = Mapping[str, Scores]
Point = tuple[Mapping[str, Any], Seeds]


def points_of(rows: Iterable[Mapping[str, Any]], name: str, budget: str) -> list[Point]:
    """Return the rows that were measured on a set, the cheapest first, and what was found."""
    known = [(row, row.get("db", {}).get(name, {}).get(budget, {})) for row in rows]
    return sorted((p for p in known if p[1]), key=lambda point: point[0][COST])


def in_all(points: Sequence[Point]) -> list[Point]:
    """Return the points with those seeds alone that all of them have: others are other scenes."""
    shared = set.intersection(*(set(seeds) for _, seeds in points)) if points else set()
    return [(row, {seed: seeds[seed] for seed in shared}) for row, seeds in points]


def headline(seeds: Seeds) -> float:
    return fmean(scores["whole"] for scores in seeds.values())


def differences(one: Seeds, other: Seeds) -> Seeds:
    """Return by how much the other is better, in each seed that both have."""
    shared = sorted(one.keys() & other.keys())
    return {seed: {"whole": other[seed]["whole"] - one[seed]["whole"]} for seed in shared}


def in_words(seeds: Seeds) -> str:
    if not seeds:
        return ""
    values = [scores["whole"] for scores in seeds.values()]
    spread = f" ± {stdev(values):.3f} of {len(values)}" if len(values) > 1 else ""
    return f"{fmean(values):+.3f}{spread} dB"


def is_on_front(row: Mapping[str, Any], points: Sequence[Point]) -> bool:
    """Return whether no cheaper network is better in the mean of the seeds that both have."""
    own = next(seeds for other, seeds in points if other is row)
    for other, seeds in points:
        better = differences(own, seeds)
        if other[COST] < row[COST] and better and headline(better) > 0:
            return False
    return True


def draw(rows: Sequence[Mapping[str, Any]], budget: str, path: Path) -> None:
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

    figure = Figure(figsize=(9, 6.4), layout="constrained")
    panels = figure.subplots(2, 2)
    timed = [row for row in rows if COST in row]
    for panel, name in zip(panels.flat, QUALITY, strict=True):
        points = in_all(points_of(timed, name, budget))
        front = [(row[COST], headline(s)) for row, s in points if is_on_front(row, points)]
        panel.plot([ms for ms, _ in front], [db for _, db in front], color="tab:blue")
        for number, (row, seeds) in enumerate(points):
            place = row[COST], headline(seeds)
            panel.plot(
                [place[0]] * len(seeds), [s["whole"] for s in seeds.values()], "_", color="grey"
            )
            panel.plot(*place, "o", color="tab:blue")
            size = "·".join(word for word in row["plan"].split() if word.isdigit())
            # In turn above and below: neighbours cost much the same.
            offset = (-4, 7) if number % 2 else (4, -10)
            words = {"xytext": offset, "textcoords": "offset points", "fontsize": 7}
            panel.annotate(" ".join([size, *row["presets"]]), place, **words).set_in_layout(False)
        panel.set_xscale("log")
        panel.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        panel.xaxis.set_major_formatter(ScalarFormatter())
        panel.xaxis.set_minor_formatter(NullFormatter())
        panel.margins(x=0.2, y=0.15)
        panel.set_title(name, fontsize=9)
        panel.set_xlabel("ms of one core (width·depth·convolutions·growth)", fontsize=8)
        panel.set_ylabel("PSNR, dB")
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--sets", choices=[*QUALITY, "time"], nargs="+", default=[*QUALITY, "time"]
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--minutes", type=float, help="Instead of steps.")
    parser.add_argument("--plans", type=parsed, nargs="*", help="Where not given, all candidates.")
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    plans = given.plans or candidates()
    options = TrainingOptions(
        steps=None if given.minutes else given.steps,
        seconds=60 * given.minutes if given.minutes else None,
    )
    rows = Rows(given.out / "training_pareto.json", ("plan",))
    for name in (name for name in given.sets if name != "time"):
        for seed in given.seeds:
            measure_quality(rows, plans, name, replace(options, seed=seed))
    if "time" in given.sets:
        measure_time(rows, plans)
    presets = {name_of(plan): presets_of(plan) for plan in LATTICE_PLANS.values()}
    known = [row | {"presets": presets.get(row["plan"], [])} for row in rows.rows]
    summary(known, budget_of(options))
    draw(known, budget_of(options), given.out / "training_pareto.png")


if __name__ == "__main__":
    main()
