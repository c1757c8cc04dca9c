"""A stack through a filter without training: each channel for itself, gone on with, recorded."""

from __future__ import annotations

import numpy as np
import pytest
from typer.testing import CliRunner

from quietscope.cli import app
from quietscope.inference.classical.smoothing import gaussian
from quietscope.inference.errors import InferenceError
from quietscope.inference.offline.denoise_by_method import denoise_by_method
from quietscope.inference.provenance import provenance_of
from quietscope.storage.atomic_output import OutputError
from quietscope.storage.axis_map import Place
from quietscope.storage.ome_zarr_writer import OmeZarrWriter
from quietscope.storage.open_stack import open_stack
from quietscope.storage.stack import stack_from_array

SHAPE = (48, 40)


def pixels(times=4, channels=2):
    random = np.random.default_rng(0)
    rows = np.linspace(100, 400, SHAPE[0])[:, None] * np.ones(SHAPE[1])
    levels = np.stack([rows, 5 * rows])[:channels]
    return random.poisson(levels, (times, channels, *SHAPE)).astype(np.uint16)


@pytest.fixture
def stack():
    return stack_from_array(pixels(), axes=("time", "channel"))


def test_each_channel_is_filtered_with_the_frames_before_it(stack, tmp_path):
    out = tmp_path / "out.ome.zarr"
    result = denoise_by_method(stack, "gaussian", out, frames=3, strength=1.0)
    assert result["frames_denoised"] == 8
    written, raw = open_stack(out), pixels()
    for time in range(4):
        for channel in range(2):
            expected = gaussian(raw[max(0, time - 2) : time + 1, channel].mean(axis=0), 1.0)
            index = written.index({"time": time, "channel": channel, "z": 0})
            np.testing.assert_allclose(written.frame(index), expected, rtol=1e-5)
    said = provenance_of(written)
    assert said.method == {
        "name": "gaussian",
        "frames": 3,
        "strength of 0": 1.0,
        "strength of 1": 1.0,
    }
    assert said.models == {}


def test_a_strength_is_chosen_for_each_channel(stack, tmp_path):
    result = denoise_by_method(stack, "gaussian", tmp_path / "out.ome.zarr")
    assert set(result["method"]["strengths"]) == {"0", "1"}
    assert all(found > 0 for found in result["method"]["strengths"].values())


def test_a_run_that_is_gone_on_with_has_one_strength(tmp_path):
    """The second half alone, far brighter, would have chosen another."""
    raw = pixels(channels=1)
    raw[2:] *= 40
    whole = stack_from_array(raw, axes=("time", "channel"))
    half = stack_from_array(raw[:2], axes=("time", "channel"))
    out = tmp_path / "out.ome.zarr"
    first = denoise_by_method(half, "gaussian", out)["method"]["strengths"]
    assert denoise_by_method(whole, "gaussian", out, resume=True)["method"]["strengths"] == first


def test_it_is_gone_on_with_and_only_with_the_same_method(tmp_path, stack):
    out = tmp_path / "out.ome.zarr"
    half = stack_from_array(pixels()[:2], axes=("time", "channel"))
    denoise_by_method(half, "median", out)
    result = denoise_by_method(stack, "median", out, resume=True)
    assert (result["frames_kept"], result["frames_denoised"]) == (4, 4)
    with pytest.raises(InferenceError, match="another model or method"):
        denoise_by_method(stack, "gaussian", out, resume=True)


def test_the_input_is_no_output(tmp_path):
    path = tmp_path / "raw.ome.zarr"
    with OmeZarrWriter(path, frame_shape=SHAPE, dtype="uint16") as store:
        store.write(pixels()[0, 0], Place(None, 0, 0, 0))
    with pytest.raises(OutputError):
        denoise_by_method(open_stack(path), "median", path, overwrite=True)
    assert open_stack(path).frame(0).any()


def test_the_command(tmp_path):
    path, out = tmp_path / "raw.ome.zarr", tmp_path / "out.ome.zarr"
    with OmeZarrWriter(path, frame_shape=SHAPE, dtype="uint16") as store:
        for time in range(3):
            store.write(pixels()[time, 0], Place(None, time, 0, 0))
    runner = CliRunner()

    def run(*options):
        return runner.invoke(app, ["denoise", str(path), "--out", str(out), *options])

    done = run("--method", "lee", "--frames", "2")
    assert done.exit_code == 0, done.output
    assert "3 frames denoised" in done.output
    assert "lee, strength of channel 0" in done.output
    assert open_stack(out).sizes["time"] == 3
    for wrong, said in (
        (["--method", "sharpen"], "expected one of identity, mean"),
        (["--method", "lee", "--model", "x"], "--method has no use for --model"),
        (["--strength", "2"], "belong to --method"),
    ):
        failed = run("--overwrite", *wrong)
        assert failed.exit_code == 1
        assert said in " ".join(failed.output.split())
