"""The one object for a user's script: record every frame, denoise what can be, show the newest.

Owns the order in which the parts of the stream start and end, and the report. What each part does
is written in its own module::

    hook → recorder → denoise_stage → (after the run) completion
                          └→ View → PreviewLink
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from itertools import count
from math import prod
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from .. import __version__
from ..calibration.fingerprint import CameraFingerprint
from ..errors import QuietscopeError, one_line
from ..inference.model_choice import Models
from ..inference.provenance import ATTRIBUTES, Provenance
from ..inference.runtime.providers import Provider
from ..storage.atomic_output import RESERVE_BYTES, require_apart, require_space
from ..storage.axis_map import Place
from .errors import AcquisitionError, MissingFramesError
from .microscope.core import Microscope, MicroscopeSettings, running_core
from .sources.pycromanager_hook import frame_from_image
from .sources.saved_images import SavedImages
from .stream.accounting import Accounting
from .stream.channel_denoisers import ChannelDenoisers
from .stream.completion import complete
from .stream.denoise_stage import DenoisedStores, DenoiseStage, View
from .stream.disk_sync import DiskSync
from .stream.frame_pool import FramePool
from .stream.recorder import Part, Recorder
from .stream.run_directory import RunDirectory

Mode = Literal["tap", "sink"]
OnProgress = Callable[[int, int], None]

HANG_S = 120.0
"""A denoiser that is at one frame for so long after the run does not come back."""


class LiveDenoiser:
    """Attach to a pycro-manager acquisition.

    ::

        with LiveDenoiser(model="models/gfp", output="runs/monday", preview=True) as live:
            with Acquisition(
                directory="D:/data", name="cells", image_process_fn=live.image_process_fn
            ) as acq:
                acq.acquire(multi_d_acquisition_events(num_time_points=1000))

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
        Whom to ask, where the core is not one of this process: a Micro-Manager that is attached.
    force
        Use a model of another camera; recorded in the report.
    overwrite
        Replace an earlier run in `output`.
    expected_frames
        How many frames are planned: the disk is checked for them beforehand.
    reserve_bytes
        Free disk space at which the run is ended.
    complete_afterwards
        Denoise frames that were skipped live when the block is left. They can also be denoised
        later, by `quietscope denoise`.
    raise_on_gap
        Raise MissingFramesError at the end if the camera's own numbers have a gap.
    on_progress
        Called with (frames done, frames to do) while skipped frames are denoised.

    Raises
    ------
    OutputError
        If `output` cannot be written, exists, is in use, or the disk is too small.
    BundleError, CameraMismatchError
        If a model cannot be used with this camera.
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
        microscope: Microscope | None = None,
        force: bool = False,
        overwrite: bool = False,
        expected_frames: int | None = None,
        reserve_bytes: int = RESERVE_BYTES,
        complete_afterwards: bool = True,
        raise_on_gap: bool = True,
        on_progress: OnProgress | None = None,
    ) -> None:
        if mode not in ("tap", "sink"):
            raise AcquisitionError(f"mode is {mode!r}, expected 'tap' or 'sink'")
        if mode == "sink" and not record:
            raise AcquisitionError(
                "mode='sink' with record=False would throw every raw frame away; use mode='tap', "
                "or let it record"
            )
        self._mode = mode
        self._record = record
        self._preview = preview
        self._force = force
        self._overwrite = overwrite
        self._expected_frames = expected_frames
        self._reserve_bytes = reserve_bytes
        self._complete_afterwards = complete_afterwards
        self._raise_on_gap = raise_on_gap
        self._on_progress = on_progress
        self._run = RunDirectory(output)
        self._counts = Accounting()
        self._denoisers = ChannelDenoisers(model, provider=provider)
        self._scene = _Scene.ask(microscope, camera, pixel_size_um, simulated)
        self._remarks: list[str] = []
        self._dataset: Any = None
        self._saved = SavedImages()
        self._indices = count()
        self._arrival = threading.Lock()
        self._pool = FramePool()
        self._first_camera: Any = None
        self._overflow_is_old = False
        self._state = "new"
        self._errors: list[BaseException] = []
        self._began_ns = 0
        self._final_report: dict[str, Any] | None = None

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
        self._take(image, metadata.get("Axes", {}), metadata)
        return None if self._mode == "sink" else (image, metadata)

    def image_saved_fn(self, axes: Mapping[str, int | str], dataset: Any) -> None:
        """Take an image that pycro-manager has saved.

        The entry for the Java backend above about 100 MB/s: pixels come from the dataset.
        """
        self._dataset = dataset
        pixels, metadata = self._saved.read(dataset, axes)
        self._take(pixels, axes, metadata)

    def complete_from(self, dataset: Any) -> None:
        """With `record=False`: read frames that were skipped live from this dataset."""
        self._dataset = dataset

    @property
    def report(self) -> dict[str, Any]:
        """The counts and figures, while it runs and afterwards."""
        return self._final_report or self._report()

    # ------------------------------------------------------------------ the block itself

    def __enter__(self) -> Self:
        if self._state != "new":
            raise AcquisitionError(
                f"{self._run.path}: a LiveDenoiser serves one block; make another one"
            )
        self._remarks = self._denoisers.require_match(
            self._scene.camera, force=self._force, frame_shape=self._scene.frame_shape
        )
        require_apart(self._run.path, [b.path for b in self._denoisers.bundles.values()])
        self._require_space()
        self._run.claim(overwrite=self._overwrite)
        try:
            self._start()
        except BaseException:
            self._denoisers.close()
            self._run.release()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._state = "ended"
        try:
            self._end(error)
        finally:
            self._run.release()
        self._raise_first(error)

    def _start(self) -> None:
        self._began_ns = time.perf_counter_ns()
        self._overflow_is_old = _overflowed(running_core() or self._scene.core)
        self._run.log(f"quietscope {__version__} begins, mode {self._mode}")
        for remark in self._remarks:
            self._run.log(f"--force: {remark}")
        self._view = View(
            self._counts,
            title=self._run.path.name,
            simulated=self._scene.simulated,
            preview=self._preview,
            saturation_adu=self._scene.saturation_adu,
            pixel_size_um=self._scene.pixel_size_um,
        )
        self._stores = DenoisedStores(
            self._run, self._denoised_attributes, self._scene.pixel_size_um
        )
        self._denoise_stage = DenoiseStage(
            self._run,
            self._counts,
            self._denoisers,
            self._stores,
            self._view if self._denoisers or self._preview else None,
            self._build_sessions,
        )
        self._disk_sync = DiskSync(self._run.path)
        self._recorder = Recorder(
            self._run,
            self._counts,
            self._denoise_stage.offer,
            store_raw=self._record,
            attributes={ATTRIBUTES: self._raw_attributes()},
            pixel_size_um=self._scene.pixel_size_um,
            reserve_bytes=self._reserve_bytes,
        )
        if self._scene.frame_shape is not None and self._scene.pixel_type is not None:
            self._pool.prepare(self._scene.frame_shape, np.dtype(self._scene.pixel_type))
        try:
            self._denoise_stage.start()
        except BaseException:
            self._denoise_stage.close()
            self._recorder.close()
            raise
        self._recorder.start()
        self._disk_sync.start()
        self._state = "running"

    def _build_sessions(self) -> None:
        """Warm the models up before the first frame, where the frame's shape is known."""
        if self._scene.frame_shape is None:
            return
        for channel, bundle in self._denoisers.bundles.items():
            if bundle.manifest.pixel_type == self._scene.pixel_type:
                self._denoisers.denoiser(
                    channel, self._scene.frame_shape, self._scene.camera.roi, ahead=True
                )

    # ---------------------------------------------------------------------- every frame

    def _take(
        self, image: NDArray[Any], axes: Mapping[str, int | str], metadata: Mapping[str, Any]
    ) -> None:
        received_ns = time.perf_counter_ns()
        if self._state != "running":
            when = "after" if self._state == "ended" else "before"
            raise AcquisitionError(
                f"{self._run.path}: an image came {when} the LiveDenoiser's `with` block; put the "
                "acquisition inside it"
            )
        with self._arrival:  # two acquisitions may run at the same time
            frame = frame_from_image(
                image,
                axes,
                metadata,
                index=next(self._indices),
                received_ns=received_ns,
                pool=self._pool,
                name_camera=self._is_one_of_several(metadata.get("Camera")),
                camera_roi=self._scene.camera.roi,
            )
            self._count_arrival(received_ns)
            taken = self._recorder.put(frame)
        self._counts.hook.add(time.perf_counter_ns() - received_ns)
        if not taken:
            raise AcquisitionError(
                f"recording has failed, the acquisition ends: {self._recorder.error}"
            ) from self._recorder.error

    def _is_one_of_several(self, camera: Any) -> bool:
        """Whether this camera's frames need its name: Micro-Manager gives all the same axes."""
        if self._first_camera is None:
            self._first_camera = camera
        return self._scene.cameras > 1 or camera != self._first_camera

    def _count_arrival(self, received_ns: int) -> None:
        counts = self._counts
        counts.delivered += 1
        counts.last_frame_ns = received_ns
        if counts.first_frame_ns is None:
            counts.first_frame_ns = received_ns
            if self._overflow_is_old:  # the core forgets it when a sequence begins
                self._overflow_is_old = _overflowed(running_core() or self._scene.core)

    # --------------------------------------------------------------------------- the end

    def _end(self, error: BaseException | None) -> None:
        """Bring everything to an end, in the order in which frames depend on it."""
        self._attempt(self._recorder.close)
        self._keep(self._recorder.error)
        self._attempt(lambda: self._note_overflow(error))
        self._attempt(self._await_denoiser)
        self._view.finish()
        self._keep(self._denoise_stage.error)
        if error is not None:
            self._run.log(f"ended by {type(error).__name__}: {one_line(error)}")
        elif self._complete_afterwards and self._denoiser_is_free:
            self._attempt(self._complete)
        self._attempt(self._stores.close)
        self._attempt(self._saved.close)
        self._attempt(self._disk_sync.close)
        self._denoisers_result = self._denoisers.result()
        if not self._denoise_stage.running:
            self._attempt(self._denoisers.close)
        self._view.close()
        self._log_end(error)
        self._final_report = self._report()
        self._attempt(lambda: self._run.write_report(self._final_report or {}))

    def _await_denoiser(self) -> None:
        """Let the denoiser finish what waits for it; give one up that does not come back."""
        done = self._counts.denoised_live
        while not self._denoise_stage.closes_within(HANG_S):
            if self._counts.denoised_live == done:
                raise AcquisitionError(
                    self._remedy(f"the denoiser has been at one frame for {HANG_S:.0f} s")
                )
            done = self._counts.denoised_live

    @property
    def _denoiser_is_free(self) -> bool:
        return self._denoise_stage.error is None and not self._denoise_stage.running

    def _complete(self) -> None:
        skipped = self._counts.recorded - self._counts.denoised - self._counts.without_model
        if not self._denoisers or skipped <= 0:
            return
        if not self._record and self._dataset is None:
            self._run.log(
                f"{skipped} frames were skipped live and stay so: call "
                "live.complete_from(acq.get_dataset()) to have them denoised"
            )
            return
        self._run.log(f"denoising {skipped} frames that were skipped live")
        complete(
            self._run,
            self._recorder.parts,
            self._denoisers,
            self._stores,
            self._counts,
            self._read_raw,
            self._on_progress,
        )

    def _read_raw(
        self, part: Part, place: Place, axes: Mapping[str, int | str]
    ) -> NDArray[Any] | None:
        if part.raw is not None:
            return part.raw.read(place)
        if not axes or not self._dataset.has_image(**axes):
            return None
        return self._saved.read(self._dataset, axes)[0]

    def _note_overflow(self, error: BaseException | None) -> None:
        # A Micro-Manager behind the bridge may be what has just failed.
        core = running_core() or (self._scene.core if error is None else None)
        if _overflowed(core) and not self._overflow_is_old:
            self._counts.note_missing(self._counts.delivered, 1)
            self._run.log(
                f"frame {self._counts.delivered}: Micro-Manager's circular buffer was full, "
                "frames from here on were lost"
            )

    def _raise_first(self, error: BaseException | None) -> None:
        """Raise what ended the run: our own error rather than pycro-manager's echo of it."""
        ours = self._errors[0] if self._errors else None
        if isinstance(error, KeyboardInterrupt):
            return
        if ours is not None and (error is None or ours is self._recorder.error):
            raise _readable(ours, self._run.path) from error
        if self._counts.first_missing is not None and self._raise_on_gap:
            raise MissingFramesError(
                f"{self._run.path}: {self._counts.missing} frames that the camera took never "
                f"came, first frame {self._counts.first_missing}; the {self._counts.recorded} "
                "others are kept. Use a longer exposure, a smaller region or a faster disk"
            ) from error

    def _attempt(self, step: Callable[[], None]) -> None:
        """Do one step of the end; what goes wrong must not keep the next ones from happening."""
        try:
            step()
        except Exception as error:
            self._keep(error)
        except KeyboardInterrupt:
            self._run.log("stopped by the user; what was recorded is kept")
            self._errors.append(AcquisitionError(self._remedy("stopped by the user")))

    def _keep(self, error: BaseException | None) -> None:
        if error is not None and error not in self._errors:
            self._errors.append(error)
            self._run.log(f"error: {one_line(error)}")

    def _remedy(self, what: str) -> str:
        return (
            f"{what}: {self._counts.recorded} frames are recorded in {self._run.path}, "
            f"{self._counts.denoised} of them denoised; `quietscope denoise` does the others"
        )

    # ------------------------------------------------------------------ what is recorded

    def _require_space(self) -> None:
        if self._expected_frames and self._scene.frame_shape and self._scene.pixel_type:
            per_pixel = 2 if self._scene.pixel_type == "uint16" else 1
            per_pixel = per_pixel * self._record + 4 * bool(self._denoisers)
            require_space(
                self._run.path, self._expected_frames * prod(self._scene.frame_shape) * per_pixel
            )

    def _raw_attributes(self) -> dict[str, Any]:
        return {
            "kind": "raw",
            "unit": "ADU",
            "camera": self._scene.camera.model_dump(mode="json"),
            "exposure_ms": self._scene.exposure_ms,
            "simulated": self._scene.simulated,
            "began": datetime.now(UTC).isoformat(timespec="seconds"),
            "quietscope_version": __version__,
        }

    def _denoised_attributes(self, part: Part) -> dict[str, Any]:
        return Provenance.of(
            self._run.raw(part.number).name,
            self._denoisers.identities(part.axis_map.channel_names or ["0"]),
            provider=self._denoisers.result()["provider"],
            precision="fp32",
            simulated=self._scene.simulated,
            forced=tuple(self._remarks),
        ).attributes()

    def _log_end(self, error: BaseException | None) -> None:
        counts = self._counts
        self._run.log(
            f"{counts.delivered} frames delivered, {counts.recorded} recorded, {counts.denoised} "
            f"denoised ({counts.denoised_afterwards} of them afterwards), "
            f"{counts.skipped_live} skipped in the live view, {counts.missing} missing"
        )

    def _report(self) -> dict[str, Any]:
        counts = self._counts
        latency_to_first = (
            (counts.first_denoised_ns - self._began_ns) / 1e9 if counts.first_denoised_ns else None
        )
        ran = getattr(self, "_denoisers_result", None) or self._denoisers.result()
        return {
            **counts.result(),
            **ran,
            "complete": not self._errors
            and counts.recorded == counts.delivered
            and (not self._denoisers or counts.denoised + counts.without_model == counts.recorded),
            "errors": [one_line(error) for error in self._errors],
            "forced": self._remarks,
            **self._trust(),
            "seconds": (time.perf_counter_ns() - self._began_ns) / 1e9 if self._began_ns else 0.0,
            "seconds_to_first_denoised_frame": latency_to_first,
            "camera": self._scene.camera.model_dump(mode="json"),
            "simulated": self._scene.simulated,
            "preview": (self._view.reason or "shown")
            if self._preview and self._state != "new"
            else None,
            "output": str(self._run.path),
        }

    def _trust(self) -> dict[str, Any]:
        """Return the figures of the only channel, and those of every channel by its name."""
        by_channel = dict(self._view.trust) if self._state != "new" else {}
        only = next(iter(by_channel.values())) if len(by_channel) == 1 else None
        return {"trust": only, "trust_by_channel": by_channel}


