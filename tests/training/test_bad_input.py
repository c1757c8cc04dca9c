"""What cannot be trained on, and disks that fill up: one line, the last checkpoint stays good."""

from __future__ import annotations

import dataclasses
import subprocess
import sys

import numpy as np
import pytest

from quietscope.calibration.bootstrap import bootstrap_noise_model
from quietscope.errors import QuietscopeError
from quietscope.storage.stack import stack_from_array
from quietscope.training.checkpoint import load_checkpoint, working_file
from quietscope.training.errors import TrainingError
from quietscope.training.options import TrainingOptions
from quietscope.training.train import train

QUICK = TrainingOptions(preset="fast", steps=60, batch=2, patch=32)


pytestmark = pytest.mark.usefixtures("one_thread")


def photons(shape=(12, 48, 48), light=40, dtype=np.uint16):
    x = np.arange(shape[-1])
    rate = light * (1.2 + np.sin(x / 4))
    return (100 + np.random.default_rng(0).poisson(rate, shape)).astype(dtype)


@pytest.fixture(scope="module")
def noise_model():
    return bootstrap_noise_model([stack_from_array(photons())])


class Killed(Exception):
    pass


@pytest.fixture(scope="module")
def unfinished(noise_model, tmp_path_factory):
    """A run that was killed, and its checkpoint."""

    def kill(progress):
        if progress.step >= 40:
            raise Killed

    out = tmp_path_factory.mktemp("runs") / "model"
    with pytest.raises(Killed):
        train([stack_from_array(photons())], out, QUICK, noise_model=noise_model, on_progress=kill)
    return out, working_file(out).read_bytes()


def with_pixel(value):
    pixels = photons(dtype=np.float32)
    pixels[7, 3, 4] = value
    return pixels


BAD = {
    "constant": ([np.full((5, 48, 48), 100, np.uint16)], "every pixel is 100 ADU"),
    "dark": ([np.zeros((5, 48, 48), np.float32)], "every pixel is 0 ADU"),
    "saturated": ([np.full((5, 48, 48), 65535, np.uint16)], "100% .* are saturated at 65535"),
    "saturated 12 bit": ([np.full((5, 48, 48), 4095, np.uint16)], "saturated at 4095 ADU"),
    "mostly saturated": ([np.minimum(photons(), 105)], "are saturated at 105 ADU"),
    "smaller than a patch": ([photons((12, 20, 48))], "20×48 pixels, expected at least 32×32"),
    "nan": ([with_pixel(np.nan)], "frame 7 holds NaN or infinite"),
    "infinite": ([with_pixel(np.inf)], "frame 7 holds NaN or infinite"),
    "other light": ([photons() + np.uint16(9000)], "100% of the pixels lie outside of the"),
    "mixed shapes": ([photons(), photons((12, 48, 64))], "frames are 48×64, those of"),
    "mixed types": ([photons(), photons(dtype=np.uint8)], "pixels are uint8, those of"),
    "nothing": ([], "no stacks were given"),
}


@pytest.mark.parametrize("case", sorted(BAD))
def test_bad_recordings_are_one_line_and_leave_the_checkpoint_alone(case, unfinished, noise_model):
    pixels, message = BAD[case]
    out, checkpoint = unfinished
    stacks = [stack_from_array(part) for part in pixels]
    resumed = dataclasses.replace(QUICK, resume=True)
    with pytest.raises(QuietscopeError, match=message) as caught:
        train(stacks, out, resumed, noise_model=noise_model)
    assert "\n" not in str(caught.value)
    assert working_file(out).read_bytes() == checkpoint
    assert [file.name for file in out.parent.iterdir()] == [working_file(out).name]


def test_no_recording_at_all_is_no_crash_without_a_noise_model(tmp_path):
    with pytest.raises(TrainingError, match="no stacks were given"):
        train([], tmp_path / "model", QUICK)


def test_noise_that_no_frame_shows_is_named(tmp_path):
    y, x = np.mgrid[:48, :48]
    smooth = np.broadcast_to((1000 + 10 * x + 5 * y).astype(np.uint16), (6, 48, 48)).copy()
    with pytest.raises(QuietscopeError, match="show no noise") as caught:
        train([stack_from_array(smooth)], tmp_path / "model", QUICK)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_a_loss_that_runs_away_is_named_and_the_weights_that_are_kept_are_finite(
    noise_model, tmp_path
):
    options = dataclasses.replace(QUICK, learning_rate=1e25, steps=400)
    with pytest.raises(TrainingError, match=r"not finite in 21 steps.*--learning-rate") as caught:
        train([stack_from_array(photons())], tmp_path / "model", options, noise_model=noise_model)
    assert "\n" not in str(caught.value)


@pytest.mark.skipif(sys.platform == "win32", reason="no limit on the size of files here")
def test_a_disk_that_fills_up_in_the_middle_of_a_checkpoint(unfinished, tmp_path):
    """The limit on a file's size cuts a real write short, as a full disk does."""
    program = f"""
import resource, sys
import numpy as np
from pathlib import Path
from quietscope.errors import QuietscopeError
from quietscope.storage.stack import stack_from_array
from quietscope.training.checkpoint import working_file
from quietscope.training.options import TrainingOptions
from quietscope.training.train import train

out = Path({str(tmp_path / "model")!r})

def fill_up(progress):
    if working_file(out).is_file():
        good = working_file(out).read_bytes()
        (out.parent / "good.pt").exists() or (out.parent / "good.pt").write_bytes(good)
        resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, resource.RLIM_INFINITY))

pixels = np.random.default_rng(0).poisson(40, (12, 48, 48)).astype(np.uint16)
try:
    train([stack_from_array(pixels)], out, TrainingOptions(preset="fast", steps=60, batch=2),
          on_progress=fill_up)
except QuietscopeError as error:
    print(error)
    sys.exit(1)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    assert "last good checkpoint is intact" in done.stdout
    assert done.stdout.count("\n") == 1
    left = sorted(file.name for file in tmp_path.iterdir())
    assert left == ["good.pt", "model.unfinished.pt"]
    kept = working_file(tmp_path / "model")
    assert kept.read_bytes() == (tmp_path / "good.pt").read_bytes()
    assert load_checkpoint(kept)["step"] > 0
