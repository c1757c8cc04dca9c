"""Training waits for a live session, goes on as if nothing had been, and ends with its window."""

from __future__ import annotations

import time

import numpy as np
import pytest
import torch

from quietscope.acquisition.microscope.specimen import CameraLaw, Specimen
from quietscope.calibration.bootstrap import bootstrap_noise_model
from quietscope.storage.live_sessions import live_session
from quietscope.storage.stack import stack_from_array
from quietscope.training.checkpoint import load_checkpoint
from quietscope.training.data.recordings import load_recordings
from quietscope.training.options import TrainingOptions
from quietscope.training.retraining.giving_way import GiveWay, move
from quietscope.training.retraining.window import WindowEndedError
from quietscope.training.train import fit

pytestmark = pytest.mark.usefixtures("one_thread")

STEPS = 12
OPTIONS = TrainingOptions(preset="fast", steps=STEPS, batch=4, patch=32)


@pytest.fixture(scope="module")
def trained():
    """Train a little network on a little specimen, in whatever company."""
    specimen = Specimen((64, 64), CameraLaw(0.5, 100.0, 2.0))
    stack = stack_from_array(np.stack([specimen.observe(index) for index in range(16)]))
    noise_model = bootstrap_noise_model([stack], seed=0)

    def train(options=OPTIONS, **company):
        recordings = load_recordings([stack], context_frames=0, patch=32, memory_mib=64, seed=0)
        return fit(recordings, noise_model, options, started=time.monotonic(), **company)

    return train


@pytest.fixture(scope="module")
def undisturbed(trained):
    return weights(trained()[1])


def weights(run):
    return torch.cat([w.flatten() for w in run.averaged_network.state_dict().values()])


def test_a_session_in_between_changes_nothing_but_the_time(trained, undisturbed, tmp_path):
    microscope = iter(["a session", "a session", None, "a session", None, None])
    waits = GiveWay(live=lambda: next(microscope, None), settled_s=0.1)
    began = time.monotonic()
    _, run = trained(between_steps=waits, checkpoint=tmp_path / "run.pt")
    # The budget is of time that was worked.
    worked = run.schedule.elapsed
    assert waits.waited_s > 0.6
    assert worked <= time.monotonic() - began - waits.waited_s
    torch.testing.assert_close(weights(run), undisturbed, rtol=0, atol=0)


def test_it_stands_still_with_its_work_on_the_disk(trained, tmp_path):
    """So that a computer which is switched off meanwhile costs nothing."""
    file, seen = tmp_path / "run.pt", []

    def live():
        seen.append(file.is_file())
        return "a session" if len(seen) < 4 else None

    trained(between_steps=GiveWay(live=live, settled_s=0.0), checkpoint=file)
    assert seen[:4] == [False, True, True, True]


def test_the_session_that_is_waited_for_is_the_real_one(trained):
    began, waits = time.monotonic(), GiveWay(until=time.time() + 1.0, settled_s=0.0)
    with live_session(), pytest.raises(WindowEndedError, match="goes on from here next night"):
        trained(between_steps=waits)
    assert 0.9 < waits.waited_s <= time.monotonic() - began


def test_a_night_that_ends_before_the_training_is_gone_on_with(trained, undisturbed, tmp_path):
    file, calls = tmp_path / "run.pt", []

    def until(run, save):
        calls.append(run.step)
        if run.step == STEPS // 2:
            GiveWay(until=0.0)(run, save)

    with pytest.raises(WindowEndedError):
        trained(between_steps=until, checkpoint=file)
    assert load_checkpoint(file)["step"] == STEPS // 2
    resumed = TrainingOptions(**{**_plain(OPTIONS), "resume": True})
    _, run = trained(resumed, checkpoint=file)
    torch.testing.assert_close(weights(run), undisturbed, rtol=0, atol=0)


def _plain(options):
    return {**options.record(), "other_channels": options.other_channels}


def test_everything_that_is_computed_with_leaves_the_device(trained):
    """There is no GPU here: `meta`, where tensors have no memory, stands for one."""
    _, run = trained(TrainingOptions(preset="fast", steps=2, batch=2, patch=32))
    move(run, torch.device("meta"))
    tensors = [
        *run.learner.network.parameters(),
        *run.average.parameters(),
        *run.best.values(),
        *(v for o in run.optimizers for s in o.state.values() for v in s.values()),
    ]
    assert {tensor.device.type for tensor in tensors} == {"meta"}
