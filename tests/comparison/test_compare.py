"""A comparison of two filters and a model: its result, its page, and that a killed one goes on."""

from __future__ import annotations

import base64
import json
import re
import zlib

import numpy as np
import pytest
from typer.testing import CliRunner

from quietscope.acquisition.microscope.specimen import CameraLaw, Specimen
from quietscope.cli import app
from quietscope.comparison.compare import ComparisonOptions, compare
from quietscope.comparison.contestants import contestants
from quietscope.comparison.division import divided
from quietscope.comparison.errors import ComparisonError
from quietscope.comparison.rows import ComparisonFolder
from quietscope.comparison.viewer import viewer
from quietscope.inference.classical.methods import METHODS as FILTERS
from quietscope.inference.errors import InferenceError
from quietscope.inference.general.choice import GENERAL
from quietscope.storage.atomic_output import OutputError
from quietscope.storage.ome_zarr_writer import OmeZarrWriter
from quietscope.storage.stack import stack_from_array
from quietscope.training.registry import METHODS as ALGORITHMS

SHAPE, FRAMES = (64, 64), 20
NAMES = ("gaussian", "total-variation")


def noisy():
    specimen = Specimen(SHAPE, CameraLaw(0.5, 100.0, 2.0))
    return np.stack([specimen.observe(index) for index in range(FRAMES)])


@pytest.fixture(scope="module")
def compared(made_once, trained_bundle):
    def make(path):
        stack = stack_from_array(noisy())
        options = ComparisonOptions(NAMES, (trained_bundle,), frames=3, most_scored=3)
        compare(stack, path, options, static=True)

    return made_once("compared", make)


@pytest.fixture(scope="module")
def result(compared):
    return json.loads((compared / "comparison.json").read_text(encoding="utf-8"))


def test_every_contestant_has_its_figures(result):
    rows = {row["name"]: row for row in result["rows"]}
    assert set(rows) == {
        "raw",
        "mean of 3",
        *NAMES,
        *(f"{name}, 3 frames" for name in NAMES),
        "trained",
    }
    assert all(row["left_out"] is None for row in rows.values())
    for row in rows.values():
        assert {
            "psnr_db", "ssim", "ssim_gaussian_11px", "nrmse", "nrmse_euclidean", "si_psnr_db",
            "frc_resolution_px", "held_out_mse_adu2", "held_out_nll", "residual_flatness",
            "ms_per_frame", "peak_rss_mb", "uncertainty_z_std",
        } <= row.keys()  # fmt: skip
        assert len(row["per_frame"]["psnr_db"]) == 3
    assert rows["gaussian"]["psnr_db"] > rows["raw"]["psnr_db"] + 3
    assert rows["trained"]["uncertainty_z_std"] is not None
    assert set(rows["trained"]["uncertainty_coverage"]) == {"50", "68", "95"}
    assert rows["gaussian"]["uncertainty_coverage"] is None
    assert rows["trained"]["parameters"] > 0
    assert rows["gaussian"]["strength"] > 0
    assert result["ranking"] == [row["name"] for row in result["rows"]]
    assert result["ranking"][-1] in {"raw", "trained", "mean of 3"}


def test_it_ends_with_advice_and_what_that_rests_on(result):
    assert result["chosen"] in result["ranking"]
    assert result["advice"].startswith(f"Take {result['chosen']}")
    assert "PSNR against the truth, on 3 frames" in result["based_on"]
    assert result["truth"] == "mean of the other repeats"
    assert result["noise_model"] == "bootstrapped"


def test_the_page_is_whole_and_holds_the_pictures(compared, result):
    """What the browser unpacks is what was estimated, to a 65,535th of the range."""
    page = (compared / "comparison.html").read_text(encoding="utf-8")
    assert not re.search(r'(src|href)="(https?:)?//', page)
    assert result["advice"].split(":")[0] in page
    assert "Uncertainty: stated and found" in page
    found = re.search(r'id="viewer-data">(.*?)</script>', page, re.DOTALL)
    data = json.loads(found[1])
    assert [one["name"] for one in data["pictures"]][:2] == ["raw", "truth"]
    named = {one["name"]: one for one in data["pictures"]}
    gaussian = next(c for c in contestants(NAMES, (), 1) if c.name == "gaussian")
    expected = ComparisonFolder(compared).picture(gaussian).estimate[0]
    high, low = np.split(
        np.frombuffer(zlib.decompress(base64.b64decode(named["gaussian"]["pixels"])), np.uint8), 2
    )
    share = (high.astype(int) * 256 + low) / 65535
    values = data["low"] + share.reshape(SHAPE) * (data["high"] - data["low"])
    np.testing.assert_allclose(values, expected, atol=(data["high"] - data["low"]) / 65535)


