"""What the network is shown: disturbed pasts, missing context, the direction of noise."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from quietscope.storage.stack import stack_from_array
from quietscope.training.data.audit import fitting_patch
from quietscope.training.data.augmentation import augmented
from quietscope.training.schedule import Schedule, learning_rate_share


def flat(patch):
    return np.sort(patch.ravel())


def test_the_newest_frame_is_only_turned():
    rng = np.random.default_rng(0)
    patches = rng.normal(size=(32, 4, 32, 32)).astype(np.float32)
    turned = augmented(patches.copy(), np.random.default_rng(1), transpose=True)
    for before, after in zip(patches, turned, strict=True):
        np.testing.assert_array_equal(flat(before[0]), flat(after[0]))


def test_rows_stay_rows_where_noise_has_a_direction():
    patches = np.broadcast_to(
        np.arange(32, dtype=np.float32)[:, None], (64, 1, 32, 32)
    ).copy()  # constant along x
    turned = augmented(patches, np.random.default_rng(0), transpose=False)
    assert (turned == turned[..., :1]).all()


def test_the_past_is_disturbed_and_sometimes_missing():
    rng = np.random.default_rng(0)
    patches = np.ones((400, 4, 32, 32), np.float32)
    patches += np.arange(400, dtype=np.float32)[:, None, None, None]
    turned = augmented(patches, rng, transpose=True)
    missing = (turned[:, 1:] == 0).all(axis=(2, 3))
    assert 0.05 < missing.all(axis=1).mean() < 0.2  # the first frame of a run
    assert 0.1 < missing[:, -1].mean() < 0.4  # the first few frames
    elsewhere = (turned[:, 1] != turned[:, 0]) & (turned[:, 1] != 0)
    assert 0.15 < elsewhere.any(axis=(1, 2)).mean() < 0.6


def test_missing_frames_are_zero_in_network_units():
    patches = np.full((8, 3, 32, 32), 7.0, np.float32)
    patches[:, 2] = np.nan
    turned = augmented(patches, np.random.default_rng(0), transpose=True)
    assert np.isfinite(turned).all()
    assert (turned[:, 2] == 0).mean() > 0.9  # but for what is pasted


def test_the_learning_rate_warms_up_and_ends_low():
    shares = [learning_rate_share(p) for p in np.linspace(0, 1, 101)]
    assert shares[0] < 0.2
    assert max(shares) == pytest.approx(1, abs=0.01)
    assert shares[-1] < 0.02
    assert all(later <= earlier for earlier, later in pairwise(shares[3:]))


def test_steps_alone_decide_where_a_budget_of_steps_is():
    schedule = Schedule(seconds=None, steps=200, started=-1e6)
    assert schedule.progress(50) == 0.25
    assert schedule.progress(500) == 1.0


@pytest.mark.parametrize(("wanted", "edge"), [(100, 96), (36, 32), (64, 64), (4096, 112)])
def test_patches_are_of_edges_that_every_network_halves(wanted, edge):
    stack = stack_from_array(np.zeros((2, 120, 300), np.uint16))
    assert fitting_patch(stack, wanted) == edge
