"""pycro-manager's own acquisition tests, with the stream attached to every acquisition.

Every acquisition of the suite gets a tap that records and denoises, ahead of whatever image
processing the test itself does. The suite's assertions stay as they are; on top of them every
frame that was delivered has to be recorded, bit for bit, and denoised.

    python benchmarks/stream_pycromanager_suite.py [FOLDER_OF_THE_SUITE] [--bare] [pytest options]

By default the suite that pycro-manager installs with itself, on its Python backend. `--bare` runs
it without the stream, for comparison.
"""

from __future__ import annotations

import hashlib
import inspect
import json
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mmpycorex
import numpy as np
import pycromanager
import pytest
from mm_test_adapters import device_adapter_path
from numpy.typing import NDArray
from pycromanager.acquisition import python_backend_acquisitions
from scipy import ndimage

from quietscope.acquisition import LiveDenoiser
from quietscope.acquisition.stream.run_directory import read_frame_log
from quietscope.storage.atomic_output import write_json
from quietscope.storage.open_stack import open_stack

RESULTS = Path(__file__).parent / "results" / "stream_pycromanager_suite.json"


class Smoothing:
    """A denoiser for whatever frame shape a test uses."""

    context_frames = 1

    def __init__(self, frame_shape: tuple[int, int]) -> None:
        self.frame_shape = frame_shape

    def denoise(self, observations: NDArray[Any], out: NDArray[np.float32]) -> None:
        ndimage.uniform_filter(observations[0].astype(np.float32), 3, output=out[0])
        out[1] = 1.0

    def close(self) -> None:
        pass


class TappedAcquisition(python_backend_acquisitions.PythonBackendAcquisition):
    """pycro-manager's acquisition with a LiveDenoiser of its own."""

    folder: Path
    ended: list[dict[str, Any]] = []  # noqa: RUF012
    running: list[TappedAcquisition] = []  # noqa: RUF012

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        bound = inspect.signature(
            python_backend_acquisitions.PythonBackendAcquisition.__init__
        ).bind(self, *args, **kwargs)
        self._run = self.folder / f"run {len(self.ended) + len(self.running):03d}"
        self._seen: list[bytes] = []
        self._live = LiveDenoiser(Smoothing, self._run)
        self._live.__enter__()
        own = bound.arguments.get("image_process_fn")
        bound.arguments["image_process_fn"] = self._with_tap(own)
        super().__init__(*bound.args[1:], **bound.kwargs)
        self.running.append(self)

    def _with_tap(self, own: Callable[..., Any] | None) -> Callable[..., Any]:
        def tap(image: Any, metadata: Any) -> Any:
            self._seen.append(hashlib.sha256(image.tobytes()).digest())
            return self._live.image_process_fn(image, metadata)

        if own is None:
            return tap
        if len(inspect.signature(own).parameters) == 2:
            return lambda image, metadata: own(*tap(image, metadata))
        return lambda image, metadata, queue: own(*tap(image, metadata), queue)

    def await_completion(self) -> None:
        try:
            super().await_completion()
        finally:
            self.end()

    def end(self) -> None:
        if self not in self.running:
            return
        self.running.remove(self)
        self._live.__exit__(None, None, None)
        self.ended.append(self._live.report)
        self._verify()

    def _verify(self) -> None:
        report = self._live.report
        assert report["complete"], report
        stacks: dict[Path, Any] = {}
        recorded = []
        for part, place, _ in read_frame_log(self._run / "frames.jsonl"):
            store = self._run / ("raw.ome.zarr" if part == 1 else f"raw-{part}.ome.zarr")
            image = store / str(place.position or 0) if (store / "OME").is_dir() else store
            stack = stacks.setdefault(image, open_stack(image))
            axes = {"time": place.time, "channel": place.channel, "z": place.z}
            frame = stack.frame(stack.index(axes))
            recorded.append(hashlib.sha256(frame.tobytes()).digest())
        assert recorded == self._seen, "a recorded frame differs from the one delivered"


class Plugin:
    """Makes the suite use the demo devices of this package, and counts."""

    def __init__(self) -> None:
        self.outcomes: dict[str, int] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call" or report.outcome != "passed":
            self.outcomes[report.outcome] = self.outcomes.get(report.outcome, 0) + 1

    def pytest_sessionfinish(self) -> None:
        for acquisition in list(TappedAcquisition.running):
            acquisition.end()


def main() -> int:
    arguments = sys.argv[1:]
    bare = "--bare" in arguments
    arguments = [argument for argument in arguments if argument != "--bare"]
    suite = Path(pycromanager.__file__).parent / "test"
    if arguments and Path(arguments[0]).is_dir():
        suite = Path(arguments.pop(0)).resolve()
    mmpycorex.find_existing_mm_install = device_adapter_path
    if not bare:
        # `Acquisition` looks the class up in its own module, wherever it was imported from.
        from pycromanager.acquisition import acq_constructor

        acq_constructor.PythonBackendAcquisition = TappedAcquisition
    plugin = Plugin()
    with tempfile.TemporaryDirectory() as folder:
        TappedAcquisition.folder = Path(folder)
        os.chdir(folder)  # the suite writes into the working folder
        options = ["-q", "-k", "python_backend or not java_backend", "-p", "no:cacheprovider"]
        options += [f"--ignore={suite / 'test_viewer.py'}", *arguments]  # needs napari
        status = pytest.main([str(suite), *options], plugins=[plugin])
    reports = TappedAcquisition.ended
    figures = {
        "hardware": "2 CPU cores",
        "stream": "none" if bare else "tap with recorder and denoiser on every acquisition",
        "tests": plugin.outcomes,
        "acquisitions": len(reports),
        **{
            name: sum(report[name] for report in reports)
            for name in ("frames_delivered", "frames_recorded", "frames_denoised")
        },
    }
    print(json.dumps(figures, indent=2))
    if not bare:
        write_json(RESULTS, figures)
    return int(status)


if __name__ == "__main__":
    raise SystemExit(main())
