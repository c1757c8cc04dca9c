from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import warnings
from itertools import product
from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from quietscope.storage.atomic_output import OutputError
from quietscope.storage.axis_map import AxisMap, Place
from quietscope.storage.ome_zarr_writer import OmeZarrWriter
from quietscope.storage.open_stack import open_stack
from quietscope.storage.tensorstore_backend import MAX_BLOCK
from quietscope.storage.written_frames import written_frames

SHAPE = (24, 40)


def coded(number: int, dtype: str = "uint16") -> np.ndarray:
    """A frame that says which one it is in its first pixel and nowhere repeats itself."""
    frame = np.arange(SHAPE[0] * SHAPE[1]).reshape(SHAPE) % 251
    frame[0, 0] = number
    return frame.astype(dtype)


def number_of(frame: np.ndarray) -> int:
    return int(frame[0, 0])


def writer(path: Path, **options) -> OmeZarrWriter:
    return OmeZarrWriter(path, frame_shape=SHAPE, **{"dtype": "uint16", **options})


def test_a_time_series_reads_back_with_its_metadata(tmp_path):
    path = tmp_path / "a stack.ome.zarr"
    with writer(path, pixel_size_um=0.11, attributes={"quietscope": {"kind": "raw"}}) as store:
        for t in range(70):
            store.write(coded(t), {"time": t})
        assert store.frames_written == 70
    stack = open_stack(path)
    assert stack.sizes == {"time": 70, "channel": 1, "z": 1}
    assert stack.pixel_size_um == pytest.approx(0.11)
    assert stack.attributes["quietscope"] == {"kind": "raw"}
    for t, frame in enumerate(stack):
        np.testing.assert_array_equal(frame, coded(t))


CASES = {
    "channels by name, not all known": [
        {"time": t, "channel": c} for t in range(3) for c in ("GFP", "RFP", "late")
    ],
    "planes": [{"time": t, "z": z} for t in range(2) for z in range(5)],
    "positions": [{"time": t, "position": p} for t in range(3) for p in range(4)],
    "everything, in an odd order": [
        {"position": p, "channel": c, "z": z, "time": t}
        for c in ("b", "a")
        for z in (2, 0, 1)
        for p in (1, 0)
        for t in (1, 0)
    ],
    "labels for positions": [{"time": t, "position": p} for t in range(2) for p in ("A1", "B/2")],
    "a tiled scan": [{"row": r, "column": c} for r in range(2) for c in range(3)],
    "several cameras": [{"time": t, "camera": c} for t in range(2) for c in ("left", "right")],
    "planes below zero": [{"z": z} for z in (-2, -1, 0, 1)],
    "no axes at all": [{}],
}


@pytest.mark.parametrize("name", CASES)
def test_every_frame_lands_where_its_axes_say(tmp_path, name):
    axes_of_frames = CASES[name]
    with writer(tmp_path / "s.ome.zarr") as store:
        places = AxisMap(number_as_they_appear=False)
        at = {}
        for number, axes in enumerate(axes_of_frames):
            store.write(coded(number), axes)
            at[places.place(axes)] = number
    assert len(at) == len(axes_of_frames)  # no two frames share a place
    stack = open_stack(tmp_path / "s.ome.zarr")
    written = written_frames(tmp_path / "s.ome.zarr")
    assert written.shape == tuple(stack.sizes.values())
    assert written.sum() == len(axes_of_frames)
    for place, number in at.items():
        axes = {"time": place.time, "channel": place.channel, "z": place.z}
        axes |= {"position": place.position or 0} if "position" in stack.sizes else {}
        np.testing.assert_array_equal(stack.frame(stack.index(axes)), coded(number))


def test_a_second_position_turns_an_image_into_a_collection(tmp_path):
    path = tmp_path / "s.ome.zarr"
    about = {"quietscope": {"kind": "raw"}}
    with writer(path, attributes=about, axis_map=AxisMap()) as store:
        for t in range(3):
            store.write(coded(t), {"time": t})
        store.flush()
        assert [number_of(f) for f in open_stack(path)] == [0, 1, 2]
        store.write(coded(50), {"time": 0, "position": 1})
        store.write(coded(3), {"time": 3})
        assert number_of(store.read({"time": 1})) == 1
    assert json.loads((path / "OME" / "zarr.json").read_text(encoding="utf-8"))["attributes"][
        "ome"
    ]["series"] == ["0", "1"]
    assert [number_of(f) for f in open_stack(path / "0")] == [0, 1, 2, 3]
    assert [number_of(f) for f in open_stack(path / "1")] == [50]
    assert open_stack(path / "1").attributes["quietscope"] == {"kind": "raw"}


