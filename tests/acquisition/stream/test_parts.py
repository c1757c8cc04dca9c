"""The parts of the stream one by one: stages, counts, the run directory, the microscope."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st

from quietscope.acquisition.errors import MicroscopeError
from quietscope.acquisition.microscope.core import MicroscopeSettings, close_core, open_microscope
from quietscope.acquisition.microscope.options import settings_from_options
from quietscope.acquisition.sources.pycromanager_hook import FrameMaker
from quietscope.acquisition.stream.accounting import Accounting, Durations, FrameNumbers
from quietscope.acquisition.stream.camera_state import CameraState
from quietscope.acquisition.stream.context import (
    MAX_CONTEXTS,
    Context,
    Contexts,
    observations,
)
from quietscope.acquisition.stream.frame import Frame
from quietscope.acquisition.stream.frame_pool import FramePool
from quietscope.acquisition.stream.recorder import Recorder
from quietscope.acquisition.stream.run_directory import RunDirectory
from quietscope.acquisition.stream.stage import Inbox, Stage
from quietscope.calibration.fingerprint import CameraFingerprint
from quietscope.storage.atomic_output import OutputError
from quietscope.storage.axis_map import Place
from quietscope.storage.open_stack import open_stack

# ---------------------------------------------------------------------------------- stages


class Collecting(Stage):
    def __init__(self, fail_at=None, gate=None, **bounds):
        super().__init__("collector", **{"max_items": 4, "max_bytes": 100, **bounds})
        self.seen = []
        self.fail_at = fail_at
        self.gate = gate or threading.Event()
        if gate is None:
            self.gate.set()

    def _handle(self, item):
        self.gate.wait()
        if item == self.fail_at:
            raise ValueError(f"cannot take {item}")
        self.seen.append(item)


def test_a_stage_handles_everything_in_order_before_it_ends():
    stage = Collecting()
    stage.start()
    for item in range(100):
        assert stage._inbox.put(item, 10)
    stage.close()
    assert stage.seen == list(range(100))
    assert stage.error is None


def test_the_first_exception_is_kept_and_producers_are_let_go():
    stage = Collecting(fail_at=3)
    stage.start()
    taken = [stage._inbox.put(item, 10) for item in range(50)]
    stage.close()
    assert stage.seen == [0, 1, 2]
    assert isinstance(stage.error, ValueError)
    assert taken[:4] == [True] * 4
    assert not taken[-1]


@pytest.mark.parametrize(("size", "fits"), [(1, 4), (30, 3), (1000, 1)])
def test_an_inbox_is_bounded_in_number_and_in_bytes(size, fits):
    inbox = Inbox(max_items=4, max_bytes=100)
    for item in range(fits):
        inbox.put(item, size)
    late = threading.Thread(target=inbox.put, args=(99, size))
    late.start()
    late.join(0.1)
    assert late.is_alive()  # it waits
    assert inbox.take() == 0
    late.join(5)
    assert not late.is_alive()


def test_displacing_never_waits_and_returns_the_oldest():
    inbox = Inbox(max_items=2, max_bytes=1000)
    assert inbox.displace("a", 1) == []
    assert inbox.displace("b", 1) == []
    assert inbox.displace("c", 1) == ["a"]
    inbox.end()
    assert inbox.displace("d", 1) == ["d"]
    assert [inbox.take(), inbox.take(), inbox.take()] == ["b", "c", None]


# ------------------------------------------------------------------------------ accounting


@given(st.lists(st.integers(1_000, 60_000_000_000), min_size=1, max_size=300))
def test_durations_are_right_to_two_percent(durations_ns):
    durations = Durations()
    for duration in durations_ns:
        durations.add(duration)
    for percent in (50, 95, 99):
        exact = np.percentile(durations_ns, percent, method="inverted_cdf") / 1e6
        assert durations.percentile_ms(percent) == pytest.approx(exact, rel=0.021)
    assert durations.result()["max"] == max(durations_ns) / 1e6


def test_figures_can_be_asked_for_while_they_are_counted():
    durations = Durations()
    stop = threading.Event()

    def count():
        while not stop.is_set():
            for exponent in range(3, 11):
                durations.add(10**exponent)

    counting = threading.Thread(target=count)
    counting.start()
    try:
        for _ in range(2000):
            durations.histogram()
            durations.result()
    finally:
        stop.set()
        counting.join()
    assert len(durations.histogram()) == 8


def test_nothing_counted_is_none_and_not_zero():
    assert Durations().result() == {"p50": None, "p95": None, "p99": None, "max": None}


@given(st.lists(st.lists(st.booleans(), min_size=1, max_size=40), min_size=1, max_size=5))
def test_exactly_the_frames_that_are_left_out_are_missing(sequences):
    """Several hardware sequences, from each of which some frames never come."""
    numbers = FrameNumbers()
    found = 0
    lost = 0
    last_sent = None
    for sequence in sequences:
        lost_here = 0
        for number, comes in enumerate(sequence):
            if not comes:
                lost_here += 1
                continue
            if lost_here == number and last_sent is not None and number > last_sent:
                return  # a new sequence that looks like a gap in the last one: nobody can tell
            found += numbers.missing_before({"ImageNumber": str(number), "Camera": "c"})
            lost += lost_here
            lost_here = 0
            last_sent = number
    assert found == lost


def test_frames_without_a_number_are_not_judged():
    numbers = FrameNumbers()
    assert [numbers.missing_before({}) for _ in range(3)] == [0, 0, 0]
    assert numbers.missing_before({"ImageNumber": "many"}) == 0


def test_each_camera_counts_for_itself():
    numbers = FrameNumbers()
    tags = [{"Camera": c, "ImageNumber": n} for n in range(3) for c in ("left", "right")]
    assert [numbers.missing_before(t) for t in tags] == [0] * 6


# ------------------------------------------------------------------------------------ hook


@pytest.mark.parametrize(
    ("tags", "roi"),
    [
        ({"ROI-X-start": "8", "ROI-Y-start": "16"}, (8, 16, 6, 4)),
        ({"ROI-X-start": 8, "ROI-Y-start": 16, "Binning": "2x2"}, (16, 32, 12, 8)),
        ({"ROI": "8-16-6-4", "Binning": "2"}, (16, 32, 12, 8)),  # Java's core
        ({"ROI": "nowhere"}, None),
        ({}, None),
    ],
)
def test_the_region_is_read_from_the_images_own_tags(tags, roi):
    metadata = {**tags, "Exposure-ms": "7.5"}
    image = np.zeros((4, 6), "uint16")
    frame = FrameMaker(CameraState()).frame(image, {"time": 0}, metadata, received_ns=0)
    assert frame.roi == roi
    assert frame.exposure_ms == 7.5


# ------------------------------------------------------------------------------ frame memory


def test_memory_of_a_frame_is_used_again_only_when_nobody_holds_it():
    pool = FramePool()
    first = pool.copy(np.full((4, 6), 1, "uint16"))
    view = first[1:3]
    second = pool.copy(np.full((4, 6), 2, "uint16"))
    del first
    third = pool.copy(np.full((4, 6), 3, "uint16"))
    assert (view == 1).all()
    assert (second == 2).all()
    assert (third == 3).all()
    address = view.base.__array_interface__["data"] if view.base is not None else None
    del view
    fourth = pool.copy(np.full((4, 6), 4, "uint16"))
    assert fourth.__array_interface__["data"] == address
    with pytest.raises(ValueError, match="read-only"):
        fourth[0, 0] = 9


def test_frames_of_another_kind_get_memory_of_their_own():
    pool = FramePool()
    held = pool.copy(np.full((4, 6), 1, "uint16"))
    other = pool.copy(np.full((6, 4), 2, "uint16"))
    del held
    again = pool.copy(np.full((6, 4), 3, "uint16"))
    assert (other == 2).all()
    assert (again == 3).all()
    fortran = np.asfortranarray(np.arange(24, dtype="uint16").reshape(4, 6))
    np.testing.assert_array_equal(pool.copy(fortran), fortran)


# --------------------------------------------------------------------------------- context


def test_context_beyond_memory_is_read_back(monkeypatch):
    monkeypatch.setattr("quietscope.acquisition.stream.context.MAX_CONTEXT_BYTES", 250)
    stored = {
        Place(p, t, 0, 0): np.full((10, 10), 10 * p + t, "u1") for p in range(5) for t in (0, 1)
    }
    read_back = []

    def read(place):
        read_back.append(place)
        return stored.get(place)

    context = Context(read)
    given_back = {}
    for t in (0, 1):
        for p in range(5):
            place = Place(p, t, 0, 0)
            earlier = context.side_inputs(place, 2)
            given_back[place] = observations(stored[place], earlier, 2)[:, 0, 0].tolist()
            context.push(place, lambda place=place: stored[place], frame_bytes=100, count=2)
    assert read_back  # five positions do not fit
    for place, values in given_back.items():
        now = 10 * place.position + place.time
        assert values == ([now, now - 1, 0] if place.time else [now, 0, 0])


def test_only_parts_that_were_used_last_are_remembered():
    class Numbered:
        def __init__(self, number):
            self.number = number

    read = []
    contexts = Contexts(lambda part, place: read.append((part.number, place.time)))
    first = contexts.of(Numbered(0))
    for number in range(1, MAX_CONTEXTS):
        contexts.of(Numbered(number))
    assert contexts.of(Numbered(0)) is first
    contexts.of(Numbered(MAX_CONTEXTS))
    assert contexts.of(Numbered(0)) is first  # number 1 was the oldest
    for number in range(1, MAX_CONTEXTS + 1):
        contexts.of(Numbered(number))
    assert contexts.of(Numbered(0)) is not first
    (load,) = contexts.of(Numbered(3)).side_inputs(Place(0, 1, 0, 0), 1)
    assert load() is None
    assert read == [(3, 0)]


# ---------------------------------------------------------------------------- run directory


def recorded_run(path, frames=3):
    """A run as the recorder leaves it, whose every pixel is the number of its frame."""
    run = RunDirectory(path)
    run.claim()
    counts = Accounting()
    recorder = Recorder(run, counts, lambda recorded: None)
    recorder.start()
    for index in range(frames):
        assert recorder.put(numbered_frame(index))
    recorder.close()
    run.write_report({"frames_recorded": counts.recorded})
    run.release()
    return run


def numbered_frame(index, value=None):
    pixels = np.full((8, 12), index if value is None else value, np.uint16)
    return Frame(pixels, index, {"time": index}, CameraFingerprint(), 1.0, 0, {})


def test_a_lock_file_that_was_left_behind_stops_nobody(tmp_path):
    (tmp_path / ".run.lock").write_text("half a li", encoding="utf-8")
    run = RunDirectory(tmp_path / "run")
    run.claim()
    run.release()


def test_an_earlier_run_stays_until_a_frame_of_the_new_one_is_on_the_disk(tmp_path):
    recorded_run(tmp_path / "run")
    run = RunDirectory(tmp_path / "run")
    with pytest.raises(OutputError, match="--overwrite"):
        run.claim()
    run.claim(overwrite=True)
    assert names_in(run.path) == ["events.log"]
    run.release()  # it failed before its first frame
    assert [int(frame[0, 0]) for frame in open_stack(run.path)] == [0, 1, 2]

    run = RunDirectory(tmp_path / "run")
    run.claim(overwrite=True)
    recorder = Recorder(run, Accounting(), lambda recorded: None)
    recorder.start()
    recorder.put(numbered_frame(0, value=77))
    recorder.close()
    run.release()
    assert [int(frame[0, 0]) for frame in open_stack(run.path)] == [77]
    assert names_in(tmp_path) == ["run"]


def test_a_kill_before_the_first_frame_costs_nothing_of_the_earlier_run(tmp_path):
    recorded_run(tmp_path / "run")
    program = f"""
