"""What the general model reaches without any training, beside filters that need none either.

It ships with the program and was trained on generated scenes alone; nothing here was among them.
It is run as a user runs it: a bundle made for the noise model that is bootstrapped from the very
recording (nandb: the stack; FMD: the four repeats; single images: the image). repeats: FMD again,
with the line through the variance of the four repeats, as a calibration would have it.

    python benchmarks/training_general.py [--parts nandb fmd repeats pairs unseen time]

nandb: photon counts, 50 repeats, truth the mean of the frames that are no inputs: one frame, four
preceding frames, and the sum of seven (photon counts as well), on the frames of `training_nandb`
(the stored rows of models trained there stand beside) and on those of `inference_classical` (whose
filters do). FMD: twelve scenes, the first of four noisy images, truth the average of 50. pairs:
w2s and FISH, one noisy image each, scored after the best affine fit.
unseen: what training never showed (text, a resolution target) and empty fields, eight draws each:
is what was removed white, is the bias below the stated uncertainty? time: one frame of 512²,
beside a `live` model, in turn.

Filters: `inference.classical` with the exact unbiased inverse, strengths chosen without truth.
Non-local means take seconds a frame: they see the middle 256² of an image, and so does the general
model in the rows of the same name. `--only filters` measures the filters alone, and leaves
out what is stored already; `--only general` the model.

The data are found through the environment variable QUIETSCOPE_DATA.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import cache
from itertools import product
from pathlib import Path

import numpy as np
from scipy.ndimage import gaussian_filter
from skimage.io import imread
from training_pairs import pairs
from training_rows import DATA, RESULTS, Example, Image, Rows, affine_fitted, nandb, repeats

from quietscope.calibration.bootstrap import bootstrap_noise_model
from quietscope.calibration.gaussian_mixture import GaussianMixtureNoiseModel
from quietscope.calibration.straight_line import Interval
from quietscope.inference.classical.denoiser import ClassicalDenoiser
from quietscope.inference.evaluation.metrics import psnr_db
from quietscope.inference.general.for_camera import general_bundle, nominal_camera
from quietscope.inference.general.shipped import read_shipped
from quietscope.inference.runtime.onnx_denoiser import OnnxDenoiser
from quietscope.storage.stack import stack_from_array

FRAMES = range(7, 50, 6)
"""Those of `training_nandb.py`."""
CLASSICAL = ", frames of inference_classical"
CLASSICAL_FRAMES = (19, 35)
FAST, SLOW = ("gaussian", "total-variation"), ("non-local-means",)
FILTERS = (*FAST, *SLOW)
KEPT = Path(tempfile.gettempdir()) / "quietscope-benchmark-general"
LIVE = Path(__file__).parents[1] / "tests" / "data" / "written_before" / "bundle"
DRAWS = 8
EDGE = 192


class General:
    """The general model of one camera; counts its time."""

    def __init__(self, noise_model: GaussianMixtureNoiseModel, example: Image, context: int = 0):
        bundle = general_bundle(
            noise_model,
            example.dtype.name,
            context_frames=4 if context else 0,
            with_maps=False,
            kept_in=KEPT,
        )
        self._context = bundle.manifest.context_frames
        self._denoiser = OnnxDenoiser(bundle, example.shape[-2:], provider="cpu", threads=1)

    def __call__(self, observations: Image) -> tuple[Image, Image, float]:
        """Return estimate, deviation and milliseconds for (1 + T, Y, X)."""
        whole = np.zeros((1 + self._context, *observations.shape[1:]), observations.dtype)
        whole[: len(observations)] = observations
        out = np.empty((2, *observations.shape[1:]), np.float32)
        began = time.perf_counter()
        self._denoiser.denoise(whole, out)
        return out[0].astype(float), out[1].astype(float), 1e3 * (time.perf_counter() - began)


def filtered(
    method: str, noise_model: GaussianMixtureNoiseModel, observations: Image
) -> tuple[Image, float | None]:
    """Return the estimate of a filter for (1, Y, X), and milliseconds without its choice."""
    denoiser = ClassicalDenoiser(method, observations.shape[-2:], noise_model=noise_model)
    out = np.empty((2, *observations.shape[1:]), np.float32)
    denoiser.denoise(observations, out)
    began = time.perf_counter()
    if method not in SLOW:
        denoiser.denoise(observations, out)
    seconds = time.perf_counter() - began
    return out[0].astype(float), None if method in SLOW else 1e3 * seconds


def nandb_rows(rows: Rows, only: str | None) -> None:
    kinds = (("one frame", 0), ("4 preceding", 4), ("sum of 7", 6))
    if only != "general":
        _stored_rows(rows)
        for data, context in kinds:
            examples = repeats(nandb(), FRAMES, context)
            figures = {sigma: _blurred_means(examples, sigma) for sigma in (0.6, 0.8, 1.0, 1.2)}
            best = max(figures, key=lambda sigma: figures[sigma])
            rows.add(
                {
                    "data": f"nandb, {data}",
                    "method": "gaussian of the mean, σ chosen by the truth",
                    "psnr_db": figures[best],
                    "sigma_px": best,
                }
            )
    if only != "filters":
        for (data, context), (frames, which) in product(
            kinds, ((FRAMES, ""), (CLASSICAL_FRAMES, CLASSICAL))
        ):
            found = _nandb(data, context, frames)
            rows.add({"data": f"nandb, {data}{which}", "method": "general", **found})


def _stored_rows(rows: Rows) -> None:
    """Take over what other benchmarks measured on the same frames."""
    file = RESULTS / "inference_classical.json"
    methods = json.loads(file.read_text(encoding="utf-8"))["methods"]
    for method, frames in product((*FILTERS, "bm3d"), (1, 7)):
        rows.add(
            {
                "data": f"nandb, {'one frame' if frames == 1 else 'sum of 7'}{CLASSICAL}",
                "method": method,
                "psnr_db": methods[f"{method}, frames {frames}"]["psnr_db"],
                "from": file.name,
            }
        )
    file = RESULTS / "training_nandb.json"
    for row in json.loads(file.read_text(encoding="utf-8"))["rows"]:
        data = "sum of 7" if row["method"] == "context" else "one frame"
        if row["method"] in ("n2v", "lattice", "context", "supervised U-Net"):
            name = f"{row['method']}, trained on these stacks"
            figure = row["psnr_db"]
            rows.add(
                {"data": f"nandb, {data}", "method": name, "psnr_db": figure, "from": file.name}
            )


def _blurred_means(examples: Sequence[Example], sigma: float) -> float:
    """Return the PSNR of the mean of an example's frames, blurred."""
    return float(
        np.mean(
            [
                one.psnr_db(gaussian_filter(one.observations.astype(float).mean(axis=0), sigma))
                for one in examples
            ]
        )
    )


