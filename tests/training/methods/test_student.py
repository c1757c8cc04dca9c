"""A teacher paints frames that it has not seen, and a student learns the pictures."""

from __future__ import annotations

import time
from weakref import WeakSet

import numpy as np
import pytest
import torch

from quietscope.inference.general.shipped import general_in_words
from quietscope.storage.stack import stack_from_array
from quietscope.training.checkpoint import begun_algorithm
from quietscope.training.data.pictures import Pictures
from quietscope.training.data.recordings import load_recordings
from quietscope.training.data.side_inputs import SideInputs
from quietscope.training.errors import TrainingDataError, TrainingError
from quietscope.training.methods.student import ALPHA, TEACHER_SHARE
from quietscope.training.options import InputPlanes, TrainingOptions
from quietscope.training.train import fit, read

from .conftest import CAMERA, OFFSET, READ, denoised, mse, observed

pytestmark = pytest.mark.usefixtures("one_thread")


def test_the_student_sees_its_pixel_and_is_better_than_its_frames(repeats, truth, trained):
    estimator, run, _ = trained([repeats], "student", steps=60, preset="live")
    mean, deviation = denoised(estimator, repeats.frame(15))
    assert mse(mean, truth) < 0.25 * mse(repeats.frame(15), truth)
    assert 0.4 < np.std((mean - truth) / deviation) < 2.0
    assert run.teacher["steps"] == round(TEACHER_SHARE * 60)
    assert run.step == 60 - run.teacher["steps"]
    assert run.options.begun_with == general_in_words()
    brighter = repeats.frame(15).copy()
    brighter[30, 30] += 60
    assert denoised(estimator, brighter)[0][30, 30] > mean[30, 30] + 1


def test_a_picture_holds_nothing_of_what_the_student_sees(repeats, truth, trained):
    """Other noise in the frame and in the one before it: the picture stays, to the last bit."""
    painted = []
    for seed in (1, 2):
        frames = repeats.frames(range(16)).copy()
        frames[7:9] = observed(np.stack([truth, truth]), seed)
        options = TrainingOptions(
            algorithm="student", preset="fast", steps=1, batch=1, patch=32, context_frames=1
        )
        recordings, _ = read([stack_from_array(frames)], options, None, None, print)
        torch.manual_seed(0)
        # Its units and weights are those of the first run: what is asked is what it looks at.
        if painted:
            pictures = painted[0][0](recordings.resident[0])[0]
        else:
            fit(recordings, CAMERA, options, started=time.monotonic())
            paint = recordings.resident[0].chunk.side_inputs.target.paint
            pictures = recordings.resident[0].pictures
            painted.append((paint, pictures))
    np.testing.assert_array_equal(painted[0][1][8], pictures[8])
    assert not np.array_equal(painted[0][1][9], pictures[9])  # which has seen frame 7


def test_what_moved_is_learned_from_the_frame_and_not_from_the_picture(learner_of_noise):
    """Where the teacher is sure it is the picture; where it knows nothing, the other half."""
    learner = learner_of_noise("student", InputPlanes(target=2))
    rng = torch.Generator().manual_seed(0)
    frame = (torch.full((4, 1, 64, 64), 150.0) + 7.3 * torch.randn(4, 1, 64, 64) - 120) / 20
    picture = torch.full_like(frame, 2.0)
    for deviation, off in ((1e-4, 0.0), (1e3, 1.0)):
        patches = torch.cat([frame, picture + deviation, picture], dim=1)
        seen, target, variance = learner._split(patches, rng)
        noise = (seen[:, :1] - frame) / ALPHA
        expected = off * (frame - noise / ALPHA) + (1 - off) * picture
        torch.testing.assert_close(target, expected, atol=2e-2, rtol=1e-2)
    assert float(variance.mean()) == pytest.approx((1 + ALPHA**-2) * (50 + READ**2) / 400, rel=0.1)
    shared = ((seen[:, :1] - 1.5) * (target - 1.5)).mean() / variance.mean()
    assert abs(float(shared)) < 0.05  # their noise is independent


def test_a_flash_is_not_taught_away(learner_of_noise):
    """The teacher is sure that there is none: what the frame itself says counts there alone."""
    learner = learner_of_noise("student", InputPlanes(target=2))
    rng = torch.Generator().manual_seed(0)
    noise = (50 + READ**2) ** 0.5 * torch.randn(4, 1, 64, 64, generator=rng)
    frame = (torch.full((4, 1, 64, 64), 150.0) + noise - 120) / 20
    frame[:, :, 20:26, 30:36] += 2.0  # 40 photons
    picture = torch.full_like(frame, 1.5)
    patches = torch.cat([frame, picture + 0.01, picture], dim=1)
    _, target, _ = learner._split(patches, rng)
    assert float(target[:, :, 21:25, 31:35].mean()) > 1.5 + 1.7
    _, _, variance = learner._as_it_is(patches, rng)
    flashed = torch.zeros_like(variance, dtype=torch.bool)
    flashed[:, :, 15:31, 25:41] = True
    assert float(variance[:, :, 21:25, 31:35].min()) > 1.0
    assert float((variance[~flashed] > 0.01).float().mean()) < 2e-3


