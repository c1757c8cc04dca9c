"""Which network sizes are worth having: quality against operations and milliseconds.

For each candidate: PSNR of `lattice` on six stacks of real photon counts (nandb; truth of a frame:
the mean of the other 49) and, with `--pairs`, on four single noisy images (a confocal one, three
wide-field, each trained on itself; scored after an affine fit as in `training_pairs.py`), after
a fixed number of steps or minutes; GFLOP per 512² frame counted from the exported graph, and the
time per 512² frame from host array to host array. The parts can be run apart, the last needs an
idle machine; all write into the same rows. Prints the front of each and draws that of the stacks,
`results/training_pareto.png`.

    python benchmarks/training_pareto.py --psnr-only --steps 2000
    python benchmarks/training_pareto.py --pairs --steps 2000
    python benchmarks/training_pareto.py --time-only
    python benchmarks/training_pareto.py --psnr-only --steps 2000 --plans width=16,depth=3

The data are found through the environment variable QUIETSCOPE_DATA.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
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
from quietscope.inference.runtime.providers import all_cores
from quietscope.storage.stack import stack_from_array
from quietscope.training.model.unet import parameter_count
from quietscope.training.options import PLANS, NetworkPlan, TrainingOptions
from quietscope.training.train import train

FRAMES = range(7, 50, 12)
SHAPE = (512, 512)
ROUNDS = 15
FAST_BELOW_BEST_DB = 0.4
SINGLE_IMAGES = ("fish", "w2s_010_0", "w2s_044_0", "w2s_049_0")
SIZES = (  # width, depth, convolutions per block at the network's own resolution
    (16, 1, 1),
    (16, 1, 2),
    (16, 2, 1),
    (16, 2, 2),
    (16, 3, 1),
    (32, 1, 1),
    (32, 2, 1),
    (32, 2, 2),
    (32, 3, 1),
    (48, 2, 1),
)


def candidates() -> list[NetworkPlan]:
    """Return the presets' plans, and the sizes around them."""
    return list(dict.fromkeys([*PLANS.values(), *(NetworkPlan(*size) for size in SIZES)]))


def parsed(text: str) -> NetworkPlan:
    """Return the plan that `width=16,depth=2` names."""
    return NetworkPlan(
        **{name: int(value) for name, value in (p.split("=") for p in text.split(","))}
    )


def name_of(plan: NetworkPlan) -> str:
    return " ".join(f"{name} {value}" for name, value in asdict(plan).items()).replace("_", " ")


def presets_of(plan: NetworkPlan) -> list[str]:
    return [preset for preset, own in PLANS.items() if own == plan]


def measure_psnr(rows: Rows, plans: list[NetworkPlan], options: TrainingOptions) -> None:
    stacks = nandb()
    examples = repeats(stacks, FRAMES, options.context_frames)
    for plan in plans:
        with as_live(plan):
            estimator, run = fitted(stacks, options)
        rows.update(
            {
                "plan": name_of(plan),
                "presets": presets_of(plan),
                "parameters": parameter_count(estimator.network),
                "psnr_db": mean_psnr_db(estimator, examples),
                "steps": run.step,
                "training_seconds": run.schedule.elapsed,
            }
        )


def measure_pairs(rows: Rows, plans: list[NetworkPlan], options: TrainingOptions) -> None:
    """Score single noisy images, each by a network that was trained on it alone."""
    known = pairs()
    for plan in plans:
        scores = {}
        for name in SINGLE_IMAGES:
            noisy, truth = known[name]
            with as_live(plan):
                estimator, _ = fitted([stack_from_array(noisy[None])], options)
            scores[name] = score(denoised(estimator, noisy[None])[0], truth)
        found = {"single_images_db": scores, "psnr_single_images_db": fmean(scores.values())}
        rows.update({"plan": name_of(plan), "presets": presets_of(plan), **found})


def measure_time(rows: Rows, plans: list[NetworkPlan], context_frames: int) -> None:
    """Time all plans in turn, round by round; speed does not depend on the weights."""
    law = CameraLaw(0.5, 100.0, 2.0)
    specimen = Specimen((256, 256), law)
    stack = stack_from_array(np.stack([specimen.observe(index) for index in range(24)]))
    frame = np.random.default_rng(0).poisson(300, (1 + context_frames, *SHAPE)).astype(np.uint16)
    out = np.empty((2, *SHAPE), np.float32)
    with tempfile.TemporaryDirectory() as folder:
        denoisers = {}
        for plan in plans:
            bundle = Path(folder) / name_of(plan)
            with as_live(plan):
                train([stack], bundle, TrainingOptions(steps=2, context_frames=context_frames))
            denoisers[plan] = OnnxDenoiser(bundle, SHAPE, provider="cpu", threads=all_cores())
        taken: dict[NetworkPlan, list[float]] = {plan: [] for plan in plans}
        for _ in range(ROUNDS):
            for plan, denoiser in denoisers.items():
                began = time.perf_counter()
                denoiser.denoise(frame, out)
                taken[plan].append(1e3 * (time.perf_counter() - began))
        for plan, denoiser in denoisers.items():
            rows.update(
                {
                    "plan": name_of(plan),
                    "presets": presets_of(plan),
                    "gflop_512": count_gflop(denoiser.bundle.model_path, SHAPE),
                    "ms_512_median": statistics.median(taken[plan]),
                    "ms_512_least": min(taken[plan]),
                }
            )
            denoiser.close()


