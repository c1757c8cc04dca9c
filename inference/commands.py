"""The commands of `inference`, as plain functions that return an Outcome."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from ..reporting.console import Outcome, progress
from ..reporting.stack_options import StackOpener, opens_stacks
from ..storage.open_options import DEFAULTS
from .errors import InferenceError
from .model_choice import LibraryOption, ModelOption

if TYPE_CHECKING:
    from ..calibration.noise_model import NoiseModel
    from ..storage.stack import Stack
    from ..storage.writers.open_writer import OutputForm
    from .bundle import Bundle
    from .evaluation.evaluate import Evaluation

PIXEL_TYPES = ("uint8", "uint16", "float32")

StackArgument = Annotated[
    str, typer.Argument(help="OME-Zarr, Zarr, TIFF or NDTiff; a recorded run; or a URL of one.")
]
ProviderOption = Annotated[
    str, typer.Option(help="auto, cpu, cuda, tensorrt or directml; never falls back in silence.")
]
PrecisionOption = Annotated[str, typer.Option(help="fp32, or fp16 on a GPU.")]
ThreadsOption = Annotated[
    int | None, typer.Option(min=1, help="CPU threads; all cores by default.")
]
ImageJOption = Annotated[
    bool, typer.Option("--imagej", help="A .tif as a hyperstack for ImageJ and Fiji.")
]
PyramidOption = Annotated[
    bool, typer.Option("--pyramid", help="Add smaller resolutions to an .ome.zarr, for viewers.")
]
ForceOption = Annotated[
    bool, typer.Option(help="Use a model of another camera or setting; recorded in the result.")
]
MethodOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="A filter without training instead of a model: mean, gaussian, median, "
        "bilateral, wiener, lee, lee-sigma, wavelet, non-local-means, total-variation, bm3d.",
    ),
]
AveragedOption = Annotated[
    int, typer.Option(min=1, help="--method: filter the mean of the last so many frames.")
]
StrengthOption = Annotated[
    float | None,
    typer.Option(help="--method: without, told from a noisy frame of the channel."),
]
MethodNoiseModelOption = Annotated[
    Path | None,
    typer.Option(
        help="Of the camera (.npz), for --method and the general model; without, the noise is "
        "told from the recording."
    ),
]


@opens_stacks
def denoise(
    stack: StackArgument,
    out: Annotated[Path, typer.Option(help="What to write: an .ome.zarr, or an .ome.tif (.tif).")],
    model: ModelOption = None,
    library: LibraryOption = None,
    uncertainty: Annotated[
        Path | None, typer.Option(help="A second one for the standard deviation, ADU.")
    ] = None,
    pixel_type: Annotated[
        str, typer.Option(help="float32 as estimated, or uint16: rounded, as a camera's pixels.")
    ] = "float32",
    imagej: ImageJOption = False,
    pyramid: PyramidOption = False,
    provider: ProviderOption = "auto",
    precision: PrecisionOption = "fp32",
    threads: ThreadsOption = None,
    tile: Annotated[
        int | None,
        typer.Option(min=0, help="Edge of tiles, pixels; 0 never tiles. The result is the same."),
    ] = None,
    resume: Annotated[bool, typer.Option(help="Go on where an earlier run stopped.")] = False,
    overwrite: Annotated[bool, typer.Option(help="Replace what is at --out.")] = False,
    force: ForceOption = False,
    samples: Annotated[
        int | None,
        typer.Option(
            min=1, help="Draw so many possible pictures of each frame (divnoising, hdn)."
        ),
    ] = None,
    estimate: Annotated[
        str | None,
        typer.Option(
            help="Of --samples: mmse, their mean, or map, the most probable picture; without, "
            "the samples themselves are written."
        ),
    ] = None,
    scheduler: Annotated[
        str | None,
        typer.Option(help="Dask scheduler (tcp://…), or `local` for processes on this machine."),
    ] = None,
    method: MethodOption = None,
    frames: AveragedOption = 1,
    strength: StrengthOption = None,
    noise_model: MethodNoiseModelOption = None,
    *,
    open_with: StackOpener,
) -> Outcome:
    """Denoise a stack into an OME-Zarr or a TIFF, by a model or by a filter without training."""
    from ..storage.writers.open_writer import cut_off
    from .general.choice import Wanted, chosen_models
    from .offline.cluster import denoise_on_cluster
    from .offline.denoise_stack import denoise_stack
    from .offline.draw_samples import draw_samples

    form = output_form(pixel_type, imagej=imagej, pyramid=pyramid)
    if estimate is not None and samples is None:
        raise InferenceError(
            "--estimate is one of samples; give --samples with it, or leave it out"
        )
    if method is not None:
        _require_only_method(
            samples=samples, model=model, uncertainty=uncertainty, scheduler=scheduler
        )
        result = _denoised_by_method(
            open_with(stack),
            method,
            out,
            frames=frames,
            strength=strength,
            noise_model=noise_model,
            resume=resume,
            overwrite=overwrite,
            form=form,
        )
        strengths = (f"{name} {found}" for name, found in result["method"]["strengths"].items())
        told = [f"{method}, strength of channel {', '.join(strengths)}"]
        return _denoised(result, [*told, *cut_off(result["pixels_cut_off"], form.pixel_type)], out)
    _require_no_filter_options(frames, strength)
    run: Callable[..., dict[str, Any]] = denoise_stack
    if scheduler is not None:
        _require_plain(open_with)
        run = partial(denoise_on_cluster, scheduler=scheduler)
    opened = open_with(stack)
    wanted = Wanted.for_recording(opened, near=[out], library=library, noise_model=noise_model)
    chosen, remarks = chosen_models(model, wanted)
    if samples is not None:
        _require_only_samples(
            uncertainty=uncertainty, scheduler=scheduler, tile=tile, resume=resume or None
        )
        with _progress("drawing samples") as on_progress:
            result = draw_samples(
                opened,
                chosen,
                out,
                samples,
                estimate=estimate,  # type: ignore[arg-type]
                provider=provider,  # type: ignore[arg-type]
                threads=threads,
                overwrite=overwrite,
                force=force,
                form=form,
                on_progress=on_progress,
            )
        drawn = f"{estimate} of {samples} samples" if estimate else f"{samples} samples of each"
        return _denoised(result, [drawn, *remarks], out)
    with _progress("denoising") as on_progress:
        result = run(
            opened,
            chosen,
            out,
            provider=provider,
            precision=precision,
            threads=threads,
            tile=tile,
            resume=resume,
            overwrite=overwrite,
            force=force,
            uncertainty=uncertainty,
            form=form,
            on_progress=on_progress,
        )
    remarks += [f"forced: {remark}" for remark in result["forced"]]
    if scheduler is None:
        remarks += cut_off(result["pixels_cut_off"], form.pixel_type)
    return _denoised(result, remarks, out)


def _denoised(result: dict[str, Any], remarks: list[str], out: Path) -> Outcome:
    pace = result["ms_per_frame"]
    return Outcome(
        result,
        [
            f"{result['frames_denoised']} frames denoised on {result['device']}"
            + (f", {pace:.1f} ms per frame" if pace is not None else "")
            + (f"; {result['frames_kept']} were there already" if result["frames_kept"] else "")
            + (f"; {result['frames_absent']} never recorded" if result["frames_absent"] else ""),
            *remarks,
            str(out),
        ],
    )


@opens_stacks
def export(
    stack: StackArgument,
    out: Annotated[Path, typer.Option(help="What to write; .tif and .tiff make a TIFF.")],
    to: Annotated[
        Literal["ome-zarr", "tiff", "ndtiff"] | None,
        typer.Option(help="The format, where the name does not tell.", show_default=False),
    ] = None,
    pixel_type: Annotated[
        str | None,
        typer.Option(help="Of the pixels; as in the file if not given.", show_default=False),
    ] = None,
    imagej: ImageJOption = False,
    pyramid: PyramidOption = False,
    overwrite: Annotated[bool, typer.Option(help="Replace what is at --out.")] = False,
    *,
    open_with: StackOpener,
) -> Outcome:
    """Write a recording for another program: TIFF, OME-Zarr or NDTiff."""
    from ..storage.export_stack import export_stack
    from ..storage.writers.open_writer import cut_off, is_tiff

    if to is not None and (to == "tiff") != is_tiff(out):
        named = "ends in .tif" if is_tiff(out) else "does not end in .tif"
        raise InferenceError(f"--to {to}: {out} {named}; give the one or the other")
    opened = open_with(stack)
    form = output_form(
        pixel_type or opened.dtype.name, imagej=imagej, ndtiff=to == "ndtiff", pyramid=pyramid
    )
    with _progress("writing") as on_progress:
        result = export_stack(opened, out, form, overwrite=overwrite, on_progress=on_progress)
    lines = [f"{result['frames_written']} frames written"]
    lines += cut_off(result["pixels_cut_off"], form.pixel_type)
    return Outcome(result, [*lines, str(out)])


@opens_stacks
def evaluate(
    stack: StackArgument,
    model: Annotated[
        Path | None,
        typer.Option(
            help="The bundle to score, or `general`: the model that ships.", show_default=False
        ),
    ] = None,
    truth: Annotated[
        str | None, typer.Option(help="The true signal: one frame, or one per frame.")
    ] = None,
    static: Annotated[
        bool,
        typer.Option(help="Repeats of one scene: the mean of the others is the truth."),
    ] = False,
    figures: Annotated[
        Path | None, typer.Option(help="Folder for SSIM and root-squared-error maps.")
    ] = None,
    provider: ProviderOption = "auto",
    precision: PrecisionOption = "fp32",
    threads: ThreadsOption = None,
    force: ForceOption = False,
    method: MethodOption = None,
    frames: AveragedOption = 1,
    strength: StrengthOption = None,
    noise_model: MethodNoiseModelOption = None,
    channel: Annotated[
        str | None, typer.Option(help="--method: name or number, if there are several.")
    ] = None,
    *,
    open_with: StackOpener,
) -> Outcome:
    """Score a model, or a filter without training, on a stack whose truth is known."""
    from .evaluation.evaluate import evaluate as score
    from .evaluation.evaluate_method import evaluate_method
    from .general.choice import Wanted, one_model

    said: list[str] = []
    run: Callable[..., Evaluation]
    if model is not None and method is None:
        _require_no_filter_options(frames, strength)
        if channel is not None:
            raise InferenceError("--channel belongs to --method; a model knows its own channel")
        opened = open_with(stack)
        bundle, said = one_model(model, Wanted.for_recording(opened, noise_model=noise_model))
        run = partial(
            score,
            bundle_or_denoiser=bundle,
            provider=provider,  # type: ignore[arg-type]
            precision=precision,  # type: ignore[arg-type]
            threads=threads,
            force=force,
        )
    elif method is not None and model is None:
        opened = open_with(stack)
        run = partial(
            evaluate_method,
            method=method,
            averaged_frames=frames,
            strength=strength,
            noise_model=None if noise_model is None else _noise_model(noise_model),
            channel=channel,
        )
    else:
        raise InferenceError(
            "evaluate scores a model or a method: give either --model BUNDLE or --method NAME"
        )
    with _progress("scoring") as on_progress:
        result = run(
            opened,
            truth=None if truth is None else open_with(truth),
            static=static,
            figures=figures,
            on_progress=on_progress,
        ).result()
    return Outcome(result, [*said, *_scores(result, figures)])


def bench(
    model: Annotated[
        Path, typer.Option(help="The bundle to measure, or `general`: the model that ships.")
    ],
    shape: Annotated[str, typer.Option(help="Rows x columns, as in 2048x2048.")] = "512x512",
    frames: Annotated[int, typer.Option(min=1, help="Frames to time, after the warm-up.")] = 50,
    provider: ProviderOption = "auto",
    precision: PrecisionOption = "fp32",
    threads: ThreadsOption = None,
) -> Outcome:
    """Measure the speed of a model on this machine, beside what the machine can do."""
    from .general.choice import GENERAL
    from .general.for_camera import general_bundle, nominal_camera
    from .runtime.benchmark import bench as measure

    measured: Bundle | Path = model
    if model == GENERAL:
        measured = general_bundle(nominal_camera(), "uint16")
    with _progress("measuring") as on_progress:
        result = measure(
            measured,
            parse_shape(shape),
            frames=frames,
            provider=provider,  # type: ignore[arg-type]
            precision=precision,  # type: ignore[arg-type]
            threads=threads,
            on_progress=on_progress,
        ).result()
    latency = result["latency_ms"]
    return Outcome(
        result,
        [
            f"{result['provider']} on {result['device']}, {shape}, {precision}, "
            f"{result['frames']} frames",
            f"latency {latency['p50']:.2f} ms (p95 {latency['p95']:.2f}, p99 "
            f"{latency['p99']:.2f}, max {latency['max']:.2f}); bare session.run "
            f"{result['session_run_ms_p50']:.2f} ms",
            f"{result['throughput_fps']:.1f} frames/s, {result['gflop_per_frame']:.2f} GFLOP per "
            f"frame, {result['achieved_gflops']:.0f} GFLOP/s: {result['share_of_limit']:.0%} of "
            f"what this machine reaches at best ({result['limit_gflops']:.0f} GFLOP/s, "
            f"{result['limit_reached_by']}; a large matrix product "
            f"{result['gemm_gflops']:.0f})",
            f"peak memory {result['peak_rss_mb']:.0f} MB",
        ],
    )


COMMANDS: dict[str, Callable[..., Outcome]] = {
    "denoise": denoise,
    "export": export,
    "evaluate": evaluate,
    "bench": bench,
}


def _require_only_method(**given: object) -> None:
    """Raise InferenceError if options of a model were given beside a method."""
    if extra := [f"--{name}" for name, value in given.items() if value is not None]:
        raise InferenceError(
            f"--method has no use for {', '.join(extra)}; leave it out, or leave out --method"
        )


def _require_no_filter_options(frames: int, strength: float | None) -> None:
    if (frames, strength) != (1, None):
        raise InferenceError(
            "--frames and --strength belong to --method; name one, or leave them out"
        )


def _noise_model(path: Path) -> NoiseModel:
    from ..calibration.noise_files import load_noise_model

    return load_noise_model(path)


def _require_only_samples(**given: object) -> None:
    """Raise InferenceError if options were given that samples have no use for."""
    if extra := [f"--{name}" for name, value in given.items() if value is not None]:
        raise InferenceError(
            f"--samples has no use for {', '.join(extra)}; leave it out, or leave out --samples"
        )


def _denoised_by_method(
    stack: Stack, method: str, out: Path, *, noise_model: Path | None, **options: Any
) -> dict[str, Any]:
    from .bundle import file_sha256
    from .offline.denoise_by_method import denoise_by_method

    with _progress("denoising") as on_progress:
        return denoise_by_method(
            stack,
            method,
            out,
            noise_model=None if noise_model is None else _noise_model(noise_model),
            noise_model_sha256=None if noise_model is None else file_sha256(noise_model),
            on_progress=on_progress,
            **options,
        )


def output_form(pixel_type: str, **details: bool) -> OutputForm:
    """Return the form that the command line names; `details` as of `OutputForm`.

    Raises
    ------
    InferenceError
        If no pixels are kept as such.
    """
    from ..storage.writers.open_writer import OutputForm

    if pixel_type not in PIXEL_TYPES:
        raise InferenceError(
            f"--pixel-type is {pixel_type!r}, expected one of {', '.join(PIXEL_TYPES)}"
        )
    return OutputForm(pixel_type=pixel_type, **details)  # type: ignore[arg-type]


def parse_shape(text: str) -> tuple[int, int]:
    """Read `2048x2048` as (rows, columns)."""
    found = re.fullmatch(r"\s*(\d+)\s*[x×]\s*(\d+)\s*", text)
    if found is None or not all(int(size) for size in found.groups()):
        raise InferenceError(f"shape is {text!r}, expected rows x columns, as in 2048x2048")
    return int(found.group(1)), int(found.group(2))


def _require_plain(opener: StackOpener) -> None:
    """Refuse options that the workers of a cluster would not know: they open by path alone."""
    if opener.options != DEFAULTS:
        raise InferenceError(
            "--scheduler: its workers open the stack by its path alone; leave out --series, "
            "--axes, --pixels and --fill-nan, or denoise without --scheduler"
        )


@contextmanager
def _progress(what: str) -> Iterator[Callable[[int, int], None]]:
    with progress() as shown:
        task = shown.add_task(what, total=None, note="")
        yield lambda done, total: shown.update(task, completed=done, total=total)


def _scores(result: dict[str, Any], figures: Path | None) -> list[str]:
    from .evaluation.coverage import in_words

    lines = [
        f"PSNR {result['psnr_raw_db']:.2f} → {result['psnr_db']:.2f} dB, SSIM "
        f"{result['ssim_raw']:.3f} → {result['ssim']:.3f}, NRMSE {result['nrmse']:.4f} "
        f"({result['frames']} frames, {result['ms_per_frame']:.1f} ms each)"
    ]
    for key, text in (
        ("variance_ratio", "variance removed / camera noise (1 = exactly the noise)"),
        ("residual_correlation", "correlation of neighbouring residuals (0 = white noise)"),
        ("uncertainty_z_std", "error / stated uncertainty (1 = honest)"),
    ):
        if result[key] is not None:
            lines.append(f"{text}: {result[key]:.3f}")
    if by := result.get("uncertainty_z_by"):
        words = ", ".join(f"{name.replace('_', ' ')} {value:.2f}" for name, value in by.items())
        lines.append(f"the same by the truth: {words}")
    if (coverage := result["uncertainty_coverage"]) is not None:
        lines.append(in_words(coverage))
    if (judged := result.get("verdict")) is not None:
        unknown = judged["frames_unknown"]
        lines.append(
            f"judged without the truth: {judged['frames_green']} of {judged['frames']} frames are "
            "green"
            + (f", of {unknown} nothing is known" if unknown else "")
            + (f". {judged['sentence']}" if judged["sentence"] else "")
        )
    if (method := result.get("method")) is not None:
        lines.append(
            f"{method['name']} of the mean of {method['frames']} frames"
            if method["frames"] > 1
            else f"{method['name']} of single frames"
        )
        lines[-1] += f", strength {method['strength']:g}"
    lines += [*_beside_trivial(result), *result["remarks"]]
    if figures is not None:
        lines.append(f"maps: {figures}")
    return lines


def _beside_trivial(result: dict[str, Any]) -> list[str]:
    """Say what a blur reaches, and whether the model is worth more."""
    if (gain := result["gain_over_trivial_db"]) is None:
        return []
    lines = [
        f"without a model: {result['psnr_gaussian_db']:.2f} dB by a Gaussian blur of the frame "
        f"(σ {result['gaussian_sigma_px']:g} px)"
    ]
    if (mean := result["psnr_running_mean_db"]) is not None:
        lines[0] += (
            f", {mean:.2f} dB by the mean of the frames that the model is given, blurred "
            f"(σ {result['running_mean_sigma_px']:g} px)"
        )
    method = result.get("method")
    what = "the model" if method is None else method["name"]
    if gain > 0:
        lines.append(f"{what} is {gain:.2f} dB better than the best of these")
    elif method is not None:
        lines.append(f"{what} is no better than the best of these ({gain:.2f} dB)")
    else:
        lines.append(
            f"the model is no better than the best of these ({gain:.2f} dB); train longer, on "
            "more frames or with a calibrated noise model, or take the blur"
        )
    return lines
