"""`quietscope record` and `quietscope live`, as a person types them."""

from __future__ import annotations

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from quietscope.cli import app
from quietscope.storage.open_stack import open_stack
from quietscope.storage.written_frames import written_frames

SMALL = ["--exposure-ms", "2", "--roi", "0,0,64,64"]

LIVE_KEYS = {
    "frames_delivered",
    "frames_recorded",
    "frames_denoised",
    "frames_skipped_live",
    "first_missing_frame",
    "latency_ms",
    "hook_ms",
    "provider",
    "model_sha256",
}


def quietscope(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_record(tmp_path):
    done = quietscope("record", "--out", tmp_path / "run", "--frames", 12, *SMALL, "--json")
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    assert set(report) >= LIVE_KEYS
    assert report["frames_delivered"] == report["frames_recorded"] == 12
    assert report["simulated"] is True
    stack = open_stack(tmp_path / "run")
    assert (len(stack), stack.frame_shape) == (12, (64, 64))
    assert len({frame.tobytes() for frame in stack}) > 1


def test_live_denoises_every_frame(tmp_path, make_bundle):
    bundle = make_bundle(context_frames=1)
    run = tmp_path / "run"
    done = quietscope(
        "live", "--model", bundle, "--out", run, "--frames", 15, *SMALL, "--no-preview", "--json"
    )
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    assert set(report) >= LIVE_KEYS
    assert report["frames_denoised"] == report["frames_recorded"] == 15
    assert report["provider"].endswith("ExecutionProvider")
    assert len(report["model_sha256"]) == 64
    written = json.loads((run / "report.json").read_text(encoding="utf-8"))
    assert {key: written[key] for key in LIVE_KEYS} == {key: report[key] for key in LIVE_KEYS}
    raw, denoised = open_stack(run), open_stack(run / "denoised.ome.zarr")
    assert written_frames(run / "denoised.ome.zarr").all()
    # The model is the mean over a 3×3 neighbourhood of two frames.
    for t in (5, 14):
        smooth = np.mean([raw.frame(t), raw.frame(t - 1)], axis=0)[10:13, 20:23].mean()
        assert denoised.frame(t)[11, 21] == pytest.approx(smooth, rel=1e-5)


@pytest.mark.parametrize(
    "channels", [["--channel", "DAPI", "--channel", "FITC"], []], ids=["others", "none"]
)
def test_a_model_for_a_channel_that_never_comes(tmp_path, make_bundle, channels):
    run = tmp_path / "run"
    done = quietscope(
        *("live", "--model", f"GFP={make_bundle()}", "--out", run, "--frames", 2, *SMALL),
        *("--no-preview", *channels),
    )
    assert done.exit_code == 1
    assert "GFP" in done.stderr
    assert "Traceback" not in done.output
    assert not run.exists()


def test_a_bad_picture_is_said_at_the_end(tmp_path, make_bundle):
    """The box filter's answer to the camera's photon noise is not what its noise model says."""
    done = quietscope(
        *("live", "--model", make_bundle(radius=2), "--out", tmp_path / "run", "--frames", 15),
        *(*SMALL, "--no-preview"),
    )
    assert done.exit_code == 0, done.output
    report = json.loads((tmp_path / "run" / "report.json").read_text(encoding="utf-8"))
    assert report["verdict"]["word"] == "bad"
    assert "BAD PICTURE" in done.output
    assert report["verdict"]["headline"] in done.output


def test_live_with_channels_planes_and_positions(tmp_path, make_bundle):
    positions = tmp_path / "positions.csv"
    positions.write_text("0,0\n10,10\n", encoding="utf-8")
    run = tmp_path / "run"
    models = ["--model", f"DAPI={make_bundle('a')}", "--model", f"FITC={make_bundle('b')}"]
    done = quietscope(
        *("live", *models, "--out", run, "--frames", 2, *SMALL, "--no-preview", "--json"),
        *("--channel", "DAPI", "--channel", "FITC", "--z", "0,2,1", "--positions", positions),
    )
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["frames_denoised"] == 2 * 2 * 3 * 2
    stack = open_stack(run / "denoised.ome.zarr")
    assert stack.sizes == {"position": 2, "time": 2, "channel": 2, "z": 3}
    assert stack.channel_names == ("DAPI", "FITC")


def test_a_person_gets_sentences(tmp_path):
    run = tmp_path / "my run"
    done = quietscope("record", "--out", run, "--frames", 3, *SMALL)
    assert done.exit_code == 0
    assert "3 of 3 frames recorded" in done.stdout
    assert "simulated" in done.stdout
    assert f'next: quietscope train "{run}" --out' in done.stdout


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ([], "demo camera, a simulation, because neither --attach nor --mm-dir was given"),
        (["--demo"], "demo camera, a simulation: 64×64 uint16, 2 ms, before it a simulated"),
        (["--no-specimen"], "64×64 uint16, 2 ms, its own pictures"),
    ],
)
def test_the_first_line_says_which_camera(tmp_path, options, said):
    done = quietscope("record", "--out", tmp_path / "run", "--frames", 2, *SMALL, *options)
    assert said in done.stderr.splitlines()[0]


def test_a_newcomers_frames_are_noisy_and_alive(tmp_path):
    """Without an option: the noise is that of the camera's law, and no two frames are alike."""
    run = tmp_path / "run"
    done = quietscope("record", "--out", run, "--roi", "0,0,96,96", "--frames", 12)
    assert done.exit_code == 0, done.output
    frames = np.stack(list(open_stack(run))).astype(float)
    variance = (np.diff(frames, axis=0) ** 2).mean() / 2
    assert variance == pytest.approx(frames.mean() - 99.25 + 2.5**2 + 1 / 12, rel=0.15)
    assert len({frame.tobytes() for frame in frames}) == 12


@pytest.mark.parametrize(
    ("arguments", "status", "said"),
    [
        (["--roi", "1,2,3"], 2, "X,Y,W,H"),
        (["--demo", "--attach"], 2, "choose one of"),
        (["--frames", "0"], 2, "frames"),
        (["--channel", "Infrared"], 1, "Infrared"),
        (["--channel", "DAPI", "--channel", "DAPI"], 2, "given twice"),
        (["--z", "nan,1,1"], 2, "finite"),
        (["--z", "0,1,inf"], 2, "finite"),
        (["--z", "0,1,1e-300"], 2, "planes"),
        (["--exposure-ms", "inf"], 2, "finite"),
        (["--interval-s", "inf"], 2, "finite"),
        (["--saved-in", __file__], 2, "is a file"),
        (["--attach", "--port", "1"], 1, "Run server on port"),
    ],
)
def test_mistakes_are_named(tmp_path, arguments, status, said):
    done = quietscope("record", "--out", tmp_path / "run", *arguments)
    assert done.exit_code == status
    assert said in " ".join(done.stderr.split())
    assert not (tmp_path / "run" / "raw.ome.zarr").exists()


def test_an_earlier_run_stays(tmp_path):
    run = tmp_path / "run"
    assert quietscope("record", "--out", run, "--frames", 2, *SMALL).exit_code == 0
    again = quietscope("record", "--out", run, "--frames", 5, *SMALL)
    assert again.exit_code == 1
    assert "--overwrite" in again.stderr
    assert len(open_stack(run)) == 2
    assert quietscope("record", "--out", run, "--frames", 5, *SMALL, "--overwrite").exit_code == 0
    assert len(open_stack(run)) == 5
