"""A run while it lasts: its stages and stores, the order in which they start and end.

Owns that order and what went wrong on the way. Frames come in finished (`sources` makes them of
images); what each stage does with them is written in its own module::

    frames → recorder → denoise_stage → (after the run) completion
                            └→ View → PreviewLink
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from ...calibration.fingerprint import CameraFingerprint
from ...errors import one_line
from ...inference.bundle import open_bundle
from ...inference.provenance import ATTRIBUTES, Provenance
from ...storage.atomic_output import OutputError
from ...storage.axis_map import Place
from ...storage.written_frames import count_written
from ...version import __version__
from ..errors import AcquisitionError
from .accounting import Accounting
from .camera_state import CameraState
from .channel_denoisers import ChannelDenoisers
from .completion import complete
from .denoise_stage import DenoiseStage
from .denoised_stores import DenoisedStores
from .disk_sync import DiskSync
from .frame import Frame
from .model_requests import ModelRequests
from .model_switch import Successor, require_light
from .newer_models import NewerModels
from .overflow_watch import OverflowWatch
from .part import Part, PixelSize
from .recorder import Recorder
from .run_directory import RunDirectory
from .run_options import RunOptions
from .run_report import OnDisk, RunReport
from .thread_priority import at_low_priority
from .verdict_watch import VerdictWatch
from .view import View

HANG_S = 120.0
"""A denoiser that is at one frame for so long after the run does not come back."""

PRESSES = 3
"""Of Ctrl-C, after which frames that a disk does not take are waited for no longer."""

ReadSaved = Callable[[Mapping[str, int | str]], NDArray[Any] | None]
"""Returns an image of pycro-manager's dataset by its axes, None if it has none."""


