"""`quietscope calibrate`, as a person types it."""

import json

import pytest
import typer
from typer.testing import CliRunner

from quietscope.acquisition.calibrate import parse_light
from quietscope.acquisition.light_ladder import Light
from quietscope.calibration.noise_files import load_noise_model
from quietscope.cli import app


@pytest.mark.parametrize("text", ["lamp", "-Intensity", "Lamp-"])
def test_light_that_cannot_be_understood_is_wrong_usage(text):
    with pytest.raises(typer.BadParameter):
        parse_light(text, None)


def test_light_options():
    assert parse_light("exposure", "1,50") == Light("exposure", low=1.0, high=50.0)
    assert parse_light("LED-Level-Red", None) == Light("property", "LED", "Level-Red")
    with pytest.raises(typer.BadParameter):
        parse_light("exposure", "50,1")


@pytest.mark.slow
def test_the_command_writes_model_and_page(tmp_path):
    out = tmp_path / "camera.npz"
    done = CliRunner().invoke(
        app,
        ["calibrate", "--out", str(out), "--roi", "0,0,96,96", "--levels", "4",
         "--frames-per-level", "20", "--light-range", "0.5,20", "--json"],
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    result = json.loads(done.stdout)
    assert result["gain_adu_per_e"] == pytest.approx(1.0, rel=0.02)
    assert load_noise_model(out).fingerprint.camera == "DemoCamera-MultiMode"
    assert (tmp_path / "camera.html").stat().st_size > 50_000


@pytest.mark.parametrize("option", [["--z", "0,5,1"], ["--interval-s", "2"]])
def test_options_without_use_are_wrong_usage(option, tmp_path):
    done = CliRunner().invoke(app, ["calibrate", "--out", str(tmp_path / "c.npz"), *option])
    assert done.exit_code == 2
    assert "has no use here" in " ".join(done.output.split())


def test_a_place_where_nothing_can_be_written_is_said_before_the_camera_starts(tmp_path):
    (tmp_path / "file").touch()
    done = CliRunner().invoke(app, ["calibrate", "--out", str(tmp_path / "file" / "c.npz")])
    assert done.exit_code == 1
    assert "choose a folder that you may write to" in " ".join(done.output.split())
    assert "camera:" not in done.output


def test_a_channel_that_does_not_exist_is_named(tmp_path):
    done = CliRunner().invoke(
        app, ["calibrate", "--out", str(tmp_path / "c.npz"), "--channel", "infrared"]
    )
    assert done.exit_code == 1
    assert "infrared" in done.output
    assert "DAPI" in done.output