class _Scene:
    """What is known of the camera before the first frame."""

    def __init__(self) -> None:
        self.camera = CameraFingerprint()
        self.pixel_size_um: float | None = None
        self.simulated = False
        self.frame_shape: tuple[int, int] | None = None
        self.pixel_type: str | None = None
        self.saturation_adu: float | None = None
        self.exposure_ms: float | None = None
        self.cameras = 1
        self.core: Any = None

    @classmethod
    def ask(
        cls,
        microscope: Microscope | None,
        camera: CameraFingerprint | None,
        pixel_size_um: float | None,
        simulated: bool | None,
    ) -> _Scene:
        """Ask the microscope, or the core of this process, for what was not given."""
        scene = cls()
        core = running_core()
        if microscope is None and core is not None:
            microscope = Microscope(core, MicroscopeSettings())
        if microscope is not None and microscope.core.get_camera_device():
            scene._read(microscope)
        if camera is not None:
            scene.camera = camera
        if pixel_size_um is not None:
            scene.pixel_size_um = pixel_size_um
        if simulated is not None:
            scene.simulated = simulated
        return scene

    def _read(self, microscope: Microscope) -> None:
        self.core = microscope.core
        try:
            self.camera = microscope.fingerprint()
            self.pixel_type = microscope.pixel_type
        except QuietscopeError:
            return  # a colour camera: the hook says so when a frame comes
        self.frame_shape = microscope.frame_shape
        self.pixel_size_um = microscope.pixel_size_um
        self.saturation_adu = microscope.saturation_adu
        self.exposure_ms = microscope.exposure_ms
        self.simulated = microscope.has_demo_camera
        self.cameras = int(microscope.core.get_number_of_camera_channels())


def _overflowed(core: Any) -> bool:
    """Whether a core lost images, in this run or before it."""
    return core is not None and bool(core.is_buffer_overflowed())


def _readable(error: BaseException, path: Path) -> BaseException:
    """Return the error itself if it was written for the user, else one that is."""
    if isinstance(error, QuietscopeError):
        return error
    wrapped = AcquisitionError(
        f"{path}: {one_line(error)} ({type(error).__name__}); the recorded frames are kept, and "
        "`quietscope denoise` denoises those that are not"
    )
    wrapped.__cause__ = error
    return wrapped
