"""What the commands do, as functions on arrays.

Owns the arguments and nothing of the work: arrays become stacks, and the functions behind the
commands do the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, TypedDict, Unpack, overload

import numpy as np
from numpy.typing import NDArray

from ..calibration.fit_camera import fit_camera
from ..calibration.gaussian_mixture import GaussianMixtureNoiseModel
from ..calibration.noise_files import load_noise_model, save_noise_model
from ..calibration.result import Calibration
from ..comparison.compare import ComparisonOptions, ComparisonProgress
from ..comparison.compare import compare as compare_stack
from ..comparison.result import Comparison
from ..errors import require_extra
from ..inference.bundle import Bundle
from ..inference.evaluation.evaluate import Evaluation
from ..inference.evaluation.evaluate_method import evaluate_method
from ..inference.general.choice import GENERAL, Wanted, general_for
from ..inference.offline.denoise_in_memory import filter_in_memory
from ..inference.offline.frame_loop import OnProgress
from ..inference.runtime.providers import Provider
from ..storage.atomic_output import require_absent
from ..storage.output_kinds import Kind
from ..storage.stack import Stack
from ..training.options import TrainingOptions
from .array_stack import Axes, Recording, as_stack
from .errors import ArrayError
from .model import Model, load, truth_stack
from .python_words import in_python, python_words

FloatImage = NDArray[np.float32]
AnyModel = Model | Bundle | Path | str
AnyNoiseModel = GaussianMixtureNoiseModel | Calibration | Path | str


def calibrate(
    levels: Recording | Sequence[Recording],
    *,
    dark: Recording | None = None,
    offset_adu: float | NDArray[np.float64] | None = None,
    out: Path | str | None = None,
    overwrite: bool = False,
    seed: int = 0,
    on_progress: Callable[[str, float], None] | None = None,
) -> Calibration:
    """Learn a camera's noise from repeats of still scenes.

    Parameters
    ----------
    levels
        One array (N, Y, X) of repeats for each light level, or a single one of a scene with bright
        and dark parts.
    dark
        Repeats without light.
    offset_adu
        Known offset instead: a number, or a map (Y, X).
    out
        Where the noise model is written (.npz); nowhere by default.
    overwrite
        Replace a noise model there.
    seed
        Of the draw of pixels.
    on_progress
        Called with the step and its share done.

    Returns
    -------
    Calibration
        `noise_model`, `photon_transfer` (gain, offset, read noise), `checks`; `result()` is the
        JSON object of `quietscope calibrate`.

    Raises
    ------
    CalibrationError
        If the levels cannot tell the noise.
    OutputError
        If something is at `out` already; before anything is computed.
    """
    if out is not None:
        require_absent(Path(out), overwrite=overwrite, kind=Kind.NOISE_MODEL)
    found = fit_camera(
        [as_stack(level).stack for level in _several(levels)],
        dark=None if dark is None else as_stack(dark).stack,
        offset_adu=offset_adu,
        seed=seed,
        on_progress=on_progress,
    )
    if out is not None:
        save_noise_model(found.noise_model, Path(out), overwrite=overwrite)
    return found


@python_words()
def train(
    recordings: Recording | Sequence[Recording],
    out: Path | str,
    *,
    algorithm: str = "lattice",
    minutes: float | None = None,
    steps: int | None = None,
    noise_model: AnyNoiseModel | None = None,
    truth: Recording | Sequence[Recording] = (),
    channel: str | None = None,
    axes: Axes | None = None,
    overwrite: bool = False,
    on_progress: Callable[[Any], None] | None = None,
    on_remark: Callable[[str], None] | None = None,
    **options: Any,
) -> Model:
    """Train a model on noisy recordings.

    Parameters
    ----------
    recordings
        One or several; see `as_stack`.
    out
        The bundle to write, a directory.
    algorithm, minutes, steps
        How it learns, and for how long: `minutes` of the whole run, or `steps` of it.
    noise_model
        Of the camera: a `Calibration`, a noise model or its file; estimated where not given.
    truth
        Clean frames for each recording, for algorithms that are supervised.
    channel
        Name or number of one of several.
    axes
        What the dimensions of arrays are, where there are more than three.
    overwrite
        Replace a bundle there.
    on_progress, on_remark
        Called with a `TrainingProgress` (`progress`, `seconds_left`, `loss`), and with what a
        person should know.
    options
        Further choices of `TrainingOptions`, as `context_frames=4`, `preset="fast"`, `seed=1`.

    Raises
    ------
    MissingExtraError
        If this installation cannot train.
    TrainingDataError, TrainingError
        If the recordings cannot teach a network, or an option is unknown.
    """
    require_extra("train", "train")
    from ..training.run import in_one_process
    from ..training.train import train as train_stacks

    seconds = None if minutes is None else 60 * minutes
    with _as_options_of("train", TrainingOptions):
        chosen = TrainingOptions(algorithm=algorithm, seconds=seconds, steps=steps, **options)
    result = in_one_process(
        train_stacks(
            [as_stack(one, axes).stack for one in _several(recordings)],
            Path(out),
            chosen,
            noise_model=_noise_model(noise_model),
            truths=[truth_stack(one, axes) for one in _several(truth)],
            channel=channel,
            overwrite=overwrite,
            on_progress=on_progress,
            on_remark=None if on_remark is None else lambda line: on_remark(in_python(line)),
        )
    )
    return Model(result.bundle)


class ByWhat(TypedDict, total=False):
    """By what a recording is denoised: a model or a filter, and what belongs to it."""

    model: AnyModel | None
    method: str | None
    frames: int
    strength: float | None
    noise_model: AnyNoiseModel | None
    axes: Axes | None
    on_progress: OnProgress | None
    provider: Provider
    threads: int | None
    force: bool


@overload
def denoise(
    array: NDArray[Any], *, uncertainty: Literal[True], **by: Unpack[ByWhat]
) -> tuple[FloatImage, FloatImage]: ...
@overload
def denoise(
    array: NDArray[Any], *, uncertainty: Literal[False] = ..., **by: Unpack[ByWhat]
) -> FloatImage: ...
@overload
def denoise(array: Recording, *, uncertainty: bool = ..., **by: Unpack[ByWhat]) -> Any: ...
@python_words()
def denoise(
    array: Recording,
    *,
    model: AnyModel | None = None,
    method: str | None = None,
    frames: int = 1,
    strength: float | None = None,
    noise_model: AnyNoiseModel | None = None,
    uncertainty: bool = False,
    axes: Axes | None = None,
    on_progress: OnProgress | None = None,
    **options: Any,
) -> Any:
    """Denoise a recording by a model, or by a filter that needs no training.

    Parameters
    ----------
    array
        See `as_stack`; not changed.
    model
        A `Model`, a bundle or its path; "general" is the model that ships.
    method, frames, strength
        A filter by its name (`gaussian`, `bm3d`, …), the number of frames whose mean it is given,
        and its strength (chosen without truth where not given).
    noise_model
        The camera's noise, for filters and the general model; told from the recording where not
        given.
    uncertainty
        Whether the standard deviation of a model's estimate is wanted as well.
    axes
        What the array's dimensions are, where there are more than three.
    on_progress
        Called with (frames done, frames in total).
    options
        `provider`, `threads`, `force` of `Model.denoise`.

    Returns
    -------
    See `Model.denoise`; by a filter always in memory.

    Raises
    ------
    ArrayError
        If not exactly one of `model` and `method` is given.
    """
    _require_one(model, method)
    if model is not None:
        _require_no_filter(frames, strength)
        return _model_for(array, axes, model, noise_model).denoise(
            array, axes=axes, uncertainty=uncertainty, on_progress=on_progress, **options
        )
    if uncertainty or options:
        given = ", ".join(["uncertainty"] * uncertainty + list(options))
        raise ArrayError(f"a filter has no use for {given}; leave it out, or give model=")
    given_array = as_stack(array, axes)
    found = filter_in_memory(
        given_array.stack,
        str(method),
        frames=frames,
        strength=strength,
        noise_model=_noise_model(noise_model),
        on_progress=on_progress,
    )
    return given_array.shaped(found)


@python_words()
def evaluate(
    array: Recording,
    *,
    model: AnyModel | None = None,
    method: str | None = None,
    frames: int = 1,
    strength: float | None = None,
    noise_model: AnyNoiseModel | None = None,
    truth: Recording | None = None,
    static: bool = False,
    channel: str | None = None,
    axes: Axes | None = None,
    on_progress: OnProgress | None = None,
) -> Evaluation:
    """Score a model or a filter where the truth is known.

    Parameters
    ----------
    array, model, method, frames, strength, noise_model, axes, on_progress
        See `denoise`.
    truth
        The signal: one frame, or one for each.
    static
        The array holds repeats of one scene: the mean of the others is the truth.
    channel
        Name or number of one of several, for a filter; a model knows its own.

    Returns
    -------
    Evaluation
        `result()` is the JSON object of `quietscope evaluate`.
    """
    _require_one(model, method)
    if model is not None:
        _require_no_filter(frames, strength, channel)
        return _model_for(array, axes, model, noise_model).evaluate(
            array, truth=truth, static=static, axes=axes, on_progress=on_progress
        )
    return evaluate_method(
        _of_known_channel(as_stack(array, axes).stack, channel),
        str(method),
        averaged_frames=frames,
        strength=strength,
        noise_model=_noise_model(noise_model),
        truth=None if truth is None else truth_stack(truth, axes),
        static=static,
        channel=channel,
        on_progress=on_progress,
    )


@python_words()
def compare(
    array: Recording,
    out: Path | str,
    *,
    methods: str | Sequence[str] = "all",
    models: Sequence[AnyModel] = (),
    truth: Recording | None = None,
    static: bool = False,
    frames: int = 5,
    minutes: float = 5.0,
    noise_model: AnyNoiseModel | None = None,
    channel: str | None = None,
    axes: Axes | None = None,
    resume: bool = False,
    overwrite: bool = False,
    on_progress: Callable[[ComparisonProgress], None] | None = None,
    on_remark: Callable[[str], None] | None = None,
    **options: Any,
) -> Comparison:
    """Compare methods on one recording; see `docs/compare.md`.

    Parameters
    ----------
    array, truth, static, noise_model, axes
        See `evaluate`.
    out
        A folder for models, rows, result and page.
    methods, models
        Names of filters and algorithms, `filters` or `all`; models that are there already.
    frames, minutes
        How many frames those see that are given more than one; the budget of each training.
    channel
        Name or number of one of several.
    resume, overwrite
        Go on with a comparison there, or replace it.
    on_progress, on_remark
        Called with a `ComparisonProgress`, and with what a person should know.
    options
        Further choices of `ComparisonOptions`: `preset`, `seed`, `most_scored`.

    Returns
    -------
    Comparison
        `advice`, `rows`, `page`; `result()` is what `comparison.json` holds.
    """
    with _as_options_of("compare", ComparisonOptions):
        chosen = ComparisonOptions(
            methods=(methods,) if isinstance(methods, str) else tuple(methods),
            models=tuple(GENERAL if _is_general(one) else _model(one).path for one in models),
            frames=frames,
            seconds=60 * minutes,
            **options,
        )
    return compare_stack(
        _of_known_channel(as_stack(array, axes).stack, channel),
        out,
        chosen,
        truth=None if truth is None else truth_stack(truth, axes),
        static=static,
        noise_model=_noise_model(noise_model),
        channel=channel,
        resume=resume,
        overwrite=overwrite,
        on_progress=on_progress,
        on_remark=on_remark,
    )


@contextmanager
def _as_options_of(function: str, options: type) -> Iterator[None]:
    """Say of a word that is none of the options what the caller called, not what we did."""
    try:
        yield
    except TypeError as error:
        said = str(error).replace(f"{options.__name__}.__init__()", f"{function}()")
        raise TypeError(said) from None


def _several(given: Recording | Sequence[Recording]) -> Sequence[Recording]:
    return given if isinstance(given, list | tuple) else [given]  # type: ignore[list-item]


def _model(model: AnyModel) -> Model:
    if isinstance(model, Model):
        return model
    return Model(model) if isinstance(model, Bundle) else load(model)


def _noise_model(given: AnyNoiseModel | None) -> GaussianMixtureNoiseModel | None:
    if isinstance(given, Calibration):
        return given.noise_model
    return load_noise_model(given) if isinstance(given, Path | str) else given


def _require_one(model: AnyModel | None, method: str | None) -> None:
    if (model is None) == (method is None):
        raise ArrayError(
            'give either model= (a bundle) or method= (a filter, as "gaussian"), and one of them'
        )


def _require_no_filter(frames: int, strength: float | None, channel: str | None = None) -> None:
    """Refuse what only a filter has a use for: a model would pass over it in silence."""
    given = {
        "frames": frames != 1,
        "strength": strength is not None,
        "channel": channel is not None,
    }
    if unused := [name for name, there in given.items() if there]:
        raise ArrayError(
            f"a model has no use for {', '.join(unused)}; leave it out, or give method="
        )


def _of_known_channel(stack: Stack, channel: str | None) -> Stack:
    """Return the stack, of which one channel was named where there are several."""
    if channel is None and stack.sizes.get("channel", 1) > 1:
        labels = stack.channel_labels
        raise ArrayError(
            f"{stack.path}: has several channels; name one of {', '.join(labels)}, as "
            f'channel="{labels[0]}"'
        )
    return stack


def _model_for(
    array: Recording, axes: Axes | None, model: AnyModel, noise_model: AnyNoiseModel | None
) -> Model:
    """Open a model; the general one is made for the camera of this very recording."""
    if _is_general(model):
        stack = as_stack(array, axes).stack
        wanted = Wanted.for_recording(stack, noise_model=_noise_model(noise_model))
        return Model(general_for(wanted)[0])
    if noise_model is not None:
        raise ArrayError(
            'a trained model brings its own noise_model; leave it out, or give model="general"'
        )
    return _model(model)


def _is_general(model: AnyModel) -> bool:
    return isinstance(model, Path | str) and Path(model) == GENERAL