def test_arrays_end_with_the_last_frame(tmp_path):
    with writer(tmp_path / "s.ome.zarr") as store:
        for t in range(MAX_BLOCK * 2 + 3):
            store.write(coded(t), {"time": t})
    assert open_stack(tmp_path / "s.ome.zarr").sizes["time"] == MAX_BLOCK * 2 + 3


def test_readable_while_it_grows(tmp_path):
    path = tmp_path / "s.ome.zarr"
    with writer(path) as store:
        for t in range(40):
            store.write(coded(t), {"time": t})
            if t in (0, 7, 39):
                store.flush()
                stack = open_stack(path)
                assert stack.sizes["time"] >= t + 1
                assert written_frames(path).sum() == t + 1
                assert number_of(stack.frame(t)) == t


def test_a_slow_series_shows_no_frame_that_is_not_there(tmp_path):
    path = tmp_path / "s.ome.zarr"
    with writer(path) as store:
        for t in range(4):
            store.write(coded(t), {"time": t})
            store.flush()
            assert open_stack(path).sizes["time"] == t + 1
            time.sleep(0.25)


def test_black_frames_count_as_written(tmp_path):
    path = tmp_path / "s.ome.zarr"
    with writer(path, dtype="uint8") as store:
        store.write(np.zeros(SHAPE, "uint8"), {"time": 0})
        store.write(np.zeros(SHAPE, "uint8"), {"time": 2})
    np.testing.assert_array_equal(written_frames(path).ravel(), [True, False, True])


def test_the_caller_may_use_its_buffer_again_at_once(tmp_path):
    buffer = np.empty(SHAPE, "float32")
    with writer(tmp_path / "s.ome.zarr", dtype="float32") as store:
        for t in range(50):
            buffer[:] = t
            store.write(buffer, {"time": t})
    assert [float(f.min()) for f in open_stack(tmp_path / "s.ome.zarr")] == list(range(50))


def test_resume_goes_on_and_keeps_what_is_there(tmp_path):
    path = tmp_path / "s.ome.zarr"
    about = {"quietscope": {"x": 1}}
    with writer(path, channel_names=["a", "b"], attributes=about, axis_map=AxisMap()) as store:
        store.write(coded(1), {"time": 0, "channel": "a"})
        store.write(coded(2), {"time": 3, "channel": "b", "position": 1})
    with writer(path, resume=True) as store:
        assert store.frames_written == 2
        assert store.channel_names == ("a", "b")
        assert store.holds({"time": 0, "channel": "a"})
        assert not store.holds({"time": 0, "channel": "b"})
        store.write(coded(3), {"time": 9, "channel": "b"})
        assert number_of(store.read({"time": 3, "channel": "b", "position": 1})) == 2
    assert open_stack(path / "0").sizes == {"time": 10, "channel": 2, "z": 1}
    assert open_stack(path / "0").channel_names == ("a", "b")
    assert open_stack(path / "0").attributes["quietscope"] == {"x": 1}
    assert written_frames(path / "0").sum() == 2


def test_resume_refuses_frames_of_another_kind(tmp_path):
    with writer(tmp_path / "s.ome.zarr") as store:
        store.write(coded(1), {"time": 0})
    with pytest.raises(OutputError, match=r"holds frames of \(24, 40\) uint16"):
        writer(tmp_path / "s.ome.zarr", dtype="float32", resume=True)


def test_what_is_there_is_not_written_over(tmp_path):
    path = tmp_path / "s.ome.zarr"
    with writer(path) as store:
        store.write(coded(7), {"time": 0})
    with pytest.raises(OutputError, match="--overwrite"):
        writer(path)
    assert number_of(open_stack(path).frame(0)) == 7
    with writer(path, overwrite=True) as store:
        store.write(coded(8), {"time": 0})
    assert number_of(open_stack(path).frame(0)) == 8


