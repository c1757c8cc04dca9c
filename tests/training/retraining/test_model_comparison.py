"""Two models side by side, and the page of a night: figures, pictures, words."""

from __future__ import annotations

import shutil
from datetime import datetime, timedelta

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from quietscope.inference.errors import InferenceError
from quietscope.inference.library import Library
from quietscope.inference.models_commands import list_models
from quietscope.storage.atomic_output import OutputError
from quietscope.storage.ome_zarr_writer import OmeZarrWriter
from quietscope.training.retraining.comparison_command import compare_two
from quietscope.training.retraining.model_comparison import compare_models
from quietscope.training.retraining.night_page import write_night_page
from quietscope.training.retraining.night_record import (
    DecisionRecord,
    NightRecord,
    write_record,
)

SHAPE = (80, 96)


@pytest.fixture
def library(tmp_path, make_bundle):
    """A short run, and box filters of which the narrowest is right."""
    rough = gaussian_filter(np.random.default_rng(5).random(SHAPE), 3)
    signal = 20 + 1500 * np.clip(rough - 0.5, 0, None)
    place = tmp_path / "the lab"
    pixels = np.random.default_rng(0).poisson(signal, (20, *SHAPE)).astype(np.uint16)
    store = place / "monday" / "raw.ome.zarr"
    with OmeZarrWriter(store, frame_shape=SHAPE, dtype="uint16") as writer:
        for time, frame in enumerate(pixels):
            writer.write(frame, {"time": time})
    for name, radius in (("sharp", 1), ("soft", 6), ("same", 1)):
        shutil.copytree(make_bundle(name, radius=radius), place / "models" / name)
    shutil.copytree(make_bundle("gfp", channel="GFP"), place / "models" / "gfp")
    return place


def test_the_better_model_is_told_and_by_how_much(library):
    shelf = Library(library)
    found = compare_models(shelf, shelf.models_dir / "sharp", shelf.models_dir / "soft")
    assert found.sentence().startswith("A is better than B")
    assert [found.better(score) for score in found.scores] == ["A"]
    assert 0.3 < found.gain.low < found.gain.gain < found.gain.high < 1


def test_a_model_is_no_better_than_itself(library):
    shelf = Library(library)
    found = compare_models(shelf, shelf.models_dir / "sharp", shelf.models_dir / "same")
    assert "neither is better" in found.sentence()
    assert [found.better(score) for score in found.scores] == [None]


def test_models_of_two_channels_are_not_compared(library):
    with pytest.raises(InferenceError, match="of the channels GFP and None"):
        compare_two("sharp", "gfp", library)
    with pytest.raises(InferenceError, match="no model of that name"):
        compare_two("sharp", "nowhere", library)


def test_the_page_has_the_table_and_the_pictures(library, tmp_path):
    page = tmp_path / "side by side.html"
    found = compare_two("soft", "sharp", library, page=page)
    text = page.read_text("utf-8")
    assert text.count("<img") == 1
    assert "monday" in text
    assert "B is better than A" in text
    assert {"mse_a_adu2", "mse_b_adu2", "better", "z_a", "worst_bias_b"} <= set(
        found.result["runs"][0]
    )
    with pytest.raises(OutputError, match="already exists"):
        compare_two("sharp", "soft", library, page=page)
    with pytest.raises(OutputError):
        compare_two("sharp", "soft", library, page=library / "monday" / "page.html")


def test_the_night_leaves_a_page_that_the_list_of_models_names(library):
    began = datetime(2026, 3, 1, 22).astimezone()
    decision = DecisionRecord(
        decision="promoted",
        reason="less error by 12 %",
        candidate=str(library / "models" / "sharp"),
        before=str(library / "models" / "soft"),
        figures={"relative_gain": 0.12, "candidate_mse_adu2": 3.0, "gain_db": None},
        runs=("monday/raw.ome.zarr",),
    )
    for nights_ago in (2, 1, 0):
        begun = began - timedelta(days=nights_ago)
        record = NightRecord(
            night=begun.date(),
            started=begun,
            ended=begun + timedelta(hours=2),
            state="done",
            decisions=(decision,),
        )
        write_record(library, record)
    page = write_night_page(library, record)
    text = page.read_text("utf-8")
    assert text.count("<img") == 2, "before and after, and the development over the nights"
    assert "less error by 12 %" in text
    assert "monday" in text
    listed = list_models(library)
    assert listed.result["last_page"] == str(page)


def test_a_night_without_pictures_still_has_its_page(library):
    gone = DecisionRecord(
        decision="kept",
        reason="no better",
        candidate=str(library / "models" / "pruned"),
        runs=("monday/raw.ome.zarr",),
    )
    record = NightRecord(
        night=datetime(2026, 3, 1).date(),
        started=datetime(2026, 3, 1, 22).astimezone(),
        state="failed",
        failure="the disk is full",
        decisions=(gone,),
    )
    text = write_night_page(library, record).read_text("utf-8")
    assert "No pictures" in text
    assert "the disk is full" in text
