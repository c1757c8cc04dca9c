"""The model is retrained on what was recorded, and replaced only by a better one.

Owns one round of retraining: choose recordings, train a candidate, compare it with the model in
use, promote or keep. When rounds happen is decided in `overnight`; the pointer itself belongs to
`inference.library`.

Models are compared on held-out frames without clean images. Each frame's noise is split in two
(see `splitting`): the model denoises one part and is scored against the other, whose noise it
never saw. The score is an unbiased estimate of the true squared error up to a constant that is the
same for every model, whatever its algorithm, and it includes the posterior step.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from ...calibration.gaussian_mixture import GaussianMixtureNoiseModel
from ...calibration.noise_files import load_noise_model
from ...errors import QuietscopeError
from ...inference.bundle import Bundle, open_bundle
from ...inference.errors import FrameMismatchError
from ...inference.evaluation.noise_splitting import counts_photons, split, squared_error
from ...inference.library import Decision as DecisionName
from ...inference.library import Library
from ...inference.observation_reader import ObservationReader
from ...inference.provenance import recorded_camera
from ...inference.runtime.camera_pixels import CameraPixels
from ...inference.runtime.onnx_denoiser import OnnxDenoiser
from ...inference.side_inputs import other_channel_numbers
from ...storage.directory_lock import owned
from ...storage.open_stack import open_stack
from ...storage.stack import Stack
from ..checkpoint import load_checkpoint
from ..data.resident_frames import held_out_indices
from ..data.side_inputs import channel_number, one_channel, other_channels_of
from ..options import TrainingOptions
from ..progress import TrainingProgress
from ..run import TrainingResult, in_one_process
from ..train import train

NEWEST_RUNS = 8
FEWEST_FRAMES = 8
HELD_OUT_FRAMES = 16
LEAST_GAIN = 0.002
"""Relative gain of the candidate that is worth a change: 0.2 % of the error, and beyond chance."""
NETWORK_OPTIONS = ("algorithm", "preset", "context_frames", "samples", "samples_from")
"""On which the shape of the weights depends."""
KEPT_OPTIONS = ("pixel_maps", "samples", "samples_from")
"""Of the model in use, besides those that its manifest names."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What became of one round."""

    decision: DecisionName
    reason: str
    candidate: Path | None
    current: Path | None
    figures: dict[str, float | None]

    def result(self) -> dict[str, Any]:
        """Return the JSON object of the `retrain` command."""
        return {
            "decision": self.decision,
            "reason": self.reason,
            "candidate": None if self.candidate is None else str(self.candidate),
            "current": None if self.current is None else str(self.current),
            "figures": self.figures,
        }


def retrain_once(
    library: Path,
    *,
    seconds: float | None = None,
    steps: int | None = None,
    options: TrainingOptions | None = None,
    noise_model: GaussianMixtureNoiseModel | None = None,
    channel: str | None = None,
    on_progress: Callable[[TrainingProgress], None] | None = None,
    on_remark: Callable[[str], None] | None = None,
) -> Decision:
    """Train a candidate on the library's newest runs and promote it if it is better.

    Parameters
    ----------
    library
        The directory of runs and models.
    seconds, steps
        The budget of the candidate's training; exactly one, or neither for the default.
    options
        Further choices; None takes those of the model in use, or the defaults.
    noise_model
        Of the camera; None takes the calibrated one of the model in use, or bootstraps one.
    channel
        Where runs hold several; None takes that of the model in use.
    on_progress, on_remark
        As in `train`.

    Raises
    ------
    QuietscopeError
        If the library is none, another program retrains it, or the model in use is damaged. What
        was in use stays in use.
    """
    shelf = Library(Path(library))
    shelf.runs()  # what is no library is refused before a lock is put there
    with owned(shelf.models_dir):
        return _one_round(
            shelf, options, seconds, steps, noise_model, channel, on_progress, on_remark
        )


def _one_round(
    shelf: Library,
    options: TrainingOptions | None,
    seconds: float | None,
    steps: int | None,
    noise_model: GaussianMixtureNoiseModel | None,
    channel: str | None,
    on_progress: Callable[[TrainingProgress], None] | None,
    on_remark: Callable[[str], None] | None,
) -> Decision:
    current_path = shelf.current()
    current = None if current_path is None else open_bundle(current_path)
    channel = channel or (current.manifest.channel if current else None)
    options = _options(options, current, seconds, steps)
    stacks = newest_stacks(shelf, channel, options.other_channels)
    reason = _nothing_new([one_channel(stack, channel) for stack in stacks], current)
    if not stacks and options.other_channels and newest_stacks(shelf, channel):
        reason = f"no run can be read that holds the channels {', '.join(options.other_channels)}"
    if reason is not None:
        shelf.keep(None, reason, decision="skipped")
        return Decision("skipped", reason, None, current_path, {})
    candidate = in_one_process(
        train(
            stacks,
            _new_name(shelf),
            options,
            noise_model=noise_model or _calibrated(current),
            channel=channel,
            warm_start=_warm_start(current, options),
            on_progress=on_progress,
            on_remark=on_remark,
        )
    )
    return _decide(shelf, candidate, current, stacks, channel, options.seed)