def test_scored_frames_are_trained_on_by_nobody():
    stack = stack_from_array(noisy())
    division = divided(stack, 3)
    assert not division.zero_shot
    assert not set(division.scored) & set(division.training.present_indices.tolist())
    assert len(division.training.present_indices) == 16
    few = divided(stack_from_array(noisy()[:4]), 3)
    assert few.zero_shot
    assert len(few.training.present_indices) == 4


@pytest.mark.long
def test_a_killed_comparison_goes_on(tmp_path):
    """Rows that are there stay as they are; what is missing is measured; methods can be added."""
    stack, out = stack_from_array(noisy()), tmp_path / "out"
    options = ComparisonOptions(("gaussian",), frames=1, most_scored=2)
    first = compare(stack, out, options)
    assert first.result()["truth"] is None
    assert "psnr_db" not in first.rows[0].figures
    (out / "rows" / "filter-gaussian.json").unlink()
    (out / "comparison.json").unlink()
    before = (out / "rows" / "filter-raw.json").stat().st_mtime_ns
    more = ComparisonOptions(("gaussian", "median"), frames=1, most_scored=2)
    with pytest.raises(OutputError, match="already exists"):
        compare(stack, out, more)
    again = compare(stack, out, more, resume=True)
    assert (out / "rows" / "filter-raw.json").stat().st_mtime_ns == before
    assert {row.name for row in again.rows} == {"raw", "gaussian", "median"}
    old, new = (
        next(row for row in found.rows if row.name == "gaussian") for found in (first, again)
    )
    assert new.figures["held_out_mse_adu2"] == old.figures["held_out_mse_adu2"]
    with pytest.raises(ComparisonError, match="seed is 1, the comparison was begun with 0"):
        compare(stack, out, ComparisonOptions(("gaussian",), seed=1, most_scored=2), resume=True)
    with pytest.raises(ComparisonError, match="holds no comparison to resume"):
        compare(stack, tmp_path / "other", more, resume=True)


def test_what_cannot_take_part_is_left_out_and_said(tmp_path, make_bundle):
    """A model of other pixels does not stop the others."""
    said = []
    model = make_bundle(pixel_type="uint8")
    options = ComparisonOptions(("gaussian",), (model,), frames=1, most_scored=2)
    found = compare(stack_from_array(noisy()), tmp_path / "out", options, on_remark=said.append)
    left = next(row for row in found.rows if row.name == "model")
    assert "takes uint8" in left.left_out
    assert "model is left out" in said[0]
    assert "takes uint8" in found.page.read_text(encoding="utf-8")


def test_all_is_what_the_registries_hold():
    named = {(one.kind, one.method) for one in contestants(("all",), (), 5)}
    assert {name for kind, name in named if kind == "filter"} == set(FILTERS)
    assert {name for kind, name in named if kind == "trained"} == set(ALGORITHMS)
    assert len({one.key for one in contestants(("all",), (), 5)}) == 2 * len(named)
    with pytest.raises(ComparisonError, match="method is 'best'"):
        contestants(("best",), (), 1)


def test_another_recording_or_model_of_the_same_name_is_not_taken_for_the_old(
    tmp_path, make_bundle
):
    """Arrays have no place of their own, and a model may be trained anew where it lies."""
    stack, out = stack_from_array(noisy()), tmp_path / "out"
    options = ComparisonOptions(("gaussian",), (make_bundle(),), frames=1, most_scored=2)
    compare(stack, out, options)
    with pytest.raises(ComparisonError, match="pixels_sha256"):
        compare(stack_from_array(noisy()[::-1].copy()), out, options, resume=True)
    row = out / "rows" / "model-model.json"
    held = json.loads(row.read_text(encoding="utf-8"))
    held["facts"]["model_sha256"], held["figures"]["ms_per_frame"] = "0" * 64, -1.0
    row.write_text(json.dumps(held), encoding="utf-8")
    (out / "rows" / "filter-gaussian.npz").write_bytes(b"half")
    again = {row.name: row for row in compare(stack, out, options, resume=True).rows}
    assert again["model"].figures["ms_per_frame"] > 0
    assert again["gaussian"].left_out is None


def test_a_truth_that_does_not_fit_is_said_before_anything_is_done(tmp_path):
    with pytest.raises(InferenceError, match="give one true frame"):
        compare(
            stack_from_array(noisy()),
            tmp_path / "out",
            ComparisonOptions(("gaussian",), frames=1),
            truth=stack_from_array(noisy()[:7].astype(np.float32)),
        )
    with pytest.raises(InferenceError, match="--static needs repeats"):
        compare(stack_from_array(noisy()[:2]), tmp_path / "out", static=True)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"seconds": float("nan")}, "nan minutes"),
        ({"seconds": float("inf")}, "inf minutes"),
        ({"most_scored": 0}, "0 frames to score"),
        ({"frames": 0}, "frames is 0"),
        ({"preset": "huge"}, "preset is 'huge'"),
    ],
)
def test_choices_that_cannot_be_are_refused_before_the_first_training(given, said):
    with pytest.raises(ComparisonError, match=said):
        ComparisonOptions(**given)


