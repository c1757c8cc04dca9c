"""Denoise a whole stack into an OME-Zarr, with constant memory, and go on where a run stopped.

Owns the order of frames, the reading ahead, the check that the model belongs to the recording, and
what is written about the model into the result. Running the model is `onnx_denoiser`'s business,
writing the store is the `frame_store`'s.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import product
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from ...calibration.fingerprint import CameraFingerprint
from ...storage.atomic_output import require_apart, require_space, require_zarr_name
from ...storage.directory_lock import owned
from ...storage.stack import Stack, open_stack
from ..bundle import Bundle, open_bundle
from ..errors import FrameMismatchError, InferenceError
from ..runtime.pipeline import FramePipeline
from ..runtime.providers import Precision, Provider, all_cores
from ..runtime.tiling import open_denoiser
from ..side_inputs import other_channel_index, other_channel_numbers

OnProgress = Callable[[int, int], None]
Models = Bundle | Path | str | Mapping[str, Bundle | Path | str]

ATTRIBUTES = "quietscope"
"""Under this key OME-Zarr images carry what they came from."""


def denoise_stack(
    stack: Stack,
    bundle: Models,
    out: Path | str,
    *,
    provider: Provider = "auto",
    precision: Precision = "fp32",
    threads: int | None = None,
    tile: int | None = None,
    resume: bool = False,
    overwrite: bool = False,
    force: bool = False,
    frames: Iterable[int] | None = None,
    uncertainty: Path | str | None = None,
    on_progress: OnProgress | None = None,
) -> dict[str, Any]:
    """Denoise `stack` into the OME-Zarr `out`, float32 ADU, with the axes of the stack.

    Memory does not grow with the stack: 1 + T frames are held, one is read ahead.

    Parameters
    ----------
    stack
        What to denoise. Frames that a killed recording left out are left out again.
    bundle
        One model, or models by the names of their channels; channels without one are left out.
    out
        The store to write.
    provider, precision, threads
        See `OnnxDenoiser`; all cores by default, nothing else waits for them.
    tile
        Edge of the tiles that frames are divided into, pixels; by default only frames beyond the
        memory are. The result is the same.
    resume
        Go on with a store that an earlier run with the same models left unfinished.
    overwrite
        Replace a store that is there.
    force
        Denoise although the camera or the pixel type differs; recorded in the result.
    frames
        Only these, by their index in the stack.
    uncertainty
        A second store for the standard deviation of the estimate, ADU.
    on_progress
        Called with (frames done, frames in total).

    Returns
    -------
    dict
        `frames_denoised`, `frames_kept` (there from an earlier run), `frames_absent` (never
        recorded), `seconds`, `ms_per_frame`, `provider`, `device`, `models`, `output`.

    Raises
    ------
    FrameMismatchError
        If the model takes other pixels.
    CameraMismatchError
        If the recording names another camera or setting than the model.
    OutputError
        If `out` cannot be written.
    """
    models = ChannelModels.open(stack, bundle)
    require_stores(stack, models, out, uncertainty)
    with owned(*(path for path in (out, uncertainty) if path is not None)):
        return denoise_owned(
            stack,
            models,
            out,
            provider=provider,
            precision=precision,
            threads=threads,
            tile=tile,
            resume=resume,
            overwrite=overwrite,
            force=force,
            frames=frames,
            uncertainty=uncertainty,
            on_progress=on_progress,
        )


def require_stores(
    stack: Stack, models: ChannelModels, out: Path | str, uncertainty: Path | str | None
) -> None:
    """Refuse outputs that are an input or each other, or of a format that is not written.

    Raises
    ------
    OutputError
        Before anything was touched.
    """
    inputs: list[Path | str] = [stack.path, *models.distinct()]
    for path in (out, uncertainty):
        if path is not None:
            require_zarr_name(path)
            require_apart(path, inputs)
            inputs.append(path)


def denoise_owned(
    stack: Stack,
    models: ChannelModels,
    out: Path | str,
    *,
    provider: Provider = "auto",
    precision: Precision = "fp32",
    threads: int | None = None,
    tile: int | None = None,
    resume: bool = False,
    overwrite: bool = False,
    force: bool = False,
    frames: Iterable[int] | None = None,
    uncertainty: Path | str | None = None,
    on_progress: OnProgress | None = None,
) -> dict[str, Any]:
    """Do what `denoise_stack` does, into stores that the caller owns and has checked."""
    began = time.perf_counter()
    remarks = models.require_match(stack, force=force)
    wanted = [
        index
        for index in in_reading_order(stack, None if frames is None else set(frames))
        if models.denoises(stack.axes(index))
    ]
    with ExitStack() as open_things:
        denoisers, pipelines = {}, {}
        for path, model in models.distinct().items():
            denoisers[path] = denoiser = open_denoiser(
                model,
                stack.frame_shape,
                tile=tile,
                provider=provider,
                precision=precision,
                threads=threads or all_cores(),
                region=recorded_camera(stack).roi,
            )
            open_things.callback(denoiser.close)
            pipelines[path] = denoiser.pipeline()
            open_things.callback(pipelines[path].close)
        first = next(iter(denoisers.values()))
        record = models.record(stack, provider=first.provider, precision=precision) | (
            {"forced": remarks} if remarks else {}
        )
        stores = [
            open_things.enter_context(_open_store(stack, path, record, resume, overwrite))
            for path in (out, uncertainty)
            if path is not None
        ]
        counts = _run(stack, wanted, models, pipelines, stores, on_progress)
    seconds = time.perf_counter() - began
    return {
        "frames_denoised": counts.denoised,
        "frames_kept": counts.kept,
        "frames_absent": counts.absent,
        "seconds": seconds,
        "ms_per_frame": 1e3 * counts.seconds / counts.denoised if counts.denoised else None,
        "provider": first.provider,
        "device": first.device,
        "models": record["models"],
        "forced": remarks,
        "output": str(out),
    }


@dataclass
class _Counts:
    denoised: int = 0
    kept: int = 0
    absent: int = 0
    seconds: float = 0.0

    @property
    def done(self) -> int:
        return self.denoised + self.kept + self.absent


def _run(
    stack: Stack,
    wanted: Sequence[int],
    models: ChannelModels,
    pipelines: Mapping[Path, FramePipeline],
    stores: Sequence[Any],
    on_progress: OnProgress | None,
) -> _Counts:
    counts, total = _Counts(), len(wanted)

    def remaining() -> Iterator[int]:
        for index in wanted:
            if not stack.is_present(index):
                counts.absent += 1
            elif all(store.holds(stack.axes(index)) for store in stores):
                counts.kept += 1
            else:
                yield index

    def write(finished: Iterable[tuple[int, NDArray[np.float32]]]) -> None:
        for index, estimate in finished:
            for store, plane in zip(stores, estimate, strict=False):
                store.write(plane, stack.axes(index))
            counts.denoised += 1
            if on_progress is not None:
                on_progress(counts.done, total)

    began = time.perf_counter()
    for index, observations in _read_ahead(stack, remaining(), models):
        write(pipelines[models.of(stack.axes(index)).path].put(index, observations))
    for pipeline in pipelines.values():
        write(pipeline.drain())
    for store in stores:
        store.flush()
    counts.seconds = time.perf_counter() - began
    if on_progress is not None:
        on_progress(counts.done, total)
    return counts


def _open_store(
    stack: Stack, path: Path | str, record: Mapping[str, Any], resume: bool, overwrite: bool
) -> Any:
    from ...storage.ome_zarr_writer import OmeZarrWriter

    path = Path(path)
    if resume and path.exists():
        _require_same_models(path, record)
    else:
        require_space(path, len(stack) * prod(stack.frame_shape) * 4)
    return OmeZarrWriter(
        path,
        frame_shape=stack.frame_shape,
        dtype="float32",
        pixel_size_um=stack.pixel_size_um,
        channel_names=stack.channel_names,
        attributes={ATTRIBUTES: dict(record)},
        overwrite=overwrite,
        resume=resume,
    )


def _require_same_models(path: Path, record: Mapping[str, Any]) -> None:
    earlier = (open_stack(path).attributes or {}).get(ATTRIBUTES, {}).get("models")
    if earlier != record["models"]:
        raise InferenceError(
            f"{path}: was begun with another model; pass the model it was begun with, or another "
            "--out, or --overwrite to begin anew"
        )


# ----------------------------------------------------------------------- order and reading


def in_reading_order(stack: Stack, chosen: set[int] | None) -> Iterator[int]:
    """Go through time within each channel, plane and position: context frames are read once."""
    streams = [range(size) for name, size in stack.sizes.items() if name != "time"]
    names = [name for name in stack.sizes if name != "time"]
    for place in product(*streams):
        axes = dict(zip(names, place, strict=True))
        for time_point in range(stack.sizes.get("time", 1)):
            index = stack.index({**axes, "time": time_point})
            if chosen is None or index in chosen:
                yield index


@dataclass(eq=False)
class ObservationReader:
    """Read frames with what came before them, keeping the frames that come again.

    Used from one thread at a time.
    """

    stack: Stack
    pixel_type: np.dtype[Any]
    _held: dict[int, NDArray[Any]] = field(default_factory=dict)

    def read(
        self, index: int, context_frames: int, other_channels: Sequence[int] = ()
    ) -> NDArray[Any]:
        """Return frame `index`, what came before it, and other channels: (1 + T + C, Y, X)."""
        needed = [
            index,
            *self.stack.preceding(index, context_frames),
            *(other_channel_index(self.stack, index, number) for number in other_channels),
        ]
        self._held = {
            place: self._held[place] if place in self._held else self.stack.frame(place)
            for place in needed
            if place is not None
        }
        out = np.zeros((len(needed), *self.stack.frame_shape), self.pixel_type)
        for row, place in enumerate(needed):
            if place is not None:
                out[row] = self._held[place]
        return out


def _read_ahead(
    stack: Stack, indices: Iterable[int], models: ChannelModels
) -> Iterator[tuple[int, NDArray[Any]]]:
    """Yield each index with its observations, while the next one is being read."""
    reader = ObservationReader(stack, models.pixel_type)

    def read(index: int) -> tuple[int, NDArray[Any]]:
        manifest = models.of(stack.axes(index)).manifest
        other_channels = other_channel_numbers(stack, manifest.other_channels, what="its model")
        return index, reader.read(index, manifest.context_frames, other_channels)

    with ThreadPoolExecutor(1, thread_name_prefix="read-ahead") as pool:
        pending = None
        for index in indices:
            following = pool.submit(read, index)
            if pending is not None:
                yield pending.result()
            pending = following
        if pending is not None:
            yield pending.result()


# --------------------------------------------------------------------- models of a recording


@dataclass(frozen=True, slots=True, eq=False)
class ChannelModels:
    """Which model denoises which channel of a recording."""

    by_channel: Sequence[Bundle | None]
    """None where a channel stays as it is."""
    names: Sequence[str]

    @classmethod
    def open(cls, stack: Stack, models: Models) -> ChannelModels:
        """Open the models and assign them to the channels of `stack`.

        Raises
        ------
        InferenceError
            If a name is no channel of the stack.
        """
        names = stack.channel_labels
        if not isinstance(models, Mapping):
            return cls([_opened(models)] * len(names), names)
        unknown = set(models) - set(names)
        if unknown or not models:
            raise InferenceError(
                f"{stack.path}: has the channels {', '.join(names)}, models were given for "
                f"{', '.join(sorted(models)) or 'none'}; name its channels (--model NAME=BUNDLE)"
            )
        opened = {name: _opened(model) for name, model in models.items()}
        found = cls([opened.get(name) for name in names], names)
        if len({bundle.manifest.pixel_type for bundle in found.distinct().values()}) > 1:
            raise InferenceError(
                f"{stack.path}: the models of its channels take different pixel types; train "
                "them on the same camera"
            )
        return found

    @property
    def pixel_type(self) -> np.dtype[Any]:
        """What all models take."""
        return np.dtype(next(iter(self.distinct().values())).manifest.pixel_type)

    def denoises(self, axes: Mapping[str, int]) -> bool:
        """Whether there is a model for a frame with these axes."""
        return self.by_channel[axes.get("channel", 0)] is not None

    def of(self, axes: Mapping[str, int]) -> Bundle:
        """Return the model for a frame with these axes.

        Raises
        ------
        InferenceError
            If there is none.
        """
        found = self.by_channel[axes.get("channel", 0)]
        if found is None:
            raise InferenceError(f"a frame at {dict(axes)} is of a channel without a model")
        return found

    def distinct(self) -> dict[Path, Bundle]:
        """Return every model once, by its path."""
        return {bundle.path: bundle for bundle in self.by_channel if bundle is not None}

    def record(self, stack: Stack, *, provider: str, precision: str) -> dict[str, Any]:
        """Return what the denoised images say about their origin."""
        models = {
            name: bundle.identity
            for name, bundle in zip(self.names, self.by_channel, strict=True)
            if bundle is not None
        }
        first = next(iter(models.values()))
        return {
            "kind": "denoised",
            "unit": "ADU",
            "source": stack.path.name,
            "model_sha256": first["model_sha256"],
            "noise_model_sha256": first["noise_model_sha256"],
            "models": models,
            "provider": provider,
            "precision": precision,
        }

    def require_match(self, stack: Stack, *, force: bool) -> list[str]:
        """Refuse a recording of another camera; with `force`, return how it differs.

        Raises
        ------
        FrameMismatchError
            If the pixels are of another type (or, with `force`, cannot be widened without loss),
            or a channel is not the one that the model was trained on.
        CameraMismatchError
            If the recording names a camera or a setting that the model was not trained for.
        """
        remarks = self._channel_remarks(stack, force)
        running = recorded_camera(stack)
        for bundle in self.distinct().values():
            other_channel_numbers(
                stack, bundle.manifest.other_channels, what=f"the model {bundle.path}"
            )
            remarks += _pixel_type_remarks(stack, bundle, force)
            camera = bundle.manifest.camera
            if force:
                remarks += camera.differences(running)
            else:
                camera.require_match(running, what=f"the model {bundle.path}")
        return remarks

    def _channel_remarks(self, stack: Stack, force: bool) -> list[str]:
        """Say which channels differ from the one their model was trained on."""
        found = [
            (name, bundle.manifest.channel)
            for name, bundle in zip(stack.channel_names, self.by_channel, strict=False)
            if bundle is not None
            and bundle.manifest.channel not in (None, name)
            and len(stack.channel_names) > 1
        ]
        if found and not force:
            raise FrameMismatchError(
                f"{stack.path}: channel {found[0][0]} would be denoised by a model of channel "
                f"{found[0][1]}; give one model per channel (--model NAME=BUNDLE), or pass --force"
            )
        return [f"channel is {name}, trained on {trained}" for name, trained in found]


def _opened(model: Bundle | Path | str) -> Bundle:
    return model if isinstance(model, Bundle) else open_bundle(model)


def _pixel_type_remarks(stack: Stack, bundle: Bundle, force: bool) -> list[str]:
    taken = np.dtype(bundle.manifest.pixel_type)
    if stack.dtype == taken:
        return []
    widens = np.can_cast(stack.dtype, taken, casting="safe")
    if force and widens:
        return [f"pixels are {stack.dtype}, trained on {taken}"]
    remedy = "train one on such pixels" + (", or pass --force" if widens else "")
    raise FrameMismatchError(
        f"{stack.path}: pixels are {stack.dtype}, the model {bundle.path} takes {taken}; {remedy}"
    )


def recorded_camera(stack: Stack) -> CameraFingerprint:
    """Return what the recording says about its camera; mostly nothing."""
    said = ((stack.attributes or {}).get(ATTRIBUTES) or {}).get("camera")
    if not isinstance(said, Mapping):
        return CameraFingerprint()
    try:
        return CameraFingerprint.model_validate(said)
    except ValidationError as error:
        raise InferenceError(
            f"{stack.path}: its camera record cannot be read ({error.errors()[0]['msg']}); "
            "update quietscope"
        ) from error
