"""Only differences beyond their spread count, and among equals the one that asks for least."""

from __future__ import annotations

import numpy as np
import pytest

from quietscope.comparison.advice import DECIBEL, OF_NOISE, Scene, advice, told_apart
from quietscope.comparison.contestants import Contestant
from quietscope.comparison.rows import Row

STILL = Scene((0.0, 0.0), 0.0)


def row(method, scores, kind="filter", frames=1, **figures):
    return Row(
        Contestant(kind, method, frames),
        figures={"ms_per_frame": 1.0, "uncertainty_z_std": None, **figures},
        per_frame={"psnr_db": list(scores)},
        facts={"frames": frames, **({"training_minutes": 5.0} if kind == "trained" else {})},
    )


def advised(*rows, scene=STILL):
    found = [row("identity", [20.0, 20.1, 19.9]), *rows]
    return advice(found, knows_truth=True, frames=3, scene=scene)


def test_a_difference_within_its_spread_is_none():
    """The model is ahead by 0.2 dB on average and behind on one frame: the filter is advised."""
    found = advised(
        row("gaussian", [30.0, 30.0, 30.0]),
        row("lattice", [30.5, 29.7, 30.4], kind="trained"),
    )
    assert found.ranking[0] == "lattice"
    assert found.chosen == "gaussian"
    assert "lattice is nominally best, but by 0.20 ± 0.44 dB" in found.sentence


def test_a_small_difference_that_never_fails_counts():
    found = advised(
        row("gaussian", [30.0, 31.0, 32.0]),
        row("lattice", [30.2, 31.2, 32.2], kind="trained"),
    )
    assert found.chosen == "lattice"
    assert "0.20 ± 0.00 dB better than gaussian" in found.sentence
    assert "5.0 minutes" in found.based_on


def test_of_several_frames_it_says_what_is_best_where_things_move():
    found = advised(
        row("gaussian", [30.0, 30.1, 30.2]),
        row("median", [29.0, 29.1, 29.2]),
        row("gaussian", [33.0, 33.1, 33.2], frames=5),
    )
    assert found.chosen == "gaussian, 5 frames"
    assert "of single frames gaussian is best (3.00 ± 0.00 dB less)" in found.sentence


def test_what_several_frames_cost_where_things_move_is_never_less_than_nothing():
    """The mean is advised for its price, although a model of single frames is ahead."""
    found = advised(
        row("gaussian", [33.0, 33.1, 33.2], frames=5),
        row("lattice", [33.1, 33.2, 33.2], kind="trained"),
    )
    assert found.chosen == "gaussian, 5 frames"
    assert "of single frames lattice is best (and no less)" in found.sentence


def test_nothing_is_advised_where_nothing_is_better_than_raw():
    found = advised(row("gaussian", [20.0, 19.9, 20.1]))
    assert found.chosen is None
    assert "Take none" in found.sentence


def test_correlated_noise_is_named():
    found = advised(row("gaussian", [30.0] * 3), scene=Scene((0.6, 0.5), 0.0))
    assert "share noise (correlation 0.60 along x, 0.50 along y)" in found.sentence
    assert "compare r2r and structn2v as well" in found.sentence


def test_of_two_frames_only_a_plain_difference_counts():
    assert not told_apart(np.array([30.5, 30.5]), np.array([30.0, 30.0]), DECIBEL)
    assert told_apart(np.array([31.5, 31.5]), np.array([30.0, 30.0]), DECIBEL)


def test_without_truth_a_constant_changes_nothing():
    """A split tells errors up to a constant; some come out below zero."""
    errors = {
        "identity": [10.0, 10.2, 9.8],
        "gaussian": [-0.5, -0.45, -0.55],
        "mean": [0.5, 0.55, 0.45],
    }
    rows = [
        Row(
            Contestant("filter", name),
            {"ms_per_frame": 1.0},
            {"held_out_mse_adu2": own, "held_out_mse_raw_adu2": errors["identity"]},
        )
        for name, own in errors.items()
    ]
    found = advice(rows, knows_truth=False, frames=3, scene=STILL)
    assert found.ranking == ("gaussian", "mean", "raw")
    assert found.chosen == "gaussian"
    assert f"10.00 ± 0.00 {OF_NOISE.name} better than mean" in found.sentence
    assert "against a half of each frame's noise" in found.based_on


@pytest.mark.parametrize("moved", [None, 0.1, 2.0])
def test_what_was_not_tested_is_said(moved):
    found = advised(row("gaussian", [30.0] * 3), scene=Scene(None, moved))
    assert ("not tested" in found.based_on) == (moved == 0.1)