def newest_stacks(
    shelf: Library, channel: str | None, other_channels: Sequence[str] = ()
) -> list[Stack]:
    """Return the newest runs that belong together: the camera's region, shape and type are one.

    They are those of the newest of all. The runs are whole; each has the channel and the
    other channels.
    """
    stacks: list[Stack] = []
    for run in shelf.runs():
        if len(stacks) == NEWEST_RUNS:
            break
        try:
            whole = open_stack(run)
            stack = one_channel(whole, channel)
            other_channels_of(whole, channel, other_channels)
            alike = not stacks or _setting(whole) == _setting(stacks[0])
        except QuietscopeError:
            continue  # an unreadable or unfinished run must not stop the night
        enough = len(stack) - stack.absent >= FEWEST_FRAMES
        if alike and enough and stack.sizes.get("channel", 1) == 1:
            stacks.append(whole)
    return stacks


def _setting(stack: Stack) -> tuple[object, ...]:
    return stack.frame_shape, stack.dtype, recorded_camera(stack).roi


def _nothing_new(stacks: Sequence[Stack], current: Bundle | None) -> str | None:
    if not stacks:
        return f"no run with at least {FEWEST_FRAMES} frames that can be read"
    if current is None:
        return None
    known = {
        (part.path, part.recorded_frames or part.frames)
        for part in current.manifest.training.stacks
    }
    if all((str(stack.path), len(stack) - stack.absent) in known for stack in stacks):
        return "no run was recorded since the model in use was trained"
    return None


def _options(
    options: TrainingOptions | None,
    current: Bundle | None,
    seconds: float | None,
    steps: int | None,
) -> TrainingOptions:
    if options is None:
        options = TrainingOptions()
        if current is not None:
            manifest = current.manifest
            recorded: dict[str, Any] = dict(manifest.training.options)
            options = replace(
                options,
                **{name: recorded[name] for name in KEPT_OPTIONS if name in recorded},
                algorithm=manifest.algorithm,
                preset=manifest.preset,
                context_frames=manifest.context_frames,
                other_channels=manifest.other_channels,
            )
    if seconds is not None or steps is not None:
        options = replace(options, seconds=seconds, steps=steps)
    return options


def _new_name(shelf: Library) -> Path:
    stem = datetime.now().astimezone().strftime("%Y%m%d-%H%M%S")
    names = (stem, *(f"{stem}-{number}" for number in range(2, 100)))
    return next(path for name in names if not (path := shelf.models_dir / name).exists())


def _calibrated(current: Bundle | None) -> GaussianMixtureNoiseModel | None:
    if current is None or current.manifest.noise_model != "calibrated":
        return None
    return load_noise_model(current.noise_model_path)


def _warm_start(current: Bundle | None, options: TrainingOptions) -> dict[str, Tensor] | None:
    """Return the weights of the model in use, if the candidate's network is the same."""
    if current is None or current.checkpoint_path is None:
        return None
    saved = load_checkpoint(current.checkpoint_path)
    wanted = options.record()
    same = all(saved["options"].get(name) == wanted[name] for name in NETWORK_OPTIONS)
    same = same and saved["options"]["other_channels"] == wanted["other_channels"]
    weights: dict[str, Tensor] | None = saved["network"] if same else None
    return weights


def _decide(
    shelf: Library,
    result: TrainingResult,
    current: Bundle | None,
    stacks: Sequence[Stack],
    channel: str | None,
    seed: int,
) -> Decision:
    candidate = result.bundle
    if current is None:
        reason = "no model was in use yet"
        shelf.promote(candidate.path, reason)
        return Decision("promoted", reason, candidate.path, candidate.path, {})
    refused = _cannot_compare(candidate, current)
    try:
        figures = (
            {} if refused else compare(candidate, current, stacks, channel=channel, seed=seed)
        )
    except FrameMismatchError as error:
        # A night's training is not thrown away because the camera's region was changed.
        refused = f"cannot be compared with the model in use: {error}"
    if refused is not None:
        shelf.keep(candidate.path, refused)
        return Decision("kept", refused, candidate.path, current.path, {})
    reason = (
        f"squared error on held-out frames {figures['candidate_mse_adu2']:.4g} ADU², model in use "
        f"{figures['current_mse_adu2']:.4g} ADU² ({figures['gain_db']:+.2f} dB)"
    )
    if figures["gain_adu2"] > figures["least_gain_adu2"]:
        shelf.promote(candidate.path, reason, figures)
        return Decision("promoted", reason, candidate.path, candidate.path, dict(figures))
    shelf.keep(candidate.path, reason, figures)
    return Decision("kept", reason, candidate.path, current.path, dict(figures))