def on_front(
    row: dict[str, Any], rows: list[dict[str, Any]], cost: str, quality: str = "psnr_db"
) -> bool:
    """Return whether nothing is both better and cheaper."""
    return not any(other[cost] <= row[cost] and other[quality] > row[quality] for other in rows)


def summary(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    whole = [row for row in rows if "psnr_db" in row and "ms_512_median" in row]
    for row in sorted(whole, key=lambda row: row["ms_512_median"]):
        marks = [cost for cost in ("gflop_512", "ms_512_median") if on_front(row, whole, cost)]
        front = f"front in {' and '.join(marks)}" if marks else ""
        print(
            f"{row['plan']:38} {'/'.join(row['presets']):6} {row['gflop_512']:6.1f} GFLOP "
            f"{row['ms_512_median']:6.1f} ms {row['psnr_db']:6.2f} dB  {front}"
        )
    single = [row for row in whole if "psnr_single_images_db" in row]
    for row in sorted(single, key=lambda row: row["ms_512_median"]):
        front = on_front(row, single, "ms_512_median", "psnr_single_images_db")
        print(
            f"{row['plan']:38} {'/'.join(row['presets']):6} {row['ms_512_median']:6.1f} ms "
            f"{row['psnr_single_images_db']:6.2f} dB on single images  {'front' if front else ''}"
        )
    by_preset = {preset: row for row in rows if "psnr_db" in row for preset in row["presets"]}
    if {"fast", "best"} <= by_preset.keys():
        behind = by_preset["best"]["psnr_db"] - by_preset["fast"]["psnr_db"]
        print(f"fast is {behind:.2f} dB below best (bar: {FAST_BELOW_BEST_DB} dB)")
    return whole


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullFormatter, ScalarFormatter

    figure = Figure(figsize=(8, 3.6), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    costs = {"gflop_512": "GFLOP per 512² frame", "ms_512_median": "ms per 512² frame"}
    for panel, (cost, label) in zip(panels, costs.items(), strict=True):
        front = sorted((r for r in rows if on_front(r, rows, cost)), key=lambda r: r[cost])
        panel.plot([r[cost] for r in front], [r["psnr_db"] for r in front], color="tab:blue")
        for number, row in enumerate(sorted(rows, key=lambda r: r[cost])):
            panel.plot(row[cost], row["psnr_db"], "o", color="tab:blue")
            size = "·".join(word for word in row["plan"].split() if word.isdigit())
            text = " ".join([size, *row["presets"]])
            # In turn above and below: neighbours cost much the same.
            above_or_below = (-4, 7) if number % 2 else (4, -10)
            place = {"xytext": above_or_below, "textcoords": "offset points", "fontsize": 7}
            panel.annotate(text, (row[cost], row["psnr_db"]), **place).set_in_layout(False)
        panel.set_xscale("log")
        panel.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        panel.xaxis.set_major_formatter(ScalarFormatter())
        panel.xaxis.set_minor_formatter(NullFormatter())
        panel.margins(x=0.2, y=0.1)
        panel.set_xlabel(f"{label} (width·depth·convolutions)")
    panels[0].set_ylabel("PSNR, dB")
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    half = parser.add_mutually_exclusive_group()
    half.add_argument("--psnr-only", action="store_true")
    half.add_argument("--time-only", action="store_true")
    half.add_argument("--pairs", action="store_true", help="Single images, and nothing else.")
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--minutes", type=float, help="Instead of steps.")
    parser.add_argument("--context", type=int, default=0)
    parser.add_argument("--plans", type=parsed, nargs="*", help="Where not given, all candidates.")
    parser.add_argument("--out", type=Path, default=RESULTS)
    given = parser.parse_args()
    plans = given.plans or candidates()
    options = TrainingOptions(
        context_frames=given.context,
        steps=None if given.minutes else given.steps,
        seconds=60 * given.minutes if given.minutes else None,
    )
    rows = Rows(given.out / "training_pareto.json", ("plan",), context_frames=given.context)
    if given.pairs:
        measure_pairs(rows, plans, options)
    elif not given.time_only:
        measure_psnr(rows, plans, options)
    if not given.psnr_only and not given.pairs:
        measure_time(rows, plans, given.context)
    presets = {name_of(plan): presets_of(plan) for plan in PLANS.values()}
    whole = summary([row | {"presets": presets.get(row["plan"], [])} for row in rows.rows])
    if whole:
        draw(whole, given.out / "training_pareto.png")


if __name__ == "__main__":
    main()
