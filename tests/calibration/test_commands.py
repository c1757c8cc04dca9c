import json

import numpy as np
import pytest
import tifffile
from typer.testing import CliRunner

from quietscope.calibration.noise_files import load_noise_model

GAIN, OFFSET, READ = 2.0, 100.0, 1.5


def repeats(electrons: float, frames: int = 24) -> np.ndarray:
    rng = np.random.default_rng(int(electrons) + 1)
    count = rng.poisson(electrons, (frames, 48, 48))
    return np.rint(GAIN * (count + rng.normal(0, READ, count.shape)) + OFFSET).astype(np.uint16)


@pytest.fixture
def ladder(tmp_path):
    folder = tmp_path / "light levels"
    folder.mkdir()
    paths = []
    for electrons in (10, 40, 150, 600):
        paths.append(folder / f"level {electrons}.tif")
        tifffile.imwrite(paths[-1], repeats(electrons), metadata={"axes": "TYX"})
    tifffile.imwrite(folder / "dark.tif", repeats(0), metadata={"axes": "TYX"})
    return folder, [str(path) for path in paths]


@pytest.fixture
def quietscope():
    from quietscope.cli import app

    def run(*arguments: str):
        return CliRunner().invoke(app, list(arguments))

    return run


def test_fit_noise_gives_what_the_contract_says(ladder, quietscope, tmp_path):
    folder, stacks = ladder
    out = tmp_path / "camera.npz"
    done = quietscope(
        "fit-noise", *stacks, "--dark", str(folder / "dark.tif"), "--out", str(out), "--json"
    )
    assert done.exit_code == 0, done.output
    result = json.loads(done.stdout)
    assert result["gain_adu_per_e"] == pytest.approx(GAIN, rel=0.02)
    assert result["offset_adu"] == pytest.approx(OFFSET, abs=0.1)
    assert result["read_noise_e"] == pytest.approx(READ, rel=0.03)
    assert set(result["held_out_nll"]) == {"gaussian_mixture", "histogram", "gaussian"}
    assert {"mean_adu", "variance_adu2", "model_variance_adu2"} <= set(result["levels"][0])
    assert {"name", "passed", "value", "limit", "advice"} <= set(result["checks"][0])
    assert result["seconds"] > 0
    assert load_noise_model(out).source == "calibrated"
    page = (tmp_path / "camera.html").read_text(encoding="utf-8")
    assert "data:image/png;base64," in page
    assert "http://" not in page
    assert "https://" not in page


def test_offset_as_a_number_or_as_a_map(ladder, quietscope, tmp_path):
    _, stacks = ladder
    tifffile.imwrite(tmp_path / "offset.tif", np.full((48, 48), OFFSET, np.float32))
    for number, offset in enumerate(("100", str(tmp_path / "offset.tif"))):
        done = quietscope(
            "fit-noise",
            *stacks,
            "--offset",
            offset,
            "--out",
            str(tmp_path / f"{number}.npz"),
            "--json",
        )
        assert done.exit_code == 0, done.output
        assert json.loads(done.stdout)["offset_adu"] == OFFSET


def test_without_offset_it_says_what_it_cannot_know(ladder, quietscope, tmp_path):
    _, stacks = ladder
    done = quietscope("fit-noise", *stacks, "--out", str(tmp_path / "camera.npz"))
    assert done.exit_code == 0, done.output
    assert "not known, nor read noise" in done.stdout


def test_bootstrap_is_marked_as_such(ladder, quietscope, tmp_path):
    _, stacks = ladder
    out = tmp_path / "rough.npz"
    done = quietscope("fit-noise", *stacks, "--bootstrap", "--out", str(out), "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["source"] == "bootstrapped"
    assert load_noise_model(out).source == "bootstrapped"


def test_the_model_leaves_for_other_programs(ladder, quietscope, tmp_path):
    _, stacks = ladder
    theirs = tmp_path / "theirs.npz"
    done = quietscope(
        "fit-noise", *stacks, "--out", str(tmp_path / "camera.npz"), "--juglab", str(theirs)
    )
    assert done.exit_code == 0, done.output
    assert "trained_weight" in np.load(theirs).files


def test_nothing_is_overwritten_unasked(ladder, quietscope, tmp_path):
    _, stacks = ladder
    out = tmp_path / "camera.npz"
    out.write_bytes(b"precious")
    done = quietscope("fit-noise", *stacks, "--out", str(out))
    assert done.exit_code == 1
    assert "already exists" in done.output
    assert out.read_bytes() == b"precious"


@pytest.mark.parametrize(
    ("extra", "message"),
    [
        (["--dark", "missing.tif"], "missing.tif: no such file"),
        (["--offset", "missing.tif"], "missing.tif: no such file"),
        (["--channel", "3"], "asks for another"),
    ],
)
def test_failures_are_one_line(ladder, quietscope, tmp_path, extra, message):
    _, stacks = ladder
    out = tmp_path / "camera.npz"
    done = quietscope("fit-noise", *stacks, "--out", str(out), *extra)
    assert done.exit_code == 1
    assert message in done.output
    assert "Traceback" not in done.output
    assert not out.exists()