def test_overwrite_spares_folders_of_others(tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("years of work", encoding="utf-8")
    with pytest.raises(OutputError):
        writer(tmp_path / "thesis", overwrite=True)
    assert (tmp_path / "thesis" / "chapter.txt").exists()


@pytest.mark.parametrize(
    "frame", [np.zeros((24, 41), "uint16"), np.zeros(SHAPE, "uint8"), np.zeros((1, *SHAPE), "u2")]
)
def test_frames_of_another_kind_are_refused(tmp_path, frame):
    with (
        writer(tmp_path / "s.ome.zarr") as store,
        pytest.raises(OutputError, match=r"expected \(24, 40\) uint16"),
    ):
        store.write(frame, {"time": 0})


def test_a_write_error_surfaces_and_earlier_frames_stay(tmp_path):
    path = tmp_path / "s.ome.zarr"
    store = writer(path, max_in_flight=2)
    for t in range(5):
        store.write(coded(t), {"time": t})
    store.flush()
    (path / "0" / "c.7.0.0.0.0").mkdir()  # a folder where the file of frame 7 has to go

    def write_on():
        for t in range(5, 30):
            store.write(coded(t), {"time": t})

    with pytest.raises(OutputError, match=r"s\.ome\.zarr: cannot be written"):
        write_on()
    with pytest.raises(OutputError, match=r"s\.ome\.zarr: cannot be written"):
        store.close()
    (path / "0" / "c.7.0.0.0.0").rmdir()
    assert [number_of(open_stack(path).frame(t)) for t in range(5)] == list(range(5))


def test_a_failed_write_that_a_reader_meets_first_is_raised_for_the_writer_too(tmp_path):
    path = tmp_path / "s.ome.zarr"
    store = writer(path)
    store.write(coded(0), {"time": 0})
    store.flush()
    (path / "0" / "c.1.0.0.0.0").mkdir()
    store.write(coded(1), {"time": 1})
    with pytest.raises(OutputError, match="cannot be written"):
        store.read({"time": 0})
    with pytest.raises(OutputError, match="cannot be written"):
        store.write(coded(2), {"time": 2})
    with pytest.raises(OutputError, match="cannot be written"):
        store.close()
    assert number_of(store.read({"time": 0})) == 0  # the frames before it are read all the same


def test_kill_leaves_every_finished_frame_readable(tmp_path):
    path = tmp_path / "killed.ome.zarr"
    program = f"""
import numpy as np
from quietscope.storage.ome_zarr_writer import OmeZarrWriter
store = OmeZarrWriter({str(path)!r}, frame_shape=(256, 256), dtype="uint16")
for t in range(100_000):
    store.write(np.full((256, 256), t, "uint16"), {{"time": t}}, unchanging=True)
    if t % 50 == 0:
        store.flush()
        print(t, flush=True)
"""
    process = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    flushed = -1
    while flushed < 300:
        flushed = int(process.stdout.readline())
    process.kill()
    for line in process.stdout:
        flushed = int(line)
    process.wait()
    process.stdout.close()

    written = written_frames(path).ravel()
    assert written[: flushed + 1].all()
    stack = open_stack(path)
    for t in np.flatnonzero(written):
        assert (stack.frame(int(t)) == t).all()  # whole frames only
    with OmeZarrWriter(path, frame_shape=(256, 256), dtype="uint16", resume=True) as store:
        assert store.frames_written == written.sum()
        store.write(np.full((256, 256), 9, "uint16"), {"time": int(written.sum())})
    assert open_stack(path).sizes["time"] == max(
        written.sum() + 1, np.flatnonzero(written)[-1] + 1
    )


def test_nobody_can_tell_about_stores_of_others(tmp_path):
    zarr.create_array(str(tmp_path / "plain.zarr"), shape=(3, 4, 4), dtype="u2", chunks=(1, 4, 4))
    assert written_frames(tmp_path / "plain.zarr") is None
    assert written_frames(tmp_path / "nothing") is None


def test_plain_zarr_reads_it_without_a_warning(tmp_path):
    with writer(tmp_path / "s.ome.zarr") as store:
        for p in range(2):
            store.write(coded(p), {"time": 0, "position": p})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        group = zarr.open_group(str(tmp_path / "s.ome.zarr"), mode="r")
        names = sorted(name for name, _ in group.groups())
        assert names == ["0", "1", "OME"]
        assert group["1/0"].shape == (1, 1, 1, *SHAPE)
        assert group["1/0"].metadata.dimension_names == ("t", "c", "z", "y", "x")


def test_ngff_validates(tmp_path):
    yaozarrs = pytest.importorskip("yaozarrs")
    with writer(tmp_path / "image.ome.zarr", pixel_size_um=0.2, channel_names=["GFP"]) as store:
        store.write(coded(1), {"time": 0, "channel": "GFP"})
    with writer(tmp_path / "positions.ome.zarr") as store:
        for p in range(2):
            store.write(coded(p), {"time": 0, "position": p})
    with writer(tmp_path / "run.ome.zarr", axis_map=AxisMap()) as store:
        store.write(coded(1), {"time": 0})
        yaozarrs.validate_zarr_store(str(tmp_path / "run.ome.zarr"))
        store.write(coded(1), {"time": 0, "position": 7})
    yaozarrs.validate_zarr_store(str(tmp_path / "run.ome.zarr"))
    yaozarrs.validate_zarr_store(str(tmp_path / "image.ome.zarr"))
    yaozarrs.validate_zarr_store(str(tmp_path / "positions.ome.zarr"))


def test_a_store_without_positions_says_that_one_does_not_fit(tmp_path):
    with writer(tmp_path / "s.ome.zarr") as store:
        store.write(coded(1), {"time": 0})
        with pytest.raises(OutputError, match="begun without positions"):
            store.write(coded(2), {"time": 0, "position": 1})
    assert [number_of(f) for f in open_stack(tmp_path / "s.ome.zarr")] == [1]


KILLED = """
import os, sys
import numpy as np
from quietscope.storage.axis_map import AxisMap
from quietscope.storage.ome_zarr_writer import OmeZarrWriter

TOUCHING = {f"os.{step}" for step in ("mkdir", "rename", "remove", "rmdir")} | {"shutil.rmtree"}

def touches(event, what):
    if event == "open":
        return isinstance(what[0], str) and sys.argv[1] in what[0] and what[2] & os.O_CREAT
    return event in TOUCHING
SCRIPT = [
    *({"time": t} for t in range(2)),
    *({"time": t, "position": p} for t in range(2) for p in (1, 2)),
    {"time": 3, "channel": "late"},
    {"time": 0, "position": 3, "channel": "late"},
]

def record(path, told):
    store = OmeZarrWriter(path, frame_shape=(24, 40), dtype="uint16", axis_map=AxisMap())
    for number, axes in enumerate(SCRIPT, start=1):
        pixels = np.full((24, 40), number, "uint16")
        store.write(pixels, axes)
        store.flush()
        os.write(told, b".")
    store.update_attributes({"quietscope": {"kind": "raw"}})
    store.close()

touched = 0
def kill_at(point):
    def hook(event, what):
        global touched
        touched += bool(touches(event, what))
        if touched > point:
            os._exit(9)
    return hook

for point in range(int(sys.argv[2]), 1000, 2):
    told = os.open(f"{sys.argv[1]}/{point:03}.told", os.O_CREAT | os.O_WRONLY)
    child = os.fork()
    if child == 0:
        sys.addaudithook(kill_at(point))
        record(f"{sys.argv[1]}/{point:03}.ome.zarr", told)
        os._exit(0)
    os.close(told)
    if os.waitpid(child, 0)[1] == 0:
        break
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs fork, to try every point in a second")
def test_a_kill_at_any_point_leaves_a_store_that_opens(tmp_path):
    """Killed before each step that touches the disk, late positions and channels included."""
    programs = [
        subprocess.Popen([sys.executable, "-W", "ignore", "-c", KILLED, str(tmp_path), str(first)])
        for first in (0, 1)
    ]
    assert [program.wait(timeout=60) for program in programs] == [0, 0]
    points = sorted(tmp_path.glob("*.told"))
    assert len(points) > 30, "every step was tried"
    for told in points:
        acknowledged = len(told.read_bytes())
        path = told.with_suffix(".ome.zarr")
        if acknowledged == 0:
            continue
        found = sorted(number_of(frame) for frame in open_stack(path))
        assert found[:acknowledged] == list(range(1, acknowledged + 1)), told.name
        assert written_frames(path).sum() == len(found)
    assert acknowledged == 8, "the last ones came to their end"
    with writer(path, resume=True) as store:
        store.write(coded(77), {"time": 9, "position": 1})
    assert max(number_of(frame) for frame in open_stack(path)) == 77


AFTER_A_FAILURE = """
import resource, sys
import numpy as np
from quietscope.storage.atomic_output import OutputError
from quietscope.storage.ome_zarr_writer import OmeZarrWriter
from quietscope.storage.written_frames import written_frames
resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))  # only noise needs more
noise = np.random.default_rng(0).integers(0, 2**16, (256, 256)).astype("uint16")
store = OmeZarrWriter(sys.argv[1], frame_shape=(256, 256), dtype="uint16", max_in_flight=1)
said = []
for t, image in enumerate([np.zeros_like(noise), noise, np.ones_like(noise)]):
    try:
        store.write(image, {"time": t})
    except OutputError:
        said.append(t)
