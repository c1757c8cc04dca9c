"""Which target belongs to which frame: tests of rest, truths of other scenes, pairs by name."""

from __future__ import annotations

import numpy as np
import pytest

from quietscope.storage.stack import stack_from_array
from quietscope.training.data.targets import Repeats, at_rest, place_truths, read_pairs
from quietscope.training.errors import TrainingDataError


def scene(centre: float, shape=(128, 128)) -> np.ndarray:
    y, x = np.mgrid[: shape[0], : shape[1]]
    texture = 10 * (np.sin(x / 5 + np.sin(y / 9)) > 0)
    return 5 + texture + 80 * np.exp(-((y - 60) ** 2 + (x - centre) ** 2) / 60)


def counts(rate: np.ndarray, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).poisson(rate).astype(np.uint16)


def test_frames_at_rest_are_told_from_a_spot_that_moved_and_from_a_scene_that_shifted():
    still = scene(50)
    assert np.mean([at_rest(counts(still, i), counts(still, 99 - i)) for i in range(12)]) > 0.9
    for i in range(6):
        assert not at_rest(counts(still, i), counts(scene(53), 50 + i))
        assert not at_rest(counts(still, i), counts(np.roll(still, 1, axis=1), 50 + i))


def test_a_copy_is_no_other_frame():
    still = counts(scene(50), 0)
    assert not at_rest(still, still.copy())


def test_noise_that_neighbours_share_is_no_motion():
    still = scene(50)
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(2, 128, 1)) * 3
    one, other = (counts(still, i) + 20 + np.rint(rows[i]) for i in range(2))
    assert at_rest(one.astype(np.uint16), other.astype(np.uint16))


def test_partners_never_are_among_the_frames_that_are_seen_together():
    stack = stack_from_array(np.zeros((2, 12, 8, 8), np.uint16), axes=("position", "time"))
    found = Repeats().candidates(stack, 12 + 5, context_frames=2)
    assert set(found) == {12 + 6, 12 + 7, 12 + 9, 12 + 1}


@pytest.fixture
def recording():
    return stack_from_array(np.stack([counts(scene(50), i) for i in range(6)]), path="noisy")


def placed(recording, truth, said=None):
    remarks = [] if said is None else said
    return place_truths([recording], [stack_from_array(truth, path="true")], remarks.append)[0]


def test_a_truth_of_another_exposure_is_brought_to_the_frames_brightness(recording):
    said: list[str] = []
    truth = placed(recording, (7 * scene(50) + 300)[None].astype(np.float32), said)
    brought = truth.brought(truth.stack.frame(0))
    assert np.abs(brought - scene(50)).max() < 1.0
    assert "brought to the brightness" in said[0]
    same = placed(recording, scene(50)[None].astype(np.float32), quiet := [])
    assert (same.factor, same.summand, quiet) == (1.0, 0.0, [])


@pytest.mark.parametrize(
    ("truth", "match"),
    [
        (scene(50)[None, :64], "the truth has frames 64×128"),
        (np.stack([scene(50)] * 5), "one true frame, or one"),
        (np.roll(scene(50), (4, -3), axis=(0, 1))[None], "shifted by 4 pixels along y and -3 "),
        (np.random.default_rng(1).permutation(scene(90)[None], axis=1), "another scene"),
        (np.random.default_rng(0).normal(size=(1, 128, 128)), "another scene"),
        (100 - scene(50)[None], "another scene|dark where|shifted"),
        (np.stack([counts(scene(50), i) for i in range(6)]), "the noisy frames of noisy"),
    ],
    ids=["shape", "count", "shifted", "another", "noise", "negative", "itself"],
)
def test_what_is_no_truth_of_a_recording_is_refused(recording, truth, match):
    with pytest.raises(TrainingDataError, match=match) as caught:
        placed(recording, truth.astype(np.float32))
    assert "\n" not in str(caught.value)


def test_named_pairs_are_read_both_ways(tmp_path, recording):
    path = tmp_path / "pairs.csv"
    path.write_text("frame,other\n0,3\n1, 4\n\n", encoding="utf-8")
    (found,) = read_pairs(path, [recording], 0)
    assert not found.tested
    assert [found.candidates(recording, i, 0) for i in range(5)] == [[3], [4], [], [0], [1]]


def test_a_pair_that_the_network_sees_together_is_refused(tmp_path, recording):
    """Its target would be among what it is given: in time, or in the stack beside it."""
    stack = stack_from_array(
        recording.frames(range(6)).reshape(2, 3, 128, 128), axes=("time", "z")
    )
    path = tmp_path / "pairs.csv"
    for text, context, planes, match in (
        ("0,1", 0, 1, "pairs frames 0 and 1, which --planes 1 shows together"),
        ("0,3", 1, 1, "which --context 1 and --planes 1 shows together"),
    ):
        path.write_text(text, encoding="utf-8")
        with pytest.raises(TrainingDataError, match=match):
            read_pairs(path, [stack], context, planes)
    path.write_text("0,3", encoding="utf-8")
    (found,) = read_pairs(path, [stack], 0, 1)
    assert found.candidates(stack, 0, 0) == [3]


@pytest.mark.parametrize(
    ("text", "context", "match"),
    [
        ("0,9", 0, "names frame 9, noisy has 6 frames"),
        ("0,0", 0, "with itself"),
        ("0,one", 0, "line 1 is '0,one', expected two frame numbers"),
        ("4,0,1", 0, "names recording 4, there are 1"),
        ("0,1", 2, "shows together"),
        ("", 0, "names no pair"),
        ("-1,2\n0,1", 0, "line 1 is '-1,2'"),
        ("frame,other\n\n0,²", 0, "line 3 is '0,²'"),
        ("0,1\n0," + "9" * 5000, 0, "line 2 is"),
    ],
)
def test_pairs_that_are_none_are_refused(tmp_path, recording, text, context, match):
    path = tmp_path / "pairs.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(TrainingDataError, match=match):
        read_pairs(path, [recording], context)
    with pytest.raises(TrainingDataError, match="cannot be read"):
        read_pairs(tmp_path / "none.csv", [recording], context)
