"""`quietscope doctor --attach`: whether the way over Micro-Manager's bridge works here.

Owns the questions that are asked of a Micro-Manager that is running, in the order in which a
person would look for the fault. Asked of the bridge itself; the camera is taken away from nobody:
if its live mode is on, it is left on and its newest image is read.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from ..acquisition.errors import MicroscopeError
from ..acquisition.microscope.bridge import (
    FOLLOWED_FORMAT,
    multi_d_saving,
    remote_core,
    remote_studio,
    server_version,
    version_problem,
)
from ..acquisition.microscope.core import Microscope, MicroscopeSettings, open_microscope
from .finding import Finding

if TYPE_CHECKING:
    from ..acquisition.microscope.bridge import Image

QUESTIONS = ("server", "versions", "camera", "image", "transfer", "multi-d", "hook")
"""In the order in which they are asked; a fault ends the list."""

MEASURE_S = 2.0
MEASURE_IMAGES = 100
FIRST_IMAGE_S = 5.0
TEST_FRAMES = 10


def examine(port: int, *, test_acquisition: bool) -> Iterator[Finding]:
    """Yield a finding for each of `QUESTIONS`; raises where nothing further can be asked."""
    found = server_version(port)
    problem = version_problem(found)
    yield Finding("server", not problem, f"answers on port {port}, version {found}", problem)
    if problem:
        return
    yield _versions(port)
    settings = MicroscopeSettings(attach=True, port=port)
    with open_microscope(settings) as microscope:
        yield _camera(microscope)
        image, live = _first_image(microscope)
        yield _image(microscope, image, live=live)
        yield _transfer(microscope, live=live)
        yield _window(port)
        yield _test_acquisition(microscope, live=live, wanted=test_acquisition)


def _versions(port: int) -> Finding:
    core = str(remote_core(port).get_version_info())
    try:
        micro_manager = str(remote_studio(port).compat().get_version())
    except Exception:  # a headless Micro-Manager has a core, but no window to ask
        micro_manager = "without a window"
    return Finding(
        "versions",
        True,
        f"Micro-Manager {micro_manager}, {core}, pycro-manager {version('pycromanager')}",
    )


def _camera(microscope: Microscope) -> Finding:
    height, width = microscope.frame_shape
    return Finding(
        "camera",
        True,
        f"{microscope.camera} ({microscope.fingerprint().camera}): {width}×{height} "
        f"{microscope.pixel_type}, {microscope.bit_depth} bit, exposure "
        f"{microscope.exposure_ms:g} ms",
        figures={"width": width, "height": height, "exposure_ms": microscope.exposure_ms},
    )


def _first_image(microscope: Microscope) -> tuple[Image, bool]:
    """Return an image and whether it came from a live mode that somebody else runs."""
    if not microscope.is_sequence_running:
        return microscope.snap(), False
    end = time.monotonic() + FIRST_IMAGE_S + microscope.exposure_ms / 1000
    while (image := microscope.newest_live_image()) is None:
        if time.monotonic() > end:
            raise MicroscopeError(
                f"{microscope.camera}: live mode is on, but no image came within "
                f"{FIRST_IMAGE_S:.0f} s; switch it off and on again in Micro-Manager"
            )
        time.sleep(0.01)
    return image, True


def _image(microscope: Microscope, image: Image, *, live: bool) -> Finding:
    pixels, _ = image
    fits = (pixels.shape, pixels.dtype.name) == (microscope.frame_shape, microscope.pixel_type)
    still_live = microscope.is_sequence_running
    how = "the newest one of live mode, which goes on" if live else "one was snapped"
    value = f"{pixels.shape[1]}×{pixels.shape[0]} {pixels.dtype}, {how}"
    if live and not still_live:
        return Finding("image", False, value, "live mode ended meanwhile; was it you? Ask again")
    advice = "the camera's settings changed meanwhile; ask again"
    return Finding("image", fits, value, "" if fits else advice)


def _transfer(microscope: Microscope, *, live: bool) -> Finding:
    """Measure how fast images come, and say which of the two entries that is enough for."""
    read: Callable[[], Image | None] = microscope.snapped
    if live:
        read = microscope.newest_live_image
    began = time.monotonic()
    sizes: list[int] = []
    numbers: list[int] = []
    while len(sizes) < MEASURE_IMAGES and time.monotonic() - began < MEASURE_S:
        if (image := read()) is not None:
            sizes.append(image[0].nbytes)
            numbers.append(int(image[1].get("ImageNumber", -1)))
    seconds = time.monotonic() - began
    images_per_s = len(sizes) / seconds
    counted = numbers[-1] - numbers[0] if numbers else 0
    # What live mode really gives; else the exposure alone bounds it.
    camera_hz = counted / seconds if counted > 0 else 1000 / max(microscope.exposure_ms, 1e-3)
    entry, advice = _entry(images_per_s, camera_hz)
    return Finding(
        "transfer",
        bool(sizes),
        f"{sum(sizes) / seconds / 1e6:.0f} MB/s, {images_per_s:.0f} images/s; the camera gives "
        f"{'' if counted > 0 else 'up to '}{camera_hz:.0f} images/s",
        advice,
        figures={
            "mb_per_s": sum(sizes) / seconds / 1e6,
            "images_per_s": images_per_s,
            "camera_images_per_s": camera_hz,
            "entry": entry,
        },
    )


def _entry(images_per_s: float, camera_hz: float) -> tuple[str, str]:
    """Return the entry that keeps up with the camera, and what to write in a script."""
    if images_per_s >= 2 * camera_hz:
        return "image_process_fn", "image_process_fn suffices at this exposure"
    if images_per_s >= camera_hz:
        return (
            "image_process_fn, mode='sink'",
            "image_process_fn suffices with mode='sink'; as a tap every image goes back as well, "
            "so use image_saved_fn there",
        )
    return "image_saved_fn", "use image_saved_fn: images are then read from the disk"


def _window(port: int) -> Finding:
    """Ask how Micro-Manager's own acquisitions are saved: only NDTiff can be followed."""
    try:
        root, saving = multi_d_saving(port)
    except Exception:  # an old or a headless Micro-Manager; the bridge has no type of its own
        value = "this Micro-Manager has no Multi-D window to ask, as one without a display"
        return Finding("multi-d", True, value, "what a script acquires goes through the hook")
    if saving == FOLLOWED_FORMAT:
        return Finding("multi-d", True, f"its acquisitions are saved as NDTiff in {root}")
    now = f"saved as {saving}" if saving else "not saved"
    advice = (
        "to have them denoised as they are saved, tick 'Save Images' in the Multi-D window and "
        "choose the saving format 'NDTiff'"
    )
    return Finding("multi-d", True, f"its acquisitions are {now}", advice)