class ActiveRun:
    """The stages of one run. Made, started and ended by `LiveDenoiser`.

    Parameters
    ----------
    directory
        Claimed by this program.
    options, camera, denoisers
        Settled before the run.
    overflow
        Watches Micro-Manager's buffer.
    session
        What names it to other programs that ask for another model; None where none can.
    """

    def __init__(
        self,
        directory: RunDirectory,
        options: RunOptions,
        camera: CameraState,
        denoisers: ChannelDenoisers,
        overflow: OverflowWatch,
        session: Path | None = None,
    ) -> None:
        self.counts = Accounting()
        self._began_ns = time.perf_counter_ns()
        self._directory = directory
        self._options = options
        self._camera = camera
        self._denoisers = denoisers
        self._overflow = overflow
        self._errors: list[BaseException] = []
        self._verdicts = VerdictWatch(directory.log)
        self._newer = NewerModels(lambda: denoisers.bundles, directory.log)
        self._requests = ModelRequests(
            session, directory.path, lambda: denoisers.bundles, self.use, directory.log
        )
        self._view = View(
            self.counts,
            self._verdicts,
            title=directory.path.name,
            simulated=camera.simulated,
            preview=options.preview,
            saturation_adu=camera.saturation_adu,
            pixel_size_um=camera.pixel_size_um,
            run=directory.path if options.record else None,
            newer_model=self._newer.waiting,
        )
        self._stores = DenoisedStores(
            directory, self._denoised_attributes, lambda: len(denoisers.switches)
        )
        self._denoise_stage = DenoiseStage(
            directory,
            self.counts,
            denoisers,
            self._stores,
            self._view if denoisers or options.preview else None,
            self._build_sessions,
        )
        self._disk_sync = DiskSync(directory.path)
        self._recorder = Recorder(
            directory,
            self.counts,
            self._denoise_stage.offer,
            store_raw=options.record,
            attributes=self._raw_attributes(),
            pixel_size=PixelSize(camera.pixel_size_um, camera.pixel_size_given),
            reserve_bytes=options.reserve_bytes,
            in_memory=options.in_memory,
        )

    # ------------------------------------------------------------------------- beginning

    def start(self) -> None:
        """Start the stages; the models are warm when this returns."""
        log = self._directory.log
        log(f"quietscope {__version__} begins, mode {self._options.mode}")
        if self._options.mode == "sink":
            log(
                f"nobody else stores these frames: at most {self._options.in_memory.frames} are "
                "in memory at a time, and would go if this program were killed"
            )
        for remark in self._denoisers.remarks:
            log(f"--force: {remark}")
        self._denoise_stage.start()
        self._recorder.start()
        self._disk_sync.start()
        self._newer.start()
        self._requests.start()

    def abandon(self) -> None:
        """End what `start` had started when it failed, or was stopped, at whatever moment.

        A stage that nobody ends would keep the program from ending.
        """
        for close in (
            self._recorder.close,
            self._requests.close,
            self._newer.close,
            self._denoise_stage.close,
            self._disk_sync.close,
            self._view.close,
        ):
            with suppress(Exception):  # what has failed before says more
                close()

    def _build_sessions(self) -> None:
        """Warm the models up before the first frame, where the frame's shape is known."""
        if self._camera.frame_shape is None:
            return
        for channel, bundle in self._denoisers.bundles.items():
            if bundle.manifest.pixel_type == self._camera.pixel_type:
                self._denoisers.denoiser(
                    channel, self._camera.frame_shape, self._camera.fingerprint.roi, ahead=True
                )

    # ----------------------------------------------------------------------- every frame

    def put(self, frame: Frame) -> None:
        """Take a frame, or wait while the disk is behind. Called with frames in their order.

        Raises
        ------
        AcquisitionError
            If recording has failed.
        """
        self._count_arrival(frame.received_ns)
        if not self._recorder.put(frame):
            raise AcquisitionError(
                f"recording has failed, the acquisition ends: {self._recorder.error}"
            ) from self._recorder.error
        self.counts.hook.add(time.perf_counter_ns() - frame.received_ns)

    def use(self, model: Path | str, channel: str | None = None) -> str:
        """Denoise with another model from the next frame on; return a line about it.

        It is loaded beside the one that works meanwhile, at the low priority of the denoiser: it
        takes no turn from camera, hook and recorder, nor do the threads that it starts.

        Raises
        ------
        QuietscopeError
            If it does not fit this run, which goes on as it was.
        """
        successor = at_low_priority(lambda: self._loaded(model, channel))
        try:
            self._denoise_stage.follow_with(successor)
        except AcquisitionError:
            successor.close()
            raise
        words = f"{successor.bundle.path.name} denoises from the next frame on"
        self._directory.log(f"asked for another model: {words}")
        return words

    def _loaded(self, model: Path | str, channel: str | None) -> Successor:
        require_light(Path(model))
        return self._denoisers.prepare(open_bundle(model), channel, self._camera.fingerprint)

    def refuse(self, error: AcquisitionError) -> None:
        """Count an image that could not become a frame; the first reason is kept."""
        self.counts.refused += 1
        if self.counts.refused == 1:
            self._keep(error)

    def _count_arrival(self, received_ns: int) -> None:
        counts = self.counts
        counts.delivered += 1
        counts.last_frame_ns = received_ns
        if counts.first_frame_ns is None:
            counts.first_frame_ns = received_ns
            self._overflow.note_first_frame()

    # --------------------------------------------------------------------------- the end

    def end(
        self,
        theirs: BaseException | None,
        read_saved: ReadSaved | None,
        *,
        planned: int | None = None,
    ) -> RunReport:
        """Bring everything to an end, in the order in which frames depend on it.

        Parameters
        ----------
        theirs
            What the user's script was ended by; None if it came to its end.
        read_saved
            Reads frames that are stored by pycro-manager alone; None if it cannot be asked.
        planned
            How many frames were to come; None where nobody said.
        """
        self._attempt(self._record_what_came)
        self._keep(self._recorder.error)
        # A Micro-Manager behind the bridge may be what has just failed.
        self._attempt(lambda: self._note_overflow(ask_attached=theirs is None))
        self._attempt(self._await_denoiser)
        self._view.finish()
        self._verdicts.end()
        self._attempt(self._requests.close)
        self._attempt(self._newer.close)
        self._keep(self._denoise_stage.error or self._denoise_stage.misfit)
        if theirs is None and self._options.complete_afterwards and self._denoiser_is_free:
            self._attempt(lambda: self._complete(read_saved))
        self._attempt(self._stores.close)
        self._attempt(self._disk_sync.close)
        ran = self._denoisers.result()
        if not self._denoise_stage.running:
            self._attempt(self._denoisers.close)
        self._view.close()
        on_disk = self._count_on_disk()
        self._log_end(theirs, on_disk)
        report = replace(self.report(theirs, ran, on_disk), planned=planned)
        self._attempt(lambda: self._directory.write_report(report.result()))
        return replace(report, errors=self._error_lines(theirs))  # with that of the report itself

    def _record_what_came(self) -> None:
        """Have the frames that wait recorded and the stores closed, whoever presses Ctrl-C.

        Else they would still be written while the report already counts, and the directory is
        let go. Only a disk that takes nothing is left to itself, when it was pressed again.
        """
        for _ in range(PRESSES):
            try:
                self._recorder.close()
                return
            except KeyboardInterrupt:
                self._directory.log("stopped by the user; frames that came are still recorded")
        raise KeyboardInterrupt

    def error_of(self, theirs: BaseException | None) -> BaseException | None:
        """Return the first error of our own that the user has to be told; None without one.

        `theirs` is what is on its way already. It says more than we could, unless it is but the
        echo that pycro-manager made of an error of ours.
        """
        ours = self._errors[0] if self._errors else None
        if ours is None or theirs is None:
            return ours
        return ours if one_line(ours) in one_line(theirs) else None

    def _await_denoiser(self) -> None:
        """Let the denoiser finish what waits for it; give one up that does not come back."""
        done = self.counts.denoised_live
        while not self._denoise_stage.closes_within(HANG_S):
            if self.counts.denoised_live == done:
                raise AcquisitionError(
                    self._remedy(f"the denoiser has been at one frame for {HANG_S:.0f} s")
                )
            done = self.counts.denoised_live

    @property
    def _denoiser_is_free(self) -> bool:
        return self._denoise_stage.error is None and not self._denoise_stage.running

    def _complete(self, read_saved: ReadSaved | None) -> None:
        skipped = self.counts.still_to_denoise
        if not self._denoisers or skipped <= 0:
            return
        if not self._options.record and read_saved is None:
            self._directory.log(
                f"{skipped} frames were skipped live and stay so: call "
                "live.complete_from(acq.get_dataset()) to have them denoised"
            )
            return
        self._directory.log(f"denoising {skipped} frames that were skipped live")

        def read_raw(
            part: Part, place: Place, axes: Mapping[str, int | str]
        ) -> NDArray[Any] | None:
            if part.raw is not None:
                return part.raw.read(place)
            return read_saved(axes) if axes and read_saved is not None else None

        complete(
            self._directory,
            self._recorder.parts,
            self._denoisers,
            self._stores,
            self.counts,
            read_raw,
            self._options.on_progress,
        )

    def _note_overflow(self, *, ask_attached: bool) -> None:
        if self._overflow.overflowed(ask_attached=ask_attached):
            self.counts.note_missing(self.counts.delivered, 1)
            self._directory.log(
                f"frame {self.counts.delivered}: Micro-Manager's circular buffer was full, "
                "frames from here on were lost"
            )

    def _count_on_disk(self) -> OnDisk:
        """Count what is really there, after everything was closed, and say what is not."""
        recorded = None
        if self._options.record:
            recorded = sum(
                count_written(part.raw.path)
                for part in self._recorder.parts
                if part.raw is not None
            )
            self._require_all("recorded", self.counts.recorded, recorded)
        denoised = sum(count_written(path) for path in self._stores.paths)
        self._require_all("denoised", self.counts.denoised, denoised)
        return OnDisk(recorded, denoised)

    def _require_all(self, done: str, counted: int, there: int) -> None:
        if there < counted and not self._errors:
            self._keep(
                OutputError(
                    f"{self._directory.path}: {counted} frames were {done}, {there} can be read "
                    "back; check the disk, and record on another one"
                )
            )

    def _attempt(self, step: Callable[[], None]) -> None:
        """Do one step of the end; what goes wrong must not keep the next ones from happening."""
        try:
            step()
        except Exception as error:
            self._keep(error)
        except KeyboardInterrupt:
            self._directory.log("stopped by the user; what was recorded is kept")
            self._errors.append(AcquisitionError(self._remedy("stopped by the user")))

    def _keep(self, error: BaseException | None) -> None:
        if error is not None and error not in self._errors:
            self._errors.append(error)
            self._directory.log(f"error: {one_line(error)}")

    def _remedy(self, what: str) -> str:
        return (
            f"{what}: {self.counts.recorded} frames are recorded in {self._directory.path}, "
            f"{self.counts.denoised} of them denoised; `quietscope denoise` does the others"
        )

    def _log_end(self, theirs: BaseException | None, on_disk: OnDisk) -> None:
        if theirs is not None:
            self._directory.log(f"ended by {_named(theirs)}")
        counts = self.counts
        recorded = counts.recorded if on_disk.recorded is None else on_disk.recorded
        self._directory.log(
            f"{counts.delivered} frames delivered, {recorded} recorded, {on_disk.denoised} "
            f"denoised ({counts.denoised_afterwards} of them afterwards), "
            f"{counts.skipped_live} skipped in the live view, {counts.refused} refused, "
            f"{counts.missing} missing"
        )

    # ------------------------------------------------------------------ what is recorded

    def report(
        self,
        theirs: BaseException | None = None,
        ran: Mapping[str, Any] | None = None,
        on_disk: OnDisk | None = None,
    ) -> RunReport:
        """Return how the run stands, or with what is on the disk how it ended."""
        return RunReport(
            counts=self.counts.result(),
            ran=ran or self._denoisers.result(),
            errors=self._error_lines(theirs),
            forced=list(self._denoisers.remarks),
            planned=self._options.expected_frames,
            has_models=bool(self._denoisers),
            about=self._about(),
            on_disk=on_disk,
        )

    def _error_lines(self, theirs: BaseException | None) -> list[str]:
        lines = [one_line(error) for error in self._errors]
        echo = theirs is not None and self.error_of(theirs) is not None
        return lines if theirs is None or echo else [*lines, f"ended by {_named(theirs)}"]

    def _about(self) -> dict[str, Any]:
        first_ns = self.counts.first_denoised_ns
        return {
            **self._trust(),
            **self._verdicts.result(),
            "models_without_frames": self._denoisers.names_without_frames(),
            "newer_models": dict(self._newer.found),
            "seconds": (time.perf_counter_ns() - self._began_ns) / 1e9,
            "seconds_to_first_denoised_frame": (first_ns - self._began_ns) / 1e9
            if first_ns
            else None,
            "camera": self._camera_seen(),
            "most_frames_in_memory": self._options.in_memory.frames,
            "simulated": self._camera.simulated,
            "preview": (self._view.reason or "shown") if self._options.preview else None,
            "output": str(self._directory.path),
        }

    def _camera_seen(self) -> dict[str, Any]:
        """Return the camera as it was asked, or where nobody could be, as its images tell."""
        asked = self._camera.fingerprint
        if asked == CameraFingerprint() and self._recorder.parts:
            seen: dict[str, Any] = self._recorder.parts[0].about_camera()["camera"]
            return seen
        return asked.model_dump(mode="json")

    def _trust(self) -> dict[str, Any]:
        """Return the figures of the only channel, and those of every channel by its name."""
        by_channel = dict(self._view.trust)
        only = next(iter(by_channel.values())) if len(by_channel) == 1 else None
        return {"trust": only, "trust_by_channel": by_channel}

    def _raw_attributes(self) -> dict[str, Any]:
        return {
            "kind": "raw",
            "unit": "ADU",
            "exposure_ms": self._camera.exposure_ms,
            "simulated": self._camera.simulated,
            "began": datetime.now(UTC).isoformat(timespec="seconds"),
            "quietscope_version": __version__,
        }

    def _denoised_attributes(self, part: Part) -> dict[str, Any]:
        provenance = Provenance.of(
            self._directory.raw(part.number).name,
            self._denoisers.identities(part.axis_map.channel_names or ["0"]),
            provider=self._denoisers.provider,
            precision="fp32",
            simulated=self._camera.simulated,
            forced=tuple(self._denoisers.remarks),
            model_changes=tuple(switch.change() for switch in self._denoisers.switches),
        )
        return {ATTRIBUTES: provenance.attributes()[ATTRIBUTES] | part.about_camera()}


def _named(error: BaseException) -> str:
    return f"{type(error).__name__}: {one_line(error)}"
