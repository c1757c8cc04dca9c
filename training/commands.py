"""The commands of `training`, as plain functions that return an Outcome."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_args

import typer

from ..errors import require_extra
from ..inference.bundle import Preset
from ..reporting.console import Outcome, say
from ..reporting.stack_options import StackOpener, opens_stacks
from ..storage.atomic_output import require_apart
from .errors import TrainingError
from .options import AUTO, MaskAxis, TrainingOptions
from .registry import METHODS
from .retraining.comparison_command import COMMANDS as COMPARISON
from .retraining.schedule_commands import COMMANDS as SCHEDULE

if TYPE_CHECKING:
    from .importing.imported_bundle import Import
    from .retraining.window import Window


def _method(name: str) -> str:
    if name not in (*METHODS, AUTO):
        raise typer.BadParameter(f"{name!r} is not one of {AUTO}, {', '.join(METHODS)}")
    return name


@opens_stacks
def train(
    stacks: Annotated[
        list[str], typer.Argument(help="Noisy recordings: Zarr, TIFF, NDTiff; or their URLs.")
    ],
    out: Annotated[Path, typer.Option(help="The model bundle to write (a directory).")],
    noise_model: Annotated[
        Path | None, typer.Option(help="Of the camera; without it one is estimated.")
    ] = None,
    algorithm: Annotated[
        str,
        typer.Option(
            help="How it learns; auto: by the noise of the recordings.",
            metavar="|".join((AUTO, *METHODS)),
            callback=_method,
        ),
    ] = AUTO,
    begin: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="general|BUNDLE",
            help="Begin with this model: the general one, or a bundle; default: from nothing.",
        ),
    ] = None,
    context: Annotated[int, typer.Option(help="Preceding frames that the model uses.")] = 0,
    planes: Annotated[
        int, typer.Option(help="Planes of a z-stack, on either side, that the model uses.")
    ] = 0,
    preset: Annotated[Preset, typer.Option(help="Size of the network.")] = "live",
    channel: Annotated[
        str | None,
        typer.Option(help="Name or number, if several; all: one model for each, in --out."),
    ] = None,
    other_channel: Annotated[
        list[str] | None,
        typer.Option(help="Another channel that the model also sees; may be repeated."),
    ] = None,
    companion: Annotated[list[str] | None, typer.Option(hidden=True)] = None,
    minutes: Annotated[float | None, typer.Option(help="Hard budget of time.")] = None,
    steps: Annotated[int | None, typer.Option(help="Budget of steps instead.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on after a kill.")] = False,
    seed: Annotated[int, typer.Option(help="Same seed and steps, same model.")] = 0,
    batch: Annotated[int, typer.Option(help="Patches per step.")] = 16,
    patch: Annotated[
        int | None, typer.Option(help="Edge of a patch, pixels; in steps of 16.")
    ] = None,
    learning_rate: Annotated[
        float | None, typer.Option(help="Peak; default by algorithm.")
    ] = None,
    truth: Annotated[
        list[str] | None,
        typer.Option(help="Clean frames of each recording, in its order; may be repeated."),
    ] = None,
    pairs: Annotated[
        Path | None,
        typer.Option(help="n2n: text file of frames that show the same; default: tested."),
    ] = None,
    loss: Annotated[
        str | None, typer.Option(help="n2n: l2, l1, l0 or hdr; care: laplace, plain or squared.")
    ] = None,
    mask_axis: Annotated[
        MaskAxis | None, typer.Option(help="structn2v: x or y; default: measured.")
    ] = None,
    mask_span: Annotated[
        int | None, typer.Option(help="structn2v: pixels on either side; default: measured.")
    ] = None,
    mask_kernel: Annotated[
        str | None,
        typer.Option(help="structn2v: pixels hidden together: 5x5, 010,111,010, or measured."),
    ] = None,
    samples: Annotated[int, typer.Option(help="pn2v: samples of the signal per pixel.")] = 32,
    samples_from: Annotated[
        str, typer.Option(help="pn2v: the network that samples: lattice, n2v or n2v2.")
    ] = "lattice",
    posterior_samples: Annotated[
        int, typer.Option(help="divnoising, hdn: samples that the model averages.")
    ] = 8,
    perceptual_weights: Annotated[
        Path | None, typer.Option(help="tomogan: VGG-19's weights, as torchvision has them.")
    ] = None,
    pixel_maps: Annotated[
        bool, typer.Option(help="Treat each pixel as its own where the noise model has maps.")
    ] = True,
    memory_mib: Annotated[int, typer.Option(help="Frames held in memory.")] = 1024,
    accept: Annotated[
        bool, typer.Option("--accept", help="Also a model that is no better than a blur.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace --out.")] = False,
    *,
    open_with: StackOpener,
) -> Outcome:
    """Train a denoiser on noisy recordings; clean images are needed by some methods only."""
    require_extra("train", "train")
    from .beginning import begun_from
    from .channels import train_channels
    from .display import shown

    options = TrainingOptions(
        algorithm=algorithm,
        preset=preset,
        context_frames=context,
        planes=planes,
        seconds=None if minutes is None else 60 * minutes,
        steps=steps,
        seed=seed,
        resume=resume,
        batch=batch,
        patch=patch,
        learning_rate=learning_rate,
        mask_axis=mask_axis,
        mask_span=mask_span,
        mask_kernel=mask_kernel,
        samples=samples,
        samples_from=samples_from,  # type: ignore[arg-type]
        other_channels=(*(other_channel or ()), *(companion or ())),
        pixel_maps=pixel_maps,
        loss=loss,
        perceptual_weights=None if perceptual_weights is None else str(perceptual_weights),
        posterior_samples=posterior_samples,
        memory_mib=memory_mib,
    )
    options, weights = (options, None) if begin is None else begun_from(begin, options)
    require_apart(
        out, [path for path in (noise_model, pairs, perceptual_weights) if path is not None]
    )
    with shown("training") as show:
        trained = train_channels(
            [open_with(path) for path in stacks],
            out,
            options,
            noise_model=None if noise_model is None else _noise_model(noise_model),
            channel=channel,
            truths=[open_with(path) for path in truth or ()],
            pairs=pairs,
            warm_start=weights,
            accept=accept,
            overwrite=overwrite,
            on_progress=show,
            on_remark=say,
        )
    results = {name: found.result() for name, found in trained.items()}
    lines = [line for result in results.values() for line in _train_summary(result)]
    useless = [result for result in results.values() if not result["accepted"]]
    for result in useless:
        say(_useless(result))
    if list(results) == [channel]:
        return Outcome(result=results[channel], summary=lines, failed=bool(useless))
    several = {"out": str(out), "channels": results} if results else {}
    return Outcome(result=several, summary=lines, failed=bool(useless))


def retrain(
    library: Annotated[
        list[Path],
        typer.Option(
            help="The folder of runs, with models/ in it; may be repeated, one after the other."
        ),
    ],
    once: Annotated[bool, typer.Option("--once", help="Now, and leave.")] = False,
    at: Annotated[str | None, typer.Option(help="Every day at HH:MM …")] = None,
    until: Annotated[str | None, typer.Option(help="… done by HH:MM.")] = None,
    minutes: Annotated[float | None, typer.Option(help="Budget with --once.")] = None,
    steps: Annotated[int | None, typer.Option(help="With --once: steps instead.")] = None,
    noise_model: Annotated[Path | None, typer.Option(help="With --once: of the camera.")] = None,
    channel: Annotated[
        str | None, typer.Option(help="With --once: this one alone, by name or number.")
    ] = None,
    scheduler: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS|local",
            help="With --once: a library on each worker of Dask, which has the whole budget.",
        ),
    ] = None,
    notify: Annotated[
        str | None,
        typer.Option(
            metavar="COMMAND", help="With --at: run after each night, given its record as JSON."
        ),
    ] = None,
) -> Outcome:
    """Train on the newest recordings; use the result only if it is better."""
    require_extra("train", "retrain")
    from .retraining.several import require_distinct, rounds_of
    from .retraining.window import Window

    require_distinct(library)
    window = Window.chosen(once=once, at=at, until=until)
    budget_and_camera = {
        "minutes": minutes,
        "steps": steps,
        "noise_model": noise_model,
        "channel": channel,
    }
    if window is not None:
        _only_with_once(**budget_and_camera, scheduler=scheduler)
        return _every_night(library, window, notify)
    if notify is not None:
        raise TrainingError("--notify belongs to --at and --until; leave it out with --once")
    if scheduler is not None:
        return _on_cluster(library, scheduler, budget_and_camera)
    from .display import shown
    from .retraining.giving_way import GiveWay
    from .retraining.request import Request
    from .retraining.retrain import retrain_slots

    with shown("retraining") as show:
        request = Request(
            seconds=None if minutes is None else 60 * minutes,
            steps=steps,
            noise_model=None if noise_model is None else _noise_model(noise_model),
            between_steps=GiveWay(tell=say),
            on_progress=show,
            on_remark=say,
        )
        rounds = rounds_of(library, request, channel, retrain_slots)
    if len(rounds) == 1:
        return Outcome(rounds[0].result(), rounds[0].lines())
    return Outcome(
        {"libraries": {str(one.library): one.result() for one in rounds}},
        [line for one in rounds for line in (f"{one.library}:", *one.lines())],
        failed=any(one.failure is not None for one in rounds),
    )


def _on_cluster(libraries: Sequence[Path], scheduler: str, given: Mapping[str, object]) -> Outcome:
    from .retraining.spread import rounds_on_cluster

    options = {name: value for name, value in given.items() if value is not None}
    if isinstance(noise_model := options.get("noise_model"), Path):
        options["noise_model"] = noise_model.absolute()
    arguments = [
        part
        for name, value in options.items()
        for part in (f"--{name.replace('_', '-')}", str(value))
    ]
    found = rounds_on_cluster(libraries, arguments, scheduler, say)
    words = {
        library: f"FAILED: {one['failure']}"
        if "failure" in one
        else f"{one['decision']}: {one['reason']}"
        for library, one in found.items()
    }
    return Outcome(
        {"libraries": {str(library): one for library, one in found.items()}},
        [f"{library}: {word}" for library, word in words.items()],
        failed=any("failure" in one for one in found.values()),
    )


def _only_with_once(**given: object) -> None:
    for name, value in given.items():
        if value is not None:
            option = f"--{name.replace('_', '-')}"
            raise TrainingError(
                f"{option} belongs to --once: a night shares its time among all libraries, "
                "cameras and channels; leave it out"
            )


def _every_night(libraries: list[Path], window: Window, notify: str | None) -> Outcome:
    from .retraining.overnight import run_overnight
    from .retraining.service import Night

    records = run_overnight([Night(library, window, notify) for library in libraries])
    failed = any(record.state == "failed" for record in records.values())
    if len(libraries) == 1:
        (record,) = records.values()
        return Outcome(record.model_dump(mode="json"), [record.headline()], failed=failed)
    return Outcome(
        {"libraries": {str(place): r.model_dump(mode="json") for place, r in records.items()}},
        [f"{place}: {record.headline()}" for place, record in records.items()],
        failed=failed,
    )


def bioimage(
    model: Annotated[Path, typer.Option(help="The bundle.")],
    out: Annotated[Path, typer.Option(help="The package to write (a ZIP file).")],
    author: Annotated[str, typer.Option(help="Who trained it.")],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace --out.")] = False,
) -> Outcome:
    """Write a model as a BioImage Model Zoo package, for Fiji, ilastik and CAREamics."""
    from ..inference.bundle import open_bundle
    from .output.bioimage import write_bioimage_package

    bundle = open_bundle(model)
    write_bioimage_package(bundle, out, author=author, overwrite=overwrite)
    return Outcome(
        result={"out": str(out), "model_sha256": bundle.model_sha256},
        summary=[f"{out}: BioImage Model Zoo package of {model}"],
    )


def import_model(
    package: Annotated[
        Path,
        typer.Argument(help="A BioImage.IO package (ZIP or folder), or CAREamics' .ckpt."),
    ],
    out: Annotated[Path, typer.Option(help="The model bundle to write (a directory).")],
    noise_model: Annotated[
        Path | None, typer.Option(help="Of the camera; without it the noise is not known.")
    ] = None,
    pixel_type: Annotated[
        str | None,
        typer.Option(help="Of the camera: uint8, uint16 or float32; default: as the example."),
    ] = None,
    undo_scaling: Annotated[
        bool,
        typer.Option("--undo-scaling", help="Bring estimates back to the camera's units."),
    ] = False,
    run_torchscript: Annotated[
        bool,
        typer.Option("--run-torchscript", help="Run the program of a package that you trust."),
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace --out.")] = False,
) -> Outcome:
    """Make a bundle of a model that was trained elsewhere, if it does here what it did there."""
    from ..inference.bundle import PixelType

    if pixel_type is not None and pixel_type not in get_args(PixelType):
        raise typer.BadParameter(f"{pixel_type!r} is not one of {', '.join(get_args(PixelType))}")
    require_apart(out, [path for path in (package, noise_model) if path is not None])
    if package.suffix == ".ckpt" or run_torchscript:
        require_extra("train", "import of weights")
    from .importing.imported_bundle import write_import

    noise = None if noise_model is None else _noise_model(noise_model)
    bundle = write_import(
        _read_foreign(package, run_torchscript),
        out,
        noise_model=noise,
        pixel_type=pixel_type,
        undo_scaling=undo_scaling,
        overwrite=overwrite,
        on_remark=say,
    )
    manifest = bundle.manifest
    return Outcome(
        result={
            "out": str(out),
            "model_sha256": bundle.model_sha256,
            "pixel_type": manifest.pixel_type,
            "noise_model": manifest.noise_model,
            "states_uncertainty": manifest.states_uncertainty,
            **manifest.figures,
            **manifest.training.options,
        },
        summary=[
            f"{out}: {manifest.training.options['name']}, for {manifest.pixel_type} pixels",
            "its uncertainty is "
            + ("stated" if manifest.states_uncertainty else "not known")
            + f", the camera's noise is {manifest.noise_model}",
        ],
    )


def _read_foreign(package: Path, run_torchscript: bool) -> Import:
    if package.suffix == ".ckpt":
        from .importing.from_careamics import read_checkpoint

        return read_checkpoint(package)
    from .importing.from_package import read_package

    return read_package(package, run_torchscript=run_torchscript)


def _noise_model(path: Path) -> Any:
    from ..calibration.noise_files import load_noise_model

    return load_noise_model(path)


def _useless(result: dict[str, Any]) -> str:
    return (
        f"error: {result['out']}: {result['verdict']}; the bundle is kept and marked as not to "
        "be used: train for longer or on more frames, or take it all the same with --accept"
    )


def _train_summary(result: dict[str, Any]) -> list[str]:
    loss = result["validation_loss"]
    return [
        f"{result['out']}: {result['algorithm']} model, preset {result['preset']}, "
        f"{result['context_frames']} preceding frames, "
        + (f"{result['planes']} planes on either side, " if result["planes"] else "")
        + f"{result['noise_model']} noise model"
        + (
            f", with the channels {', '.join(result['other_channels'])}"
            if result["other_channels"]
            else ""
        ),
        f"{result['steps']} steps in {result['seconds']:.0f} s, {result['parameters']} parameters"
        + ("" if loss is None else f", loss on held-out frames {loss:.4f}"),
        result["verdict"],
        *([result["noise"]] if result["noise"] else []),
        f"ONNX graph checked: differs from PyTorch by {result['parity_max_relative_error']:.1e}",
        f"{result['resident_frames']} of {result['frames']} frames in memory at a time, "
        f"{result['peak_rss_mb']:.0f} MB at most",
    ]


COMMANDS: dict[str, Callable[..., Outcome]] = {
    "train": train,
    "retrain": retrain,
    "bioimage": bioimage,
    "import": import_model,
    **SCHEDULE,
    **COMPARISON,
}
