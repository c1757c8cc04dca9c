"""What nobody means to give, given to the commands: one line says what is wrong, or what holds.

Nothing here may end in a traceback, hang, or come out as a figure that cannot be.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from click.testing import Result
from numpy.typing import NDArray
from typer.testing import CliRunner

from quietscope.cli import app


def said(*arguments: object) -> Result:
    """Run a command; what ends it may be nothing but its own exit."""
    result = CliRunner().invoke(app, [str(word) for word in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def refused(*arguments: object) -> str:
    """Run a command that has to fail with one line, and return that line."""
    result = said(*arguments)
    assert result.exit_code == 1, result.output
    assert result.stderr.count("\n") == 1, result.stderr
    return result.stderr


def noisy(*shape: int, level: float = 160.0, seed: int = 0) -> NDArray[np.uint16]:
    noise = np.random.default_rng(seed).normal(0, 10, shape)
    return np.rint(level + noise).astype(np.uint16)


def written(path: Path, pixels: NDArray[Any]) -> Path:
    tifffile.imwrite(path, pixels, photometric="minisblack", metadata={"axes": "TYX"})
    return path


def test_a_name_that_no_disk_takes_is_told(tmp_path: Path) -> None:
    recording = written(tmp_path / "cells.tif", noisy(2, 16, 16))
    for name in ("y" * 240 + ".tif", "y" * 300 + ".tif", "y" * 300 + ".ome.zarr"):
        line = refused("export", recording, "--out", tmp_path / name)
        assert name[:200] in line.replace("\n", "")
    refused("inspect", tmp_path / ("y" * 300 + ".tif"))
    assert [found.name for found in tmp_path.iterdir()] == ["cells.tif"]


@pytest.mark.parametrize("method", ["mean", "gaussian", "median", "wiener"])
def test_a_strength_that_no_memory_holds_is_refused(tmp_path: Path, method: str) -> None:
    recording = written(tmp_path / "cells.tif", noisy(2, 16, 16))
    line = refused(
        "denoise", recording, "--method", method, "--strength", "1e9", "--out", tmp_path / "o.tif"
    )
    assert "at most" in line


@pytest.mark.parametrize("shape", [(1, 40), (2, 3)])
def test_frames_without_room_for_structure_are_not_scored(
    tmp_path: Path, shape: tuple[int, int]
) -> None:
    recording = written(tmp_path / "cells.tif", noisy(8, *shape))
    result = said("evaluate", recording, "--static", "--method", "median")
    assert result.exit_code == 1
    assert "at least 3 by 3" in result.stderr


def test_a_recording_is_not_scored_against_itself(tmp_path: Path) -> None:
    recording = written(tmp_path / "cells.tif", noisy(5, 32, 32))
    line = refused("evaluate", recording, "--truth", recording, "--method", "median")
    assert "the same as its truth" in line
    copies = written(tmp_path / "copies.tif", np.repeat(noisy(1, 32, 32), 6, axis=0))
    assert "the same" in refused("evaluate", copies, "--static", "--method", "median")


def test_a_truth_of_other_units_is_told(tmp_path: Path) -> None:
    scene = np.linspace(100, 400, 32 * 32).reshape(32, 32)
    pixels = np.rint(scene + noisy(3, 32, 32) - 160.0).astype(np.uint16)
    recording = written(tmp_path / "cells.tif", pixels)
    scaled = written(tmp_path / "scaled.tif", (scene / 65535).astype(np.float32)[None])
    same = written(tmp_path / "same.tif", scene.astype(np.float32)[None])

    def remarks(truth: Path) -> list[str]:
        told = said("evaluate", recording, "--truth", truth, "--method", "median", "--json")
        found: list[str] = json.loads(told.stdout)["remarks"]
        return found

    assert any("brighter or darker" in line for line in remarks(scaled))
    assert not remarks(same)


def test_noise_that_a_noise_model_cannot_hold_is_not_made_larger(tmp_path: Path) -> None:
    scaled = written(tmp_path / "scaled.tif", (noisy(8, 32, 32) / 1e6).astype(np.float32))
    line = refused("fit-noise", scaled, "--bootstrap", "--out", tmp_path / "camera.npz")
    assert "scaled down" in line
    figures = json.loads(said("inspect", scaled, "--json").stdout)["figures"][0]
    assert figures["noise_adu"] is None


def test_white_noise_of_few_pixels_is_not_called_correlated(tmp_path: Path) -> None:
    for seed in range(12):
        recording = written(tmp_path / f"{seed}.tif", noisy(4, 20, 20, seed=seed))
        found = json.loads(said("inspect", recording, "--json").stdout)
        assert not any("correlated" in line for line in found["advice"]), found["figures"]


def test_too_few_pixels_are_not_taken_for_no_noise(tmp_path: Path) -> None:
    recording = written(tmp_path / "small.tif", noisy(8, 16, 16))
    advice = json.loads(said("inspect", recording, "--json").stdout)["advice"]
    assert "record more frames, or larger ones" in advice[-1]
    alike = written(tmp_path / "alike.tif", np.full((8, 32, 32), 500, np.uint16))
    assert (
        "nothing to denoise" in json.loads(said("inspect", alike, "--json").stdout)["advice"][-1]
    )


@pytest.mark.parametrize("offset", ["nan", "inf", "1e9", "500"])
def test_an_offset_that_is_no_darkness_is_refused(tmp_path: Path, offset: str) -> None:
    rng = np.random.default_rng(0)
    ladder = [
        written(tmp_path / f"{light}.tif", (100 + rng.poisson(light, (4, 16, 16))).astype("u2"))
        for light in (20, 80)
    ]
    out = tmp_path / "camera.npz"
    assert "in the dark" in refused("fit-noise", *ladder, "--offset", offset, "--out", out)
    assert not out.exists()


def test_a_number_that_is_none_is_refused_by_every_option(tmp_path: Path) -> None:
    recording = written(tmp_path / "cells.tif", noisy(2, 16, 16))
    for option in ("--fill-nan", "--strength"):
        words = ("--method", "mean", option, "nan", "--out", tmp_path / "out.tif")
        result = said("denoise", recording, *words)
        assert result.exit_code == 2
        assert f"{option} is nan" in result.stderr


def test_pixels_that_a_type_does_not_hold_are_counted(tmp_path: Path) -> None:
    pixels = noisy(2, 16, 16)
    pixels[:, :4] = 1000
    recording = written(tmp_path / "cells.tif", pixels)
    words = ("--pixel-type", "uint8", "--out", tmp_path / "small.tif", "--json")
    assert json.loads(said("export", recording, *words).stdout)["pixels_cut_off"] == 2 * 4 * 16
    below = written(tmp_path / "below.tif", pixels.astype(np.float32) - 5000)
    words = ("--method", "mean", "--pixel-type", "uint16", "--out", tmp_path / "whole.tif")
    assert "512 pixels lay beyond" in said("denoise", below, *words).stdout
    words = ("--out", tmp_path / "same.tif", "--json")
    assert json.loads(said("export", recording, *words).stdout)["pixels_cut_off"] == 0