def _cannot_compare(candidate: Bundle, current: Bundle) -> str | None:
    ours, theirs = candidate.manifest.pixel_type, current.manifest.pixel_type
    if ours != theirs:
        return (
            f"the newest runs are {ours}, the model in use takes {theirs}: they cannot be "
            "compared; promote the candidate by hand if the camera was changed on purpose"
        )
    return None


def compare(
    candidate: Bundle,
    current: Bundle,
    stacks: Sequence[Stack],
    *,
    channel: str | None = None,
    seed: int = 0,
) -> dict[str, float]:
    """Score two bundles on the same split noise of held-out frames of a channel.

    Returns
    -------
    dict
        `candidate_mse_adu2`, `current_mse_adu2`: estimated squared error per pixel.
        `gain_adu2`: by how much the candidate's is lower; `least_gain_adu2`: what is asked of it,
        two standard errors and LEAST_GAIN of the present error. `gain_db`, `frames`.
    """
    noise_model = load_noise_model(candidate.noise_model_path)
    region = recorded_camera(stacks[0]).roi
    with (
        OnnxDenoiser(candidate, stacks[0].frame_shape, provider="cpu", region=region) as ours,
        OnnxDenoiser(current, stacks[0].frame_shape, provider="cpu", region=region) as theirs,
    ):
        scored = _errors(stacks, channel, noise_model, (ours, theirs), np.random.default_rng(seed))
        errors = np.array(list(scored))
    gains = errors[:, 1] - errors[:, 0]
    candidate_mse, current_mse = errors.mean(axis=0)
    standard_error = float(gains.std(ddof=1) / np.sqrt(len(gains)))
    return {
        "candidate_mse_adu2": float(candidate_mse),
        "current_mse_adu2": float(current_mse),
        "gain_adu2": float(gains.mean()),
        "least_gain_adu2": max(2 * standard_error, LEAST_GAIN * abs(float(current_mse))),
        # An estimate of a small error can fall below zero by chance.
        "gain_db": float(10 * np.log10(max(current_mse, 1e-9) / max(candidate_mse, 1e-9))),
        "frames": float(len(gains)),
    }


def _errors(
    stacks: Sequence[Stack],
    channel: str | None,
    noise_model: GaussianMixtureNoiseModel,
    denoisers: Sequence[OnnxDenoiser],
    rng: np.random.Generator,
) -> Iterator[list[float]]:
    """Yield the squared error of each denoiser on one split frame after the other."""
    manifests = [denoiser.bundle.manifest for denoiser in denoisers]
    context = max(manifest.context_frames for manifest in manifests)
    other_channels = list(dict.fromkeys(name for m in manifests for name in m.other_channels))
    inputs = [
        [
            *range(1 + m.context_frames),
            *(1 + context + other_channels.index(c) for c in m.other_channels),
        ]
        for m in manifests
    ]
    # If one of them knows the pixels of the camera, both are measured by sound pixels.
    pixels = next(
        (known for d in denoisers if (known := CameraPixels.of(d, noise_model)).maps is not None),
        CameraPixels(),
    )
    out = np.empty((2, *stacks[0].frame_shape), dtype=np.float32)
    for whole, index in _chosen(stacks, channel):
        numbers = other_channel_numbers(whole, other_channels, what="the model")
        observations = ObservationReader(whole, whole.dtype).read(index, context, numbers)
        signal = np.zeros(whole.frame_shape)
        for denoiser, planes in zip(denoisers, inputs, strict=True):
            denoiser.denoise(observations[planes], out)
            signal += out[0] / len(denoisers)
        part = split(
            observations,
            np.maximum(noise_model.variance(signal) + pixels.own_variance_adu2(), 1e-3),
            rng,
            photon_counts=counts_photons(noise_model, float(signal.mean())),
        )
        part = replace(part, compared=pixels.corrected(part.compared))
        yield [
            squared_error(denoiser, replace(part, seen=part.seen[planes]))
            for denoiser, planes in zip(denoisers, inputs, strict=True)
        ]


def _chosen(stacks: Sequence[Stack], channel: str | None) -> list[tuple[Stack, int]]:
    """Return held-out frames of a channel, evenly spread, as recordings and indices into them."""
    places = []
    for whole in stacks:
        own = one_channel(whole, channel)
        named = channel is not None and whole.sizes.get("channel", 1) > 1
        number = channel_number(whole, channel or "") if named else 0
        axes_of_it = {"channel": number} if "channel" in whole.sizes else {}
        places += [
            (whole, whole.index({**own.axes(index), **axes_of_it}))
            for index in held_out_indices(len(own))
        ]
    chosen = np.linspace(0, len(places) - 1, min(HELD_OUT_FRAMES, len(places))).astype(int)
    return [places[i] for i in chosen]