def test_drawn_copies_have_the_cameras_noise_around_a_darker_or_brighter_picture(
    learner_of_noise,
):
    learner = learner_of_noise("student", InputPlanes(target=2))
    picture = torch.full((8, 1, 64, 64), (150.0 - 120) / 20)
    patches = torch.cat([torch.zeros_like(picture), picture, picture], dim=1)
    seen, target, variance = learner._drawn(patches, torch.Generator().manual_seed(3))
    light = 20 * target[:, 0, 0, 0] + 120 - OFFSET
    assert light.min() < 40
    assert light.max() > 60
    assert (variance == 0).all()
    for one, electrons in zip(seen, light.tolist(), strict=True):
        error = 20 * one + 120 - OFFSET - electrons
        assert abs(float(error.mean())) < 0.6
        assert float(error.var()) == pytest.approx(electrons + READ**2, rel=0.1)


def test_a_brighter_answer_scores_as_badly_as_a_darker_one(learner_of_noise):
    learner = learner_of_noise("student", InputPlanes(target=2))
    picture = torch.full((1, 1, 64, 64), (150.0 - 120) / 20)
    patches = torch.cat([picture, picture + 0.01, picture], dim=1)
    scores = []
    for off in (-0.5, 0.5):
        answer = torch.cat([picture + off, 0.1 * torch.ones_like(picture)], dim=1)
        learner.network.forward = lambda _, answer=answer: answer
        scores.append(float(learner.score(patches, torch.Generator())))
    assert scores[0] == pytest.approx(scores[1], rel=1e-4)


class KilledError(Exception):
    pass


def test_a_run_that_is_killed_twice_goes_on_to_the_same_weights(repeats, tmp_path):
    whole, _, told = _run(repeats, tmp_path / "whole.pt")
    parts = [state.part.split(",")[0] for state in told]
    assert parts == sorted(parts, key=["teacher", "student"].index)
    assert [s.progress for s in told] == sorted(s.progress for s in told)
    part = tmp_path / "part.pt"
    with pytest.raises(KilledError):
        _run(repeats, part, killed_at=("teacher", 1))
    assert begun_algorithm(part) == "student"
    with pytest.raises(TrainingError, match="steps is 160, the unfinished run had 6"):
        _run(repeats, part, resume=True, steps=160)
    with pytest.raises(TrainingError, match="preset is live, the unfinished run had fast"):
        _run(repeats, part, resume=True, preset="live")
    with pytest.raises(KilledError):
        _run(repeats, part, killed_at=("student", 2), resume=True)
    assert begun_algorithm(part) == "student"
    with pytest.raises(TrainingError, match="preset is live, the unfinished run had fast"):
        _run(repeats, part, resume=True, preset="live")
    resumed, run, told = _run(repeats, part, resume=True)
    assert run.options.begun_with is None  # its network is not the general model's
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(resumed.state_dict()[name], value, msg=name)
    assert run.teacher["steps"] == 2
    assert {state.part.split(",")[0] for state in told} == {"student"}


def _run(repeats, checkpoint, *, killed_at=None, resume=False, preset="fast", steps=6):
    options = TrainingOptions(
        algorithm="student", preset=preset, steps=steps, batch=2, patch=32, resume=resume
    )
    recordings, _ = read([repeats], options, None, None, print)

    def between_steps(run, save):
        if (run.options.algorithm, run.step) == killed_at:
            save()
            raise KilledError

    told = []
    estimator, run = fit(
        recordings,
        CAMERA,
        options,
        started=time.monotonic(),
        checkpoint=checkpoint,
        between_steps=between_steps,
        on_progress=told.append,
    )
    return estimator, run, told


@pytest.mark.parametrize(("algorithm", "target"), [("student", Pictures(2)), ("n2v", None)])
def test_frames_that_the_window_has_left_are_in_memory_no_more(algorithm, target):
    frames = np.random.default_rng(0).integers(150, 180, (400, 64, 64)).astype(np.uint16)
    recordings = load_recordings(
        [stack_from_array(frames)],
        context_frames=0,
        patch=32,
        memory_mib=1,
        side_inputs=[SideInputs(target=target)],
    )
    options = TrainingOptions(algorithm=algorithm, preset="fast", steps=8, batch=1, patch=32)
    resident = len(recordings.resident)
    assert 2 * resident < len(recordings.window.chunks)
    alive, counts = WeakSet(recordings.resident), []

    def between_steps(run, save):
        alive.update(recordings.resident)
        counts.append(len(alive))

    fit(recordings, CAMERA, options, started=time.monotonic(), between_steps=between_steps)
    # One is read ahead, and one may be drawn from for the last time.
    assert max(counts) <= resident + 2


def test_single_frames_are_refused_and_a_method_is_named(truth, trained):
    with pytest.raises(TrainingDataError, match=r"single frames .*--algorithm n2v2"):
        trained([stack_from_array(observed(truth)[None])], "student", steps=2)
