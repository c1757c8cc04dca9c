"""A useq.MDASequence from its file to what pycro-manager's engine did with it."""

from __future__ import annotations

import json

import pytest
from typer.testing import CliRunner

from quietscope.acquisition.errors import AcquisitionError, MicroscopeError
from quietscope.acquisition.microscope.core import MicroscopeSettings, open_microscope
from quietscope.acquisition.microscope.useq_sequence import (
    channels_of,
    read_sequence,
    remarks,
    sequence_events,
    spaced,
)
from quietscope.cli import app
from quietscope.storage.open_stack import open_stack

useq = pytest.importorskip("useq", reason="needs the extra pymmcore")

FAST = {"interval": 0, "loops": 2}
SEQUENCE = """
time_plan: {interval: 0, loops: 2}
channels: [{config: DAPI, exposure: 5}, {config: FITC, exposure: 2}]
z_plan: {range: 2, step: 1}
stage_positions: [{x: 10, y: 20}, {x: 30, y: 40, z: 7}]
axis_order: tpcz
"""


@pytest.fixture
def microscope():
    with open_microscope(MicroscopeSettings(roi=(0, 0, 64, 64))) as opened:
        yield opened


def test_what_is_relative_begins_where_focus_and_stage_stand(microscope):
    microscope.keep_focus()
    microscope.core.set_position(microscope.core.get_focus_device(), 50.0)
    plan = useq.MDASequence(z_plan={"range": 2, "step": 1}, grid_plan={"rows": 1, "columns": 2})
    events = sequence_events(microscope, plan)
    assert [event["z"] for event in events] == [49, 50, 51] * 2
    assert [event["x"] for event in events] == pytest.approx([-32] * 3 + [32] * 3, abs=0.1)
    assert [event["axes"]["grid"] for event in events] == [0, 0, 0, 1, 1, 1]
    assert any("around 50 µm" in line for line in remarks(microscope, plan))


def test_positions_with_a_plane_of_their_own_keep_it(microscope):
    plan = useq.MDASequence(
        stage_positions=[(10, 20, 7), {"x": 30, "y": 40}], z_plan={"range": 2, "step": 1}
    )
    focus = microscope.focus_um
    events = sequence_events(microscope, plan)
    assert [event["z"] for event in events] == [6, 7, 8, focus - 1, focus, focus + 1]
    assert {(event["x"], event["y"]) for event in events} == {(10, 20), (30, 40)}


@pytest.mark.parametrize(
    ("plan", "said"),
    [
        ({"autofocus_plan": {"autofocus_motor_offset": 1, "axes": ("t",)}}, "hardware_autofocus"),
        ({"channels": ["Nope"]}, "Micro-Manager has Cy5, DAPI"),
        ({"channels": [{"config": "DAPI", "group": "Nowhere"}]}, "no such group"),
        ({"time_plan": {"interval": 0, "loops": 2000}}, "divide it"),
        ({"time_plan": None}, "takes no image"),
        ({"time_plan": {"interval": 0, "duration": 5}}, "interval and loops"),
        ({"time_plan": {"duration": 5, "loops": 1}}, "interval and loops"),
        ({"z_plan": {"range": float("inf"), "step": 1}}, "finite numbers"),
        ({"stage_positions": [(float("nan"), 0)]}, "x_pos is nan"),
        ({"channels": [{"config": "DAPI", "exposure": float("inf")}]}, "exposure is inf"),
        (
            {
                "time_plan": {"interval": 2, "loops": 2},
                "stage_positions": [(0, 0), (1, 1)],
                "axis_order": "ptc",
            },
            "counted anew",
        ),
    ],
    ids=[
        "autofocus",
        "channel",
        "group",
        "too long",
        "empty",
        "no interval",
        "one loop",
        "endless",
        "nowhere",
        "exposed for ever",
        "times",
    ],
)
def test_what_cannot_be_is_one_line(microscope, monkeypatch, plan, said):
    monkeypatch.setattr("quietscope.acquisition.microscope.useq_sequence.MOST_EVENTS", 1000)
    with pytest.raises((AcquisitionError, MicroscopeError), match=said) as refused:
        sequence_events(microscope, useq.MDASequence(**{"time_plan": FAST, **plan}))
    assert "\n" not in str(refused.value)


