"""The one object for a user's script: record every frame, denoise what can be, show the newest.

Owns the block's beginning and end as the user's script sees them, and what is raised there. The
run itself is in `stream.active_run`, its options in `run_options`, its report in `run_report`;
images become frames in `sources.pycromanager_hook`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from math import prod
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from numpy.typing import NDArray

from ..calibration.fingerprint import CameraFingerprint
from ..errors import QuietscopeError, one_line
from ..inference.model_choice import Models
from ..inference.runtime.providers import Provider
from ..storage.atomic_output import RESERVE_BYTES, OutputError, require_apart, require_space
from ..storage.live_sessions import live_session
from .errors import AcquisitionError, MissingFramesError
from .microscope.core import Microscope, running_core
from .microscope.core_plus import ask_whom
from .sources.ask_camera import ask_camera
from .sources.engine_failures import EngineFailures
from .sources.engine_tags import camera_tags_on_images
from .sources.java_engine import JavaEngineWatch
from .sources.mda_sequences import MdaSequences
from .sources.pycromanager_hook import FrameMaker
from .sources.saved_images import SavedImages
from .stream.accounting import Accounting
from .stream.active_run import ActiveRun
from .stream.channel_denoisers import ChannelDenoisers
from .stream.overflow_watch import OverflowWatch
from .stream.run_directory import RunDirectory
from .stream.run_options import Mode, OnProgress, RunOptions, RunState
from .stream.run_report import RunReport


class LiveDenoiser:
    """Attach to an acquisition of pycro-manager or pymmcore-plus.

    ::

        with LiveDenoiser(model="models/gfp", output="runs/monday", preview=True) as live:
            with Acquisition(
                directory="D:/data", name="cells", image_process_fn=live.image_process_fn
            ) as acq:
                acq.acquire(multi_d_acquisition_events(num_time_points=1000))

    With pymmcore-plus it is an output of the sequence::

        with LiveDenoiser(model="models/gfp", output="runs/monday") as live:
            mmc.run_mda(sequence, output=live)

    Leaving the block waits until every frame is on the disk, denoises what was skipped live, and
    raises what went wrong. `report` and `report.json` then hold the counts.

    Parameters
    ----------
    model
        A bundle or its path, any `Denoiser`, or one of these for each channel by the channel's
        name (with several cameras by the camera's). None only records.
    output
        The run directory to create.
    mode
        `tap` hands every image back untouched, and pycro-manager saves it as it was told to.
        `sink` keeps it: this is the storage then.
    record
        Write `raw.ome.zarr`. False leaves raw where pycro-manager saves it; frames that were
        skipped live are then read from its dataset, see `complete_from`.
    preview
        Open the live window.
    provider
        What must run the model: auto, cpu, cuda, tensorrt or directml.
    camera
        The camera in use; asked of the running core when there is one.
    pixel_size_um, simulated
        Asked of the running core when not given.
    microscope
        Whom to ask, where the core is not the one of this process: a Micro-Manager that is
        attached, or a CMMCorePlus other than `CMMCorePlus.instance()`.
    force
        Use a model of another camera; recorded in the report.
    overwrite
        Replace an earlier run in `output`.
    expected_frames
        How many frames are planned: the disk is checked for them beforehand, and the run is
        complete when they came.
    reserve_bytes
        Free disk space at which the run is ended.
    complete_afterwards
        Denoise frames that were skipped live when the block is left. They can also be denoised
        later, by `quietscope denoise`.
    raise_on_gap
        Raise MissingFramesError at the end if the camera's own numbers have a gap, or fewer
        frames came than were planned.
    on_progress
        Called with (frames done, frames to do) while skipped frames are denoised.
    planned_channels
        The channels that will come, where that is known: a model for any other one is refused
        before the run. None where it is not known; the run then says of which channels with a
        model no frame came.

    Raises
    ------
    OutputError
        If `output` cannot be written, exists, is in use, or the disk is too small.
    BundleError, CameraMismatchError
        If a model cannot be used with this camera.
    InferenceError
        If a model is for a channel that will not come.
    """

    def __init__(
        self,
        model: Models = None,
        output: Path | str = "run",
        *,
        mode: Mode = "tap",
        record: bool = True,
        preview: bool = False,
        provider: Provider = "auto",
        camera: CameraFingerprint | None = None,
        pixel_size_um: float | None = None,
        simulated: bool | None = None,
        microscope: Microscope | Any = None,
        force: bool = False,
        overwrite: bool = False,
        expected_frames: int | None = None,
        reserve_bytes: int = RESERVE_BYTES,
        complete_afterwards: bool = True,
        raise_on_gap: bool = True,
        on_progress: OnProgress | None = None,
        planned_channels: Sequence[str] | None = None,
    ) -> None:
        self._options = RunOptions(
            mode=mode,
            record=record,
            preview=preview,
            force=force,
            overwrite=overwrite,
            expected_frames=expected_frames,
            reserve_bytes=reserve_bytes,
            complete_afterwards=complete_afterwards,
            raise_on_gap=raise_on_gap,
            on_progress=on_progress,
            planned_channels=None if planned_channels is None else tuple(planned_channels),
        )
        self._directory = RunDirectory(output)
        self._denoisers = ChannelDenoisers(model, provider=provider, force=force)
        microscope, self._core_plus = ask_whom(microscope)
        self._camera = ask_camera(
            microscope, camera=camera, pixel_size_um=pixel_size_um, simulated=simulated
        )
        self._state = RunState.NEW
        self._frames = FrameMaker(self._camera)
        self._arrival = threading.Lock()
        self._saved = SavedImages()
        self._engine = ExitStack()
        self._failures = EngineFailures()
        self._java = JavaEngineWatch()
        self._sequences = MdaSequences(
            None if self._core_plus is None else self._core_plus.core, self
        )
        self._dataset: Any = None
        self._run: ActiveRun | None = None
        self._final: RunReport | None = None

    # --------------------------------------------------------------------- entry points

    def image_process_fn(self, image: NDArray[Any], metadata: Mapping[str, Any]) -> Any:
        """Take an image from pycro-manager's processing thread.

        Returns (image, metadata) untouched as a tap, None as a sink. Waits only while the disk is
        so far behind that the stream's own buffer is full.

        Raises
        ------
        AcquisitionError
            If recording has failed; this ends the acquisition.
        """
        tags = metadata if isinstance(metadata, Mapping) else {}
        axes = tags.get("Axes")
        self._take(image, axes if isinstance(axes, Mapping) else {}, tags)
        return None if self._options.mode == "sink" else (image, metadata)

    def image_saved_fn(self, axes: Mapping[str, int | str], dataset: Any) -> None:
        """Take an image that pycro-manager has saved.

        The entry for the Java backend above about 100 MB/s: pixels come from the dataset.
        """
        self._dataset = dataset
        pixels, metadata = self._saved.read(dataset, axes)
        self._take(pixels, axes, metadata)

    def sequenceStarted(self, sequence: Any, summary: Mapping[str, Any]) -> None:
        """Take note that a sequence of pymmcore-plus begins, of which this is an output."""
        if self._sequences.is_echo(sequence):
            return
        if self._state is not RunState.RUNNING:
            self._sequences.stop()
            raise self._outside("a sequence")
        self._sequences.begin(sequence, summary)

    def frameReady(self, image: NDArray[Any], event: Any, meta: Mapping[str, Any]) -> None:
        """Take an image from pymmcore-plus, with its `useq.MDAEvent` and what is said of it.

        Of what goes wrong nothing is raised here, where pymmcore-plus would log it and acquire on:
        the sequence is cancelled, and the end of the block raises it.
        """
        if self._sequences.is_echo():
            return
        try:
            self._take(image, *self._named(event, meta))
        except AcquisitionError:
            if self._state is not RunState.RUNNING:
                raise
            self._sequences.stop()

    def _named(self, event: Any, meta: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        try:
            return self._sequences.named(event, meta)
        except Exception as error:  # of an engine of somebody's own
            refused = AcquisitionError(
                f"an image of pymmcore-plus came without what names its place ("
                f"{type(error).__name__}: {one_line(error)}); use the engine of pymmcore-plus, or "
                "have yours say what that does"
            )
            if self._run is not None:
                self._run.refuse(refused)
            raise refused from error

    def sequenceCanceled(self, sequence: Any) -> None:
        """Take note that a sequence of pymmcore-plus was cancelled: it has no frames missing."""
        if self._sequences.is_echo():
            return
        self._sequences.cancel()
        self._directory.log("the sequence was cancelled; what came until then is kept")

    def complete_from(self, dataset: Any) -> None:
        """With `record=False`: read frames that were skipped live from this dataset."""
        self._dataset = dataset

    def use(self, model: Path | str, channel: str | None = None) -> str:
        """Denoise with another model from the next frame on, without losing one.

        This waits until it is loaded, so call it from no thread that images wait for; the
        model of before works on meanwhile. The report lists such changes in `model_switches`, and
        every denoised image says from which frame on which model worked.

        Parameters
        ----------
        model
            A bundle, of the same camera, context and kind of pixels as the one whose place it
            takes.
        channel
            The name that that one was given for; None where it is clear.

        Returns
        -------
        A line that says so.

        Raises
        ------
        QuietscopeError
            If it does not fit; the run goes on as it was.
        """
        if self._run is None or self._state is not RunState.RUNNING:
            raise AcquisitionError(
                f"{self._directory.path}: another model can be used inside the LiveDenoiser's "
                "`with` block"
            )
        return self._run.use(model, channel)

    @property
    def report(self) -> dict[str, Any]:
        """The counts and figures, while it runs and afterwards."""
        if self._final is not None:
            return self._final.result()
        if self._run is not None:
            return self._run.report().result()
        return RunReport(Accounting().result(), self._denoisers.result()).result()

    def _take(
        self, image: NDArray[Any], axes: Mapping[str, int | str], metadata: Mapping[str, Any]
    ) -> None:
        received_ns = time.perf_counter_ns()
        if self._run is None or self._state is not RunState.RUNNING:
            raise self._outside("an image")
        with self._arrival:  # two acquisitions may run at the same time
            self._java.note_image()
            try:
                frame = self._frames.frame(image, axes, metadata, received_ns=received_ns)
            except Exception as error:  # of objects of somebody's own among the tags, too
                refused = _refused(error)
                self._run.refuse(refused)
                raise refused from (None if refused is error else error)
            self._run.put(frame)

    def _outside(self, what: str) -> AcquisitionError:
        return AcquisitionError(
            f"{self._directory.path}: {what} came {self._state.value} the LiveDenoiser's "
            "`with` block; put the acquisition inside it"
        )

    # ------------------------------------------------------------------ the block itself

    def __enter__(self) -> Self:
        if self._state is not RunState.NEW:
            raise AcquisitionError(
                f"{self._directory.path}: a LiveDenoiser serves one block; make another one"
            )
        if self._options.planned_channels is not None:
            self._denoisers.require_channels(
                self._options.planned_channels, self._camera.camera_names
            )
        self._denoisers.require_match(self._camera.fingerprint, self._camera.frame_shape)
        bundles = [bundle.path for bundle in self._denoisers.bundles.values()]
        require_apart(self._directory.path, bundles)
        self._require_space()
        self._directory.claim(overwrite=self._options.overwrite)
        try:
            session = self._engine.enter_context(live_session())
            self._engine.enter_context(camera_tags_on_images())
            self._engine.enter_context(self._failures)
            self._engine.enter_context(self._java)
            self._engine.enter_context(self._sequences)
            self._run = ActiveRun(
                self._directory,
                self._options,
                self._camera,
                self._denoisers,
                OverflowWatch(lambda: running_core() or self._core_plus, self._camera.core),
                session,
            )
            self._frames.prepare()
            self._run.start()
            self._state = RunState.RUNNING
        except BaseException:
            self._state = RunState.NEW
            if self._run is not None:
                self._run.abandon()
            self._run = None
            self._engine.close()
            self._denoisers.close()
            self._directory.release()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        run = self._run
        if run is None:
            raise AcquisitionError(
                f"{self._directory.path}: was left before it was begun; use it in a `with` block"
            )
        theirs = self._sequences.ended_by(self._failures.of(error))
        self._state = RunState.ENDED
        with ExitStack() as last:  # each of them, whatever the one before meets
            last.callback(self._release)
            last.callback(self._saved.close)
            last.callback(self._engine.close)
            read_saved = self._read_saved if self._dataset is not None else None
            self._final = run.end(theirs, read_saved, planned=self._planned)
        self._raise_first(run, theirs)
        if theirs is not None and theirs is not error:
            raise theirs

    @property
    def _planned(self) -> int | None:
        """How many frames were to come; None where nobody said."""
        if self._options.expected_frames is not None:
            return self._options.expected_frames
        return self._sequences.planned

    def _require_space(self) -> None:
        frames, camera = self._options.expected_frames, self._camera
        if frames and camera.frame_shape and camera.pixel_type:
            per_pixel = 2 if camera.pixel_type == "uint16" else 1
            per_pixel = per_pixel * self._options.record + 4 * bool(self._denoisers)
            require_space(self._directory.path, frames * prod(camera.frame_shape) * per_pixel)

    def _read_saved(self, axes: Mapping[str, int | str]) -> NDArray[Any] | None:
        if not self._dataset.has_image(**axes):
            return None
        return self._saved.read(self._dataset, axes)[0]

    def _release(self) -> None:
        try:
            self._directory.release()
        except OSError as error:  # what the disk refused before this says more
            self._directory.log(f"the directory could not be let go: {one_line(error)}")

    def _raise_first(self, run: ActiveRun, theirs: BaseException | None) -> None:
        """Raise what ended the run; an exception of the user's own stays what it is."""
        if isinstance(theirs, KeyboardInterrupt):
            return
        if self._java.ended:
            raise AcquisitionError(
                f"{self._directory.path}: Micro-Manager has ended; the {run.counts.recorded} "
                "frames until then are kept. Start Micro-Manager again, then this anew"
            ) from theirs
        ours = run.error_of(theirs)
        if ours is not None:
            readable = _readable(ours, self._directory.path)
            raise readable from (None if readable is theirs else theirs)
        # The engine's word for an overflow is but a part of ours.
        if self._options.raise_on_gap and (theirs is None or "overflow" in str(theirs)):
            self._require_no_gap(run.counts, theirs)

    def _require_no_gap(self, counts: Accounting, theirs: BaseException | None) -> None:
        path, planned = self._directory.path, self._planned
        if counts.first_missing is not None:
            raise MissingFramesError(
                f"{path}: {counts.missing} frames that the camera took never came, first frame "
                f"{counts.first_missing}; the {counts.recorded} others are kept. Use a longer "
                "exposure, a smaller region or a faster disk"
            ) from theirs
        if planned is not None and counts.delivered < planned and theirs is None:
            raise MissingFramesError(
                f"{path}: {counts.delivered} of {planned} planned frames came, and are kept. "
                "The camera stopped giving images, or somebody ended the acquisition: look "
                "whether the camera is on and connected and shows an image in Micro-Manager, then "
                "start again"
            )


def _refused(error: Exception) -> AcquisitionError:
    """Return why an image could not become a frame."""
    if isinstance(error, AcquisitionError):
        return error
    return AcquisitionError(
        f"an image came with pixels, axes or tags that cannot be read ({type(error).__name__}: "
        f"{one_line(error)}); hand on what Micro-Manager gave, unchanged"
    )


def _readable(error: BaseException, path: Path) -> BaseException:
    """Return the error itself if it was written for the user, else one that is."""
    if isinstance(error, QuietscopeError):
        return error
    readable: BaseException
    if isinstance(error, OSError):
        readable = OutputError(
            f"{path}: cannot be written ({error.strerror or one_line(error)}); check the disk's "
            "free space and your right to write there. Frames before this are kept"
        )
    else:
        readable = AcquisitionError(
            f"{path}: {one_line(error)} ({type(error).__name__}); the recorded frames are kept, "
            "and `quietscope denoise` denoises those that are not"
        )
    readable.__cause__ = error
    return readable