@pytest.mark.parametrize("curve", ["step,loss\n1,x\n", "step,loss\n1\n", "step,loss\n1,nan\n"])
def test_a_curve_that_is_none_costs_no_comparison(tmp_path, curve):
    """It comes from a folder of somebody else's, and only a picture depends on it."""
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "losses.csv").write_text(curve, encoding="utf-8")
    contestant = contestants((), [tmp_path / "model"], 1)[-1]
    assert ComparisonFolder(tmp_path).losses(contestant) == []


@pytest.mark.parametrize("name", ["</script>", "<!--<script>"])
def test_a_name_cannot_end_the_script_or_swallow_its_end(name):
    page = viewer({"pictures": [{"name": name}]})
    content = page.partition('id="viewer-data">')[2].partition("</script>")[0]
    assert "<" not in content
    assert json.loads(content)["pictures"][0]["name"] == name


def test_nothing_named_is_nothing_to_compare(tmp_path):
    with pytest.raises(ComparisonError, match="neither a method nor a model"):
        compare(stack_from_array(noisy()), tmp_path / "out", ComparisonOptions(()))


def test_frames_of_one_brightness_are_compared(tmp_path):
    """The noise model then knows a single signal, which is no range."""
    pixels = np.random.default_rng(0).poisson(100, (12, 40, 48)).astype(np.uint16)
    options = ComparisonOptions(("gaussian",), frames=1, most_scored=3)
    found = compare(stack_from_array(pixels), tmp_path / "out", options)
    assert found.result()["chosen"] == "gaussian"


def test_nobody_is_taught_the_truth_that_scores_it(tmp_path):
    options = ComparisonOptions(("gaussian", "care"), frames=1, most_scored=2)
    found = compare(
        stack_from_array(noisy()),
        tmp_path / "out",
        options,
        truth=stack_from_array(np.stack([noisy().mean(axis=0)] * FRAMES).astype(np.float32)),
    )
    left = next(row for row in found.rows if row.name == "care")
    assert "learns from the truth" in left.left_out


def test_the_general_model_takes_part(tmp_path, monkeypatch):
    monkeypatch.setattr("quietscope.inference.general.for_camera._cache", lambda: tmp_path / "c")
    options = ComparisonOptions(("gaussian",), (GENERAL,), frames=1, most_scored=2)
    found = compare(stack_from_array(noisy()), tmp_path / "out", options, static=True)
    rows = {row.name: row for row in found.rows}
    assert rows["general"].left_out is None
    assert rows["general"].figures["psnr_db"] > rows["raw"].figures["psnr_db"]


def test_the_command_prints_the_advice(tmp_path):
    with OmeZarrWriter(tmp_path / "raw.ome.zarr", frame_shape=SHAPE, dtype="uint16") as writer:
        for index, frame in enumerate(noisy()):
            writer.write(frame, {"time": index})
    arguments = [
        "compare",
        str(tmp_path / "raw.ome.zarr"),
        "--methods",
        "gaussian",
        "--frames",
        "1",
    ]
    arguments += ["--test-frames", "2", "--out", str(tmp_path / "a b"), "--json"]
    done = CliRunner().invoke(app, arguments)
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["chosen"] == "gaussian"
    inside = CliRunner().invoke(app, [*arguments[:-3], "--out", str(tmp_path)])
    assert inside.exit_code == 1


@pytest.mark.long
def test_a_supervised_method_is_given_the_truth(tmp_path):
    specimen = Specimen(SHAPE, CameraLaw(0.5, 100.0, 2.0))
    truth = np.stack([specimen.truth(index) for index in range(FRAMES)]).astype(np.float32)
    options = ComparisonOptions(("care",), frames=1, seconds=20, preset="fast", most_scored=2)
    found = compare(
        stack_from_array(noisy()), tmp_path / "out", options, truth=stack_from_array(truth)
    )
    row = next(row for row in found.rows if row.name == "care")
    assert row.left_out is None, row.left_out


@pytest.mark.long
def test_a_method_is_trained_and_scored(tmp_path):
    options = ComparisonOptions(("lattice",), frames=1, seconds=5, preset="fast", most_scored=2)
    said = []
    found = compare(
        stack_from_array(noisy()), tmp_path / "out", options, static=True, on_progress=said.append
    )
    row = next(row for row in found.rows if row.name == "lattice")
    assert row.left_out is None
    assert row.facts["training_minutes"] > 0
    assert any(state.name == "lattice" and state.seconds_left > 0 for state in said)
    assert '"curves": [{"name": "lattice"' in found.page.read_text(encoding="utf-8")