import os
from quietscope.acquisition.stream.run_directory import RunDirectory
RunDirectory({str(tmp_path / "run")!r}).claim(overwrite=True)
os._exit(1)
"""
    subprocess.run([sys.executable, "-c", program], check=False)
    run = RunDirectory(tmp_path / "run")
    with pytest.raises(OutputError, match="already exists"):
        run.claim()
    assert [int(frame[0, 0]) for frame in open_stack(run.path)] == [0, 1, 2]
    assert names_in(tmp_path) == ["run"]


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


# ------------------------------------------------------------------------------ microscope


@pytest.fixture(scope="module")
def demo():
    return MicroscopeSettings()


def test_what_was_changed_is_set_back(demo):
    with open_microscope(demo) as microscope:
        before = {
            name: microscope.property_or_none(name)
            for name in ("Binning", "Mode", "PixelType", "Exposure", "Photon Flux")
        }
        region = microscope.roi
    changed = MicroscopeSettings(exposure_ms=3.5, roi=(10, 20, 128, 64))
    with open_microscope(changed) as microscope:
        assert microscope.exposure_ms == 3.5
        assert microscope.frame_shape == (64, 128)
        microscope.set_property("Mode", "Noise")
        microscope.set_property("Photon Flux", 7)
        microscope.set_property("Photon Flux", 8)
        microscope.set_property("Binning", "2")
    with open_microscope(demo) as microscope:
        assert {name: microscope.property_or_none(name) for name in before} == before
        assert microscope.roi == region


def test_it_is_set_back_after_an_error_too(demo):
    def fail():
        with open_microscope(demo) as microscope:
            microscope.exposure_ms = 13.5
            raise KeyError

    with open_microscope(demo) as microscope:
        before = microscope.exposure_ms
    with pytest.raises(KeyError):
        fail()
    with open_microscope(demo) as microscope:
        assert microscope.exposure_ms == before


def test_the_fingerprint_says_what_noise_depends_on(demo):
    with open_microscope(demo) as microscope:
        first = microscope.fingerprint()
        microscope.set_property("Photon Conversion Factor", 2)
        microscope.set_property("Binning", "2")
        second = microscope.fingerprint()
    assert first.camera == "DemoCamera-MultiMode"
    assert (first.pixel_type, first.bit_depth, first.roi) == ("uint16", 16, (0, 0, 512, 512))
    differences = first.differences(second)
    assert len(differences) == 2
    assert any("binning is 2" in difference for difference in differences)
    assert any("gain setting" in difference for difference in differences)
    assert second.roi == (0, 0, 512, 512)  # in sensor pixels


def test_colour_is_refused(demo):
    with open_microscope(demo) as microscope:
        microscope.set_property("PixelType", "32bitRGB")
        with pytest.raises(MicroscopeError, match="expected 8- or 16-bit grey"):
            _ = microscope.pixel_type


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (MicroscopeSettings(mm_dir=Path("nowhere"), config=Path("x.cfg")), "--mm-dir nowhere"),
        (MicroscopeSettings(config=Path("x.cfg")), "give both"),
        (MicroscopeSettings(attach=True, port=1), "no Micro-Manager answers on port 1 "),
    ],
)
def test_a_microscope_that_is_not_there(settings, message):
    with pytest.raises(MicroscopeError, match=message) as caught, open_microscope(settings):
        pass
    assert "\n" not in str(caught.value)


def test_a_broken_configuration_is_named_and_the_next_core_starts(tmp_path, demo):
    from mm_test_adapters import device_adapter_path

    config = tmp_path / "broken.cfg"
    config.write_text("Device,Camera,NoSuchAdapter,Nothing\n", encoding="utf-8")
    broken = MicroscopeSettings(mm_dir=Path(device_adapter_path()), config=config)
    with pytest.raises(MicroscopeError, match=r"broken\.cfg: Micro-Manager's core cannot"):
        open_microscope(broken).__enter__()
    with open_microscope(demo) as microscope:
        assert microscope.frame_shape == (512, 512)


def test_the_engine_works_again_after_another_core(demo):
    from pycromanager import Acquisition, multi_d_acquisition_events

    close_core()
    with open_microscope(demo):
        images = []
        with Acquisition(image_process_fn=lambda image, _: images.append(image)) as acquisition:
            acquisition.acquire(multi_d_acquisition_events(num_time_points=3))
    assert len(images) == 3


def test_importing_the_stream_needs_no_torch():
    program = (
        "import sys, quietscope.acquisition.live, quietscope.storage.ome_zarr_writer;"
        "print([m for m in ('torch', 'PySide6', 'matplotlib') if m in sys.modules])"
    )
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert said.stdout.strip() == "[]", said.stderr


# ---------------------------------------------------------------------------------- options


def test_options_become_settings():
    settings = settings_from_options(
        exposure_ms=5.0, roi="1,2,30,40", channel=["DAPI"], z="-2,2,0.5", interval_s=0.1
    )
    assert settings == MicroscopeSettings(
        exposure_ms=5.0,
        roi=(1, 2, 30, 40),
        channels=("DAPI",),
        z_um=(-2.0, 2.0, 0.5),
        interval_s=0.1,
        specimen=True,
    )
    assert settings.simulated
    assert not settings_from_options(attach=True).specimen
    assert not settings_from_options(specimen=False).specimen


@pytest.mark.parametrize(
    "options",
    [
        {"demo": True, "attach": True},
        {"mm_dir": Path("x")},
        {"roi": "1,2,3"},
        {"roi": "a,b,c,d"},
        {"z": "0,4,0"},
        {"z": "4,0,1"},
        {"z_absolute": True},
    ],
)
def test_contradictions_are_wrong_usage(options):
    with pytest.raises(typer.BadParameter):
        settings_from_options(**options)