try:
    store.close()
except OutputError:
    said.append("close")
print(said, store.frames_on_disk(), written_frames(sys.argv[1]).ravel().tolist())
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no limit on the size of files there")
def test_a_frame_after_one_that_failed_counts_if_it_is_there(tmp_path):
    """The failure of one frame is told with the next, which is on the disk all the same."""
    said = subprocess.run(
        [sys.executable, "-c", AFTER_A_FAILURE, str(tmp_path / "s.ome.zarr")],
        capture_output=True,
        text=True,
    )
    assert said.stdout.strip() == "[2, 'close'] 2 [True, False, True]", said.stderr


READERS = {
    "zarr": """
import zarr
image = zarr.open_group(path, mode="r")
pixels = image[image.attrs["ome"]["multiscales"][0]["datasets"][0]["path"]]
names = [channel["label"] for channel in image.attrs["ome"]["omero"]["channels"]]
""",
    "ome_zarr": """
from ome_zarr.io import parse_url
from ome_zarr.reader import Reader
[node, *_] = list(Reader(parse_url(path))())
pixels, names = node.data[0], node.metadata["channel_names"]
""",
    "napari_ome_zarr": """
from napari_ome_zarr import napari_get_reader
[(pyramid, details, kind), *_] = napari_get_reader(path)(path)
assert kind == "image", kind
pixels, names = pyramid[0], details["name"]
names = [names] if isinstance(names, str) else names
pixels = pixels[:, None] if len(pixels.shape) == 4 else pixels
""",
}