def test_images_come_no_faster_than_the_specimen_is_computed():
    events = [{"axes": {"time": 0}}, {"axes": {"time": 1}}, {"axes": {}, "min_start_time": 9.0}]
    assert spaced(events, least_interval_s=0.0) == events
    found = spaced(events, least_interval_s=0.5)
    assert [event["min_start_time"] for event in found] == [0.0, 0.5, 9.0]


@pytest.mark.parametrize(
    "text",
    ["time_plan: [", "time_plan: {loops: soon}", "- 1\n- 2", "\x00", "time_plan: !!python/x"],
)
def test_a_file_that_is_no_sequence_is_one_line(tmp_path, text):
    file = tmp_path / "plan.yaml"
    file.write_text(text)
    with pytest.raises(AcquisitionError, match="no sequence of useq-schema") as refused:
        read_sequence(file)
    assert "\n" not in str(refused.value)


def test_a_file_is_read_whatever_the_case_of_its_suffix_and_never_without_an_end(tmp_path):
    for name, text in (("A.YML", SEQUENCE), ("a.JSON", '{"channels": ["DAPI"]}')):
        (tmp_path / name).write_text(text, encoding="utf-8")
        assert channels_of(read_sequence(tmp_path / name))[0] == "DAPI"
    with (tmp_path / "large.yaml").open("wb") as file:
        file.truncate(2**30)
    (tmp_path / "folder.yaml").mkdir()
    for name, said in (("large", "larger than 4 MiB"), ("folder", "no ordinary file")):
        with pytest.raises(AcquisitionError, match=said):
            read_sequence(tmp_path / f"{name}.yaml")
    with pytest.raises(AcquisitionError, match="check the path"):
        read_sequence(tmp_path / "nowhere.yaml")


def test_record_runs_a_sequence_and_sets_the_microscope_back(tmp_path, microscope):
    exposure_ms, stage_um, focus_um = (
        microscope.exposure_ms,
        microscope.stage_um,
        microscope.focus_um,
    )
    plan = tmp_path / "a plan.yaml"
    plan.write_text(SEQUENCE, encoding="utf-8")
    line = ["record", "--sequence", plan, "--out", tmp_path / "run", "--roi", "0,0,64,64"]
    done = CliRunner().invoke(app, [str(word) for word in [*line, "--no-specimen", "--json"]])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["frames_recorded"] == 24
    stack = open_stack(tmp_path / "run" / "raw.ome.zarr")
    assert stack.sizes == {"position": 2, "time": 2, "channel": 2, "z": 3}
    assert stack.channel_names == channels_of(read_sequence(plan)) == ("DAPI", "FITC")
    assert stack.z_step_um == 1
    assert microscope.exposure_ms == exposure_ms
    assert microscope.stage_um == pytest.approx(stage_um, abs=0.1)
    assert microscope.focus_um == pytest.approx(focus_um, abs=0.1)


@pytest.mark.parametrize(
    "other", [("--frames", 3), ("--channel", "DAPI"), ("--z", "0,1,1"), ("--saved-in", "x")]
)
def test_what_a_sequence_says_itself_is_wrong_usage(tmp_path, other):
    line = ["record", "--sequence", "plan.json", "--out", tmp_path / "run", *other]
    assert CliRunner().invoke(app, [str(word) for word in line]).exit_code == 2


def test_a_run_does_not_replace_the_folder_of_its_sequence(tmp_path):
    plan = tmp_path / "plan.yaml"
    plan.write_text(SEQUENCE, encoding="utf-8")
    line = ["record", "--sequence", str(plan), "--out", str(tmp_path), "--overwrite"]
    done = CliRunner().invoke(app, line)
    assert done.exit_code == 1
    assert plan.read_text(encoding="utf-8") == SEQUENCE