def _test_acquisition(microscope: Microscope, *, live: bool, wanted: bool) -> Finding:
    name = "hook"
    if not wanted:
        return Finding(
            name, True, "not tried", f"--test-acquisition takes {TEST_FRAMES} images through it"
        )
    if live or microscope.is_sequence_running:
        return Finding(name, False, "not tried: live mode is on", "switch it off and ask again")
    from ..acquisition.live import LiveDenoiser
    from ..acquisition.microscope.planned_events import planned_events
    from ..acquisition.run_acquisition import run_acquisition

    with tempfile.TemporaryDirectory(prefix="quietscope-") as folder:
        run = Path(folder) / "run"
        with LiveDenoiser(output=run, mode="sink", microscope=microscope) as stream:
            run_acquisition(
                stream, planned_events(microscope, TEST_FRAMES), port=microscope.settings.port
            )
        report = stream.report
    recorded, delivered = report["frames_recorded"], report["frames_delivered"]
    passed = recorded == delivered == TEST_FRAMES
    return Finding(
        name,
        passed,
        f"{delivered} of {TEST_FRAMES} images came to the hook, {recorded} recorded",
        "" if passed else "look into Micro-Manager's CoreLog for what its engine says",
        figures={"frames_delivered": delivered, "frames_recorded": recorded},
    )