@pytest.mark.parametrize("package", READERS)
def test_other_packages_read_it(tmp_path, package):
    """In a process of its own, which may have an environment of its own."""
    path = tmp_path / "s.ome.zarr"
    with writer(path, pixel_size_um=0.2, channel_names=["GFP"]) as store:
        for t in range(3):
            store.write(coded(t), {"time": t, "channel": "GFP"})
    program = (
        f"path = {str(path)!r}\n{READERS[package]}\nimport numpy\nprint("
        "[int(frame[0, 0]) for frame in numpy.asarray(pixels)[:, 0, 0]], list(names))"
    )
    # The readers may live in an environment of their own.
    python = [os.environ.get("QUIETSCOPE_READERS", sys.executable), "-P", "-c"]
    said = subprocess.run([*python, program], cwd=tmp_path, capture_output=True, text=True)
    if "No module named" in said.stderr:
        pytest.skip(f"{package} is not installed")
    assert said.stdout.strip().splitlines()[-1:] == ["[0, 1, 2] ['GFP']"], said.stderr


def test_what_is_shown_is_told_at_the_end(tmp_path):
    path = tmp_path / "s.ome.zarr"
    with writer(path) as store:
        for t, channel in product(range(2), ("GFP", "RFP")):
            store.write(coded(10 * t + (channel == "RFP")), {"time": t, "channel": channel})
        first = store.first_frames()
        assert [int(first[c][0, 0]) for c in (0, 1)] == [0, 1]
        store.update_display_ranges([(0.0, 5.0), (1.0, 9.0)])
    found = open_stack(path)
    assert found.display_ranges == ((0.0, 5.0), (1.0, 9.0))
    assert found.channel_names == ("GFP", "RFP")


axis_values = st.one_of(st.integers(-3, 300), st.sampled_from(["a", "b", "7"]))


@given(
    st.lists(
        st.dictionaries(
            st.sampled_from(["time", "z", "channel", "camera", "position", "row", "angle"]),
            axis_values,
            max_size=4,
        ),
        unique_by=lambda axes: tuple(sorted(axes.items(), key=str)),
    )
)
@settings(max_examples=200)
def test_places_are_stable_and_positions_have_no_gaps(axes_of_frames):
    axis_map = AxisMap()
    places = [axis_map.place(axes) for axes in axes_of_frames]
    again = [axis_map.place(axes) for axes in axes_of_frames]
    settled = [place._replace(position=place.position or 0) for place in places]
    assert settled == [place._replace(position=place.position or 0) for place in again]
    assert all(min(place.tcz) >= 0 for place in places)
    numbers = {place.position or 0 for place in places}
    assert numbers == set(range(len(numbers)))


def test_a_time_stamp_is_no_index():
    assert AxisMap().place({"time": 1_763_640_000}) == Place(None, 0, 0, 0)
