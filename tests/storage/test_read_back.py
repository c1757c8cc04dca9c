"""What was written counts after it was read back: stores by opening them, JSON by parsing it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from quietscope.storage.atomic_output import OutputError, jsonable, write_json
from quietscope.storage.axis_map import AxisMap
from quietscope.storage.ome_zarr_writer import OmeZarrWriter
from quietscope.storage.written_frames import count_written, written_frames


def frame(number):
    return np.full((16, 16), number, np.uint16)


def written(path, frames=5, **options):
    store = OmeZarrWriter(path, frame_shape=(16, 16), dtype="uint16", **options)
    for t in range(frames):
        store.write(frame(t), {"time": t})
    store.flush()
    return store


def test_frames_that_vanish_are_missed_when_the_store_is_closed(tmp_path):
    store = written(tmp_path / "s.ome.zarr")
    (tmp_path / "s.ome.zarr" / "0" / "c.2.0.0.0.0").unlink()
    with pytest.raises(OutputError, match="1 of 5 frames that were written are not on the disk"):
        store.close()


def test_a_store_that_does_not_open_does_not_count(tmp_path):
    store = written(tmp_path / "s.ome.zarr")
    chunk = tmp_path / "s.ome.zarr" / "0" / "c.4.0.0.0.0"
    chunk.write_bytes(chunk.read_bytes()[: chunk.stat().st_size // 2])
    with pytest.raises(ValueError, match="cannot be read"):
        store.close()


def test_what_is_counted_is_on_the_disk(tmp_path):
    path = tmp_path / "s.ome.zarr"
    assert count_written(path) == 0
    store = written(path, axis_map=AxisMap())
    store.write(frame(9), {"time": 7, "position": 3})
    store.close()
    assert count_written(path) == 6
    there = written_frames(path)
    assert there.shape == (2, 8, 1, 1), "as long as the longest of the positions"
    assert there[0].sum() == 5
    assert there[1].ravel().tolist() == [False] * 7 + [True]
    (path / "0" / "0" / "c.1.0.0.0.0").write_bytes(b"")  # what a power cut leaves
    assert count_written(path) == 5


def test_frames_in_flight_are_bounded_in_number_and_in_bytes(tmp_path):
    store = OmeZarrWriter(
        tmp_path / "s.ome.zarr",
        frame_shape=(256, 256),
        dtype="uint16",
        max_in_flight=16,
        max_in_flight_bytes=3 * 256 * 256 * 2,
    )
    for t in range(40):
        store.write(np.full((256, 256), t, np.uint16), {"time": t})
        assert store.frames_in_flight <= 3
        assert count_written(tmp_path / "s.ome.zarr") >= t + 1 - 3
    store.close()
    assert store.frames_in_flight == 0


class Unspeakable:
    def __str__(self):
        return "a value \ud800"


def endless():
    found = {"name": "it"}
    found["self"] = found
    return found


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        ("caf\ud800", "caf\\ud800"),
        ({(1, 2): "tuple"}, {"(1, 2)": "tuple"}),
        (float("nan"), None),
        (10**5000, hex(10**5000)),
        (endless(), {"name": "it", "self": "…"}),
        (Unspeakable(), "a value \\ud800"),
        (Path("a") / "b", str(Path("a") / "b")),
        ({"a"}, ["a"]),
        (np.float32("inf"), None),
    ],
    ids=lambda value: type(value).__name__,
)
def test_json_takes_what_it_is_given(tmp_path, value, plain):
    write_json(tmp_path / "report.json", {"value": value})
    found = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert found == {"value": plain}


def test_what_is_nested_without_end_ends():
    deep = []
    for _ in range(10_000):
        deep = [deep]
    assert len(json.dumps(jsonable(deep))) < 1000


def test_a_disk_that_forgets_is_told_of(tmp_path, monkeypatch):
    write_json(tmp_path / "report.json", {"frames": 1})
    monkeypatch.setattr(Path, "write_text", lambda path, text, **_: path.write_bytes(b"{}"))
    with pytest.raises(OutputError, match="does not give back what was written"):
        write_json(tmp_path / "report.json", {"frames": 2})
    monkeypatch.undo()
    assert json.loads((tmp_path / "report.json").read_text(encoding="utf-8")) == {"frames": 1}
