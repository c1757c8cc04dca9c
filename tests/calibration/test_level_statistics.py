"""Statistics of repeats: absent frames count as if they had never been planned."""

from __future__ import annotations

import numpy as np

from quietscope.calibration.bootstrap import bootstrap_noise_model
from quietscope.calibration.level_statistics import level_statistics
from quietscope.storage.stack import stack_from_array


def with_gaps(count=24, gaps=(0, 7, 8, 23), shape=(32, 32)):
    """A recording with zeros in its gaps, as Zarr answers for them; and the frames alone."""
    rng = np.random.default_rng(0)
    whole = (100 + 2 * rng.poisson(80, (count, *shape))).astype(np.uint16)
    present = np.ones(count, bool)
    present[list(gaps)] = False
    whole[~present] = 0
    return stack_from_array(whole, present=present), stack_from_array(whole[present])


def test_absent_frames_are_no_repeats():
    gapped, alone = (level_statistics(stack) for stack in with_gaps())
    assert gapped.frames == alone.frames == 20
    np.testing.assert_array_equal(gapped.variance_adu2, alone.variance_adu2)
    np.testing.assert_array_equal(gapped.sample, alone.sample)
    assert gapped.zero_share == 0


def test_a_bootstrap_draws_from_the_frames_that_are_there():
    gapped, _ = with_gaps()
    model = bootstrap_noise_model([gapped])
    assert model.signal_range_adu[0] > 100
