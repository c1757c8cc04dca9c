"""Metadata that JSON cannot hold cost no frame."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quietscope.acquisition import LiveDenoiser
from quietscope.acquisition.stream.run_directory import read_frame_log
from quietscope.acquisition.stream.storable_metadata import storable
from quietscope.storage.open_stack import open_stack
from quietscope.storage.written_frames import written_frames


class Wordless:
    def __repr__(self):
        return "wordless"

    def __str__(self):
        raise RuntimeError("no words")


def a_cycle():
    value = {}
    value["itself"] = value
    return value


def a_nest(depth=2000):
    value = []
    for _ in range(depth):
        value = [value]
    return value


ODD = {
    "surrogate": "half \ud800",
    "tuple keys": {(1, 2): "x"},
    "cycle": a_cycle(),
    "nest": a_nest(),
    "nan": math.nan,
    "infinity": [math.inf],
    "wordless": Wordless(),
    "image": np.zeros((512, 512)),
    "\udfff": 1,
    ("a", "tuple"): 1,
    Wordless(): 1,
}


@pytest.mark.parametrize("name", ODD, ids=repr)
def test_each_odd_value_is_stored_or_dropped_with_its_name(name):
    kept, altered = storable({"good": 1, name: ODD[name]})
    json.dumps(kept, allow_nan=False).encode("utf-8")
    assert kept["good"] == 1
    assert len(altered) == 1


@pytest.mark.filterwarnings("ignore:The truth value of an empty array:DeprecationWarning")
@given(st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
))  # fmt: skip
def test_what_json_holds_stays_as_it_is(value):
    kept, altered = storable({"value": value})
    text = json.dumps(kept, allow_nan=False)
    text.encode("utf-8")
    if not altered:
        assert json.loads(text) == {"value": value}


def test_pixels_first(tmp_path):
    """Twenty frames, each with something else that JSON cannot hold: twenty on the disk."""
    run = tmp_path / "run"
    oddities = [{name: value} for name, value in ODD.items()] + [
        {"Binning": math.nan},
        {"ROI-X-start": math.inf, "ROI-Y-start": 0},
        {"ROI": "1e400-0-8-8"},
        {"ImageNumber": math.inf},
        {"Exposure": "\ud800"},
        {"Camera": None, "Core-Camera": "\ud800"},
        {"Axes": None},
        {"PixelSizeUm": math.nan},
        {"BitDepth": 10**400},
        {"Core-Camera": {"a": 1}},
    ]
    with LiveDenoiser(output=run, mode="sink") as live:
        for t, tags in enumerate(oddities):
            image = np.full((8, 8), t, "uint16")
            live.image_process_fn(image, {"Axes": {"time": t}, "fine": t, **tags})
    assert live.report["frames_recorded"] == len(oddities) == 21
    values, stores = [], sorted(run.glob("raw*.ome.zarr"))
    for store in stores:
        for image in [store / "0", store / "1"] if (store / "OME").is_dir() else [store]:
            there = np.flatnonzero(written_frames(image).ravel())
            values += [int(open_stack(image).frame(int(i))[0, 0]) for i in there]
    assert sorted(values) == list(range(21))
    lines = [line for _, _, line in read_frame_log(run / "frames.jsonl")]
    assert [line["metadata"]["fine"] for line in lines] == list(range(21))
    assert "metadata that JSON cannot hold" in (run / "events.log").read_text(encoding="utf-8")
