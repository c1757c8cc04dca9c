"""The main job, end to end: one short demo, looked at from every side."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from quietscope.acquisition.microscope.specimen import CameraLaw, Specimen
from quietscope.inference.bundle import new_bundle, open_bundle, seal
from quietscope.inference.library import Library
from quietscope.storage.open_stack import open_stack

ROOT = Path(__file__).parents[2]
FRAMES = 30

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@dataclass(frozen=True)
class Demo:
    out: Path
    result: dict[str, Any]
    stderr: str

    @property
    def live(self) -> Path:
        return self.out / "library" / "runs" / "live"


def quietscope(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "quietscope.cli", *map(str, arguments)],
        capture_output=True,
        text=True,
        encoding="utf-8",
    )


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Demo:
    out = tmp_path_factory.mktemp("a folder") / "my demo"
    short = ("--frames", FRAMES, "--train-seconds", 18, "--no-preview")
    done = quietscope("demo", "--out", out, "--json", *short)
    assert done.returncode == 0, done.stderr
    return Demo(out, json.loads(done.stdout), done.stderr)


def test_every_step_says_what_it_measured(demo: Demo) -> None:
    for step in ("1/7", "2/7", "3/7", "4/7", "5/7", "6/7", "7/7"):
        assert step in demo.stderr
    assert "simulated" in demo.stderr


def test_the_counts_agree(demo: Demo) -> None:
    result = demo.result
    assert result["frames_delivered"] == FRAMES
    assert result["frames_recorded"] == FRAMES
    assert result["frames_denoised"] == FRAMES
    assert result["first_missing_frame"] is None
    assert result == json.loads((demo.out / "report.json").read_text(encoding="utf-8"))


def test_raw_is_the_specimen_and_the_noise_of_the_camera(demo: Demo) -> None:
    """That each frame is on the disk bit for bit is verified by the demo itself."""
    raw = open_stack(demo.live)
    specimen = Specimen(raw.frame_shape, CameraLaw(1.0, 99.25, 2.5), seed=0)
    assert len(raw) == FRAMES
    for index in (0, FRAMES - 1):
        truth = specimen.truth(1000 + index).astype(float)
        noise = raw.frame(index).astype(float) - truth
        assert noise.mean() == pytest.approx(0, abs=0.1)
        # Shot, read and rounding noise, of the very structures that are there.
        assert noise.var() == pytest.approx((truth - 99.25).mean() + 2.5**2 + 1 / 12, rel=0.05)
        bright = truth > np.percentile(truth, 95)
        assert abs(noise[bright].mean()) < 0.5


def test_the_camera_is_known(demo: Demo) -> None:
    calibration = demo.result["calibration"]
    assert calibration["gain_adu_per_e"] == pytest.approx(1.0, rel=0.01)
    assert calibration["offset_adu"] == pytest.approx(99.25, abs=0.5)
    assert calibration["read_noise_e"] == pytest.approx(2.5, rel=0.05)
    assert len(calibration["levels"]) >= 6


def test_the_picture_is_clean(demo: Demo) -> None:
    raw, denoised = demo.result["psnr_raw_db"], demo.result["psnr_denoised_db"]
    assert 15 <= raw <= 22
    # A quarter of the default training time, on a processor that may be busy with other things:
    # the default's gain is measured in benchmarks, here the picture only has to be cleaner.
    assert denoised - raw >= 3


def test_the_denoised_store_names_its_model(demo: Demo) -> None:
    attributes = open_stack(demo.live / "denoised.ome.zarr").attributes
    assert attributes is not None
    used = open_bundle(demo.out / "library" / "models" / "first")
    assert attributes["quietscope"]["model_sha256"] == used.model_sha256
    assert attributes["quietscope"]["simulated"] is True


def test_retraining_decided_and_said_why(demo: Demo) -> None:
    decision = demo.result["retrain"]
    assert decision["decision"] in {"promoted", "kept"}
    assert decision["reason"]
    current = Library(demo.out / "library").current()
    assert current is not None
    expected = decision["candidate"] if decision["decision"] == "promoted" else "first"
    assert current.name == Path(expected).name


def test_the_page_stands_alone(demo: Demo) -> None:
    page = (demo.out / "report.html").read_text(encoding="utf-8")
    assert page.count("<img") >= 5
    assert "simulated specimen" in page
    assert "http://" not in page
    assert "https://" not in page


def test_a_second_demo_does_not_touch_the_first(demo: Demo) -> None:
    before = (demo.out / "report.json").read_bytes()
    done = quietscope("demo", "--out", demo.out)
    assert done.returncode == 1
    assert "--overwrite" in done.stderr
    assert (demo.out / "report.json").read_bytes() == before


@pytest.mark.long  # its lines are the README's, which are walked
def test_the_example_script_runs_as_printed(demo: Demo, tmp_path: Path) -> None:
    model = demo.out / "library" / "models" / "first"
    # The model belongs to the demo camera's own pixel type; only the region differs.
    command = [sys.executable, str(ROOT / "examples" / "live_in_your_script.py")]
    done = subprocess.run(
        [*command, str(model), str(tmp_path / "run")],
        capture_output=True,
        text=True,
        encoding="utf-8",
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert "50 of 50 frames denoised" in done.stdout


@pytest.mark.long
def test_a_model_of_another_camera_is_refused_by_the_property_that_differs(
    demo: Demo, tmp_path: Path
) -> None:
    first = open_bundle(demo.out / "library" / "models" / "first")
    other = first.manifest.model_copy(
        update={"camera": first.manifest.camera.model_copy(update={"gain_setting": "Gain=7"})}
    )
    with new_bundle(tmp_path / "other") as staging:
        for name in first.manifest.sha256:
            shutil.copy(first.path / name, staging / name)
        seal(staging, other)
    command = ["live", "--model", tmp_path / "other", "--out", tmp_path / "run", "--no-preview"]
    refused = quietscope(*command, "--frames", 3)
    assert refused.returncode == 1
    assert "gain setting" in refused.stderr
    assert "Gain=7" in refused.stderr
    assert not (tmp_path / "run").exists()
    forced = quietscope(*command, "--frames", 3, "--force", "--json")
    assert forced.returncode == 0, forced.stderr
    assert "Gain=7" in json.loads(forced.stdout)["forced"][0]


def test_pixels_that_the_model_cannot_take_are_refused(demo: Demo, tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "8 bit.tif", np.zeros((2, 64, 64), np.uint8))
    model = demo.out / "library" / "models" / "first"
    done = quietscope(
        "denoise", tmp_path / "8 bit.tif", "--model", model, "--out", tmp_path / "out.ome.zarr"
    )
    assert done.returncode == 1
    assert "uint8" in done.stderr
    assert "uint16" in done.stderr
    assert not (tmp_path / "out.ome.zarr").exists()


def test_odd_and_small_frames_are_denoised(demo: Demo, tmp_path: Path) -> None:
    frames = np.random.default_rng(0).poisson(20, (2, 37, 51)).astype(np.uint16) + 100
    tifffile.imwrite(tmp_path / "odd.tif", frames)
    model = demo.out / "library" / "models" / "first"
    out = tmp_path / "odd.ome.zarr"
    done = quietscope("denoise", tmp_path / "odd.tif", "--model", model, "--out", out)
    assert done.returncode == 0, done.stderr
    denoised = open_stack(out).frame(0)
    assert denoised.shape == (37, 51)
    # Of a model that was trained for seconds, on another scene: less than the noise of a pixel.
    assert denoised.mean() == pytest.approx(frames[0].mean(), abs=4.0)
    assert denoised.std() < frames[0].std()


def test_a_changed_model_is_refused_before_anything_is_written(demo: Demo, tmp_path: Path) -> None:
    model = tmp_path / "model"
    shutil.copytree(demo.out / "library" / "models" / "first", model)
    with (model / "model.onnx").open("ab") as file:
        file.write(b"\0")
    done = quietscope("live", "--model", model, "--out", tmp_path / "run", "--no-preview")
    assert done.returncode == 1
    assert "SHA-256" in done.stderr
    assert not (tmp_path / "run").exists()