@cache
def _nandb_noise(number: int, scale: int) -> GaussianMixtureNoiseModel:
    """Return the noise model of one stack, or of sums of its frames."""
    stack = nandb()[number]
    if scale == 1:
        return bootstrap_noise_model([stack])
    counts = stack.frames(range(scale * (len(stack) // scale))).astype(np.uint16)
    sums = counts.reshape(-1, scale, *counts.shape[1:]).sum(axis=1, dtype=np.uint16)
    return bootstrap_noise_model([stack_from_array(sums)])


def _nandb(data: str, context: int, frames: Iterable[int]) -> dict[str, float]:
    """Return the figures of the general model on all stacks."""
    psnr, squared, taken = [], [], []
    scale = 7 if data == "sum of 7" else 1
    for number, stack in enumerate(nandb()):
        noise_model = _nandb_noise(number, scale)
        general = None
        for one in repeats([stack], frames, context):
            seen = one.observations
            if scale > 1:
                seen = seen.sum(axis=0, keepdims=True, dtype=np.uint16)
            general = general or General(noise_model, seen, 0 if scale > 1 else context)
            mean, deviation, ms = general(seen)
            mean, deviation = mean / scale, deviation / scale
            psnr.append(one.psnr_db(mean))
            variance = deviation**2 + one.truth_variance
            squared.append(float(np.mean((mean - one.truth) ** 2 / variance)))
            taken.append(ms)
    return {
        "psnr_db": float(np.mean(psnr)),
        "z": float(np.sqrt(np.mean(squared))),
        "ms_per_frame": float(np.median(taken)),
    }


def fmd_rows(rows: Rows, only: str | None) -> None:
    for path in sorted((DATA / "fmd_testset" / "gt").glob("*_1.png")):
        scene = path.stem.removesuffix("_1")
        truth = imread(path).astype(float)
        noisy = np.stack(
            [imread(DATA / "fmd_testset" / "raw" / f"{scene}_{n}.png") for n in (1, 2, 3, 4)]
        )
        _image_rows(rows, f"FMD {scene}", noisy, truth, psnr_db, only)


def repeat_rows(rows: Rows) -> None:
    """Score the model on FMD with the noise that the four repeats show, pixel by pixel."""
    for path in sorted((DATA / "fmd_testset" / "gt").glob("*_1.png")):
        scene = path.stem.removesuffix("_1")
        truth = imread(path).astype(float)
        folder = DATA / "fmd_testset" / "raw"
        noisy = np.stack([imread(folder / f"{scene}_{n}.png") for n in (1, 2, 3, 4)])
        noise_model = _line_through(noisy.astype(float))
        mean, deviation, ms = General(noise_model, noisy[:1])(noisy[:1])
        rows.add(
            {
                "data": f"FMD {scene}",
                "method": "general, noise from the repeats",
                "psnr_db": psnr_db(mean, truth),
                "z": float(np.sqrt(np.mean(((mean - truth) / deviation) ** 2))),
                "gain": noise_model.photon_transfer.gain_adu_per_e,
                "ms": ms,
            }
        )


def _line_through(repeats_of_one: Image) -> GaussianMixtureNoiseModel:
    """Return the line through the variance of each brightness, saturated and empty pixels out."""
    level = repeats_of_one.mean(axis=0).ravel()
    variance = repeats_of_one.var(axis=0, ddof=1).ravel()
    sound = ((repeats_of_one > 0) & (repeats_of_one < 255)).all(axis=0).ravel()
    order = np.argsort(level[sound])
    bins = [
        (level[sound][part].mean(), variance[sound][part].mean())
        for part in np.array_split(order, 40)
    ]
    x, y = np.array(bins[:-1]).T
    slope, intercept = np.polyfit(x, y, 1, w=1 / y)
    slope = max(float(slope), 1e-3)
    dark = max(float(intercept + slope * x[0]), 0.1)
    law = replace(
        nominal_camera().photon_transfer,
        gain=Interval(slope, slope, slope),
        offset=None,
        intercept_adu2=float(intercept),
        dark_variance_adu2=dark,
        saturation_adu=255.0,
    )
    signal = np.array([x[0], 255.0])
    return replace(
        nominal_camera(),
        photon_transfer=law,
        signal_adu=signal,
        variance_adu2=np.maximum(intercept + slope * signal, dark),
    )


def pair_rows(rows: Rows, only: str | None) -> None:
    for name, (noisy, truth) in pairs().items():
        _image_rows(rows, name, noisy[None], truth.astype(float), _after_fit, only)


def _after_fit(estimate: Image, truth: Image) -> float:
    return psnr_db(affine_fitted(estimate, truth), truth)


def _image_rows(
    rows: Rows,
    name: str,
    noisy: Image,
    truth: Image,
    score: Callable[[Image, Image], float],
    only: str | None,
) -> None:
    """Score the first of some noisy images, whose noise is told from all of them."""
    wanted = {(name, method) for method in FAST} | {(f"{name}, middle", m) for m in SLOW}
    stored = {(row["data"], row["method"]) for row in rows.rows}
    if only == "filters" and wanted <= stored:
        return
    noise_model = bootstrap_noise_model([stack_from_array(noisy)])
    middle = tuple(slice((edge - 256) // 2, (edge + 256) // 2) for edge in truth.shape)
    pieces = {name: (noisy[:1], truth), f"{name}, middle": (noisy[:1, *middle], truth[middle])}
    for data, (seen, true) in pieces.items():
        if only != "general":
            rows.add(
                {
                    "data": data,
                    "method": "as recorded",
                    "psnr_db": score(seen[0].astype(float), true),
                    "bootstrapped_gain": noise_model.photon_transfer.gain_adu_per_e,
                }
            )
            for method in SLOW if data.endswith("middle") else FAST:
                if (data, method) not in stored:
                    estimate, ms = filtered(method, noise_model, seen)
                    figure = score(estimate, true)
                    rows.add({"data": data, "method": method, "psnr_db": figure, "ms": ms})
        if only != "filters":
            mean, deviation, ms = General(noise_model, seen)(seen)
            z = float(np.sqrt(np.mean(((mean - true) / deviation) ** 2)))
            rows.add(
                {
                    "data": data,
                    "method": "general",
                    "psnr_db": score(mean, true),
                    "z": z if score is psnr_db else None,
                    "ms": ms,
                }
            )


def unseen_scenes() -> dict[str, Image]:
    """Return scenes of no kind that training showed, (EDGE, EDGE), 0 to 1, and empty ones."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(EDGE / 96, EDGE / 96), dpi=96)
    for number, line in enumerate(("QUIET", "scope 3.14", "the quick", "brown fox", "jumps over")):
        figure.text(0.03, 0.84 - 0.19 * number, line, fontsize=22 - 3 * number, color="white")
    figure.set_facecolor("black")
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    text = np.asarray(canvas.buffer_rgba())[..., 0].astype(float) / 255
    y, x = np.mgrid[:EDGE, :EDGE] - EDGE / 2
    spokes = 0.5 + 0.5 * np.sign(np.sin(18 * np.arctan2(y, x)))
    target = np.where(np.hypot(y, x) < 0.48 * EDGE, spokes, 0.0)
    return {"text": text, "resolution target": target, "empty": np.zeros((EDGE, EDGE))}


def unseen_rows(rows: Rows, picture: Path) -> None:
    rng = np.random.default_rng(0)
    camera = nominal_camera()
    shown = []
    for name, scene in unseen_scenes().items():
        for peak in (10.0, 60.0):
            truth = 100 + 3 + peak * scene
            draws = [
                np.rint(100 + rng.poisson(truth - 100) + 1.5 * rng.standard_normal(truth.shape))
                .clip(0)
                .astype(np.uint16)
                for _ in range(DRAWS)
            ]
            general = General(camera, draws[0][None])
            answers = [general(seen[None])[:2] for seen in draws]
            means = np.stack([mean for mean, _ in answers])
            stated = np.sqrt(np.mean([deviation**2 for _, deviation in answers], axis=0))
            bias = means.mean(axis=0) - truth
            chance = means.var(axis=0, ddof=1) / DRAWS
            residual = np.stack(draws) - means
            blurred, _ = filtered("gaussian", camera, draws[0][None])
            rows.add(
                {
                    "data": f"unseen: {name}, {peak:g} photons",
                    "method": "general",
                    "psnr_db": float(np.mean([psnr_db(m, truth) for m in means]))
                    if np.ptp(truth)
                    else None,
                    "psnr_gaussian_db": psnr_db(blurred, truth) if np.ptp(truth) else None,
                    "bias_rms": float(np.sqrt(max(0.0, np.mean(bias**2 - chance)))),
                    "stated_rms": float(np.sqrt(np.mean(stated**2))),
                    "bias_beyond_2_stated": float(np.mean(np.abs(bias) > 2 * stated)),
                    "z": float(np.sqrt(np.mean((means - truth) ** 2 / stated**2))),
                    "residual_correlation": _lag_one(residual),
                    "residual_correlation_of_noise": _lag_one(np.stack(draws) - truth),
                }
            )
            shown.append((f"{name}, {peak:g} photons", truth, draws[0], means[0], bias, stated))
    _draw(shown, picture)


def _lag_one(residual: Image) -> float:
    centred = residual - residual.mean(axis=(1, 2), keepdims=True)
    across = (centred[:, :, 1:] * centred[:, :, :-1]).mean()
    down = (centred[:, 1:] * centred[:, :-1]).mean()
    return float((across + down) / 2 / (centred**2).mean())


def _draw(shown: Sequence[tuple[str, Image, Image, Image, Image, Image]], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 1.85 * len(shown)), layout="constrained")
    axes = figure.subplots(len(shown), 5, squeeze=False)
    names = ("truth", "one frame", "general model", "bias of 8 draws", "stated deviation")
    for row, (name, truth, *images) in zip(axes, shown, strict=True):
        top = max(float(truth.max()), 110.0)
        limits = [(100, top)] * 3 + [(-5, 5), (0, 5)]
        for place, (axis, image) in enumerate(zip(row, (truth, *images), strict=True)):
            low, high = limits[place]
            kind = "RdBu_r" if place == 3 else "gray"
            axis.imshow(image, cmap=kind, vmin=low, vmax=high, interpolation="nearest")
            axis.set_xticks([])
            axis.set_yticks([])
            if name is shown[0][0]:
                axis.set_title(names[place], fontsize=9)
        row[0].set_ylabel(name, fontsize=8)
    figure.savefig(path, dpi=80)


def time_rows(rows: Rows) -> None:
    from quietscope.inference.bundle import open_bundle

    bundles = {
        "general, one frame": general_bundle(
            nominal_camera(), "uint16", context_frames=0, kept_in=KEPT
        ),
        "general, 4 preceding": general_bundle(nominal_camera(), "uint16", kept_in=KEPT),
        "live (lattice), two further frames": open_bundle(LIVE),
    }
    taken: dict[str, list[float]] = {name: [] for name in bundles}
    rng = np.random.default_rng(0)
    opened, seen = {}, {}
    for name, bundle in bundles.items():
        opened[name] = OnnxDenoiser(bundle, (512, 512), provider="cpu", threads=1)
        shape = (1 + bundle.further_frames, 512, 512)
        seen[name] = (100 + rng.poisson(20, shape)).astype(bundle.manifest.pixel_type)
    out = np.empty((2, 512, 512), np.float32)
    for _ in range(30):  # in turn: whatever else the machine does hits all of them
        for name, denoiser in opened.items():
            began = time.process_time()
            denoiser.denoise(seen[name], out)
            taken[name].append(1e3 * (time.process_time() - began))
    for name, times in taken.items():
        rows.add({"data": "512², one core", "method": name, "cpu_ms": float(np.median(times))})


def main() -> None:
    parts = ("nandb", "fmd", "repeats", "pairs", "unseen", "time")
    asked = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    asked.add_argument("--parts", nargs="+", choices=parts, default=parts)
    asked.add_argument("--only", choices=("general", "filters"))
    asked.add_argument("--out", type=Path, default=RESULTS)
    chosen = asked.parse_args()
    shipped = read_shipped()
    rows = Rows(
        chosen.out / "training_general.json",
        ("data", "method"),
        general_sha256=shipped.identity,
        steps=shipped.steps,
    )
    if "nandb" in chosen.parts:
        nandb_rows(rows, chosen.only)
    if "fmd" in chosen.parts:
        fmd_rows(rows, chosen.only)
    if "pairs" in chosen.parts:
        pair_rows(rows, chosen.only)
    if chosen.only == "filters":
        return
    if "repeats" in chosen.parts:
        repeat_rows(rows)
    if "unseen" in chosen.parts:
        unseen_rows(rows, chosen.out / "training_general_unseen.png")
    if "time" in chosen.parts:
        time_rows(rows)


if __name__ == "__main__":
    main()
