"""The run that makes the general model: stopped, gone on with, and what its parts leave alone."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from quietscope.training.general import train as general_training
from quietscope.training.model.general import SHRINK, GeneralNetwork

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture
def ran(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Run the command in the small; return the weights of a file."""
    monkeypatch.setattr(general_training, "BATCH", 2)
    monkeypatch.setattr(general_training, "PATCH", 48)

    def run(name: str, *options: object) -> dict[str, torch.Tensor]:
        out = tmp_path / name
        words = ["train", "--scenes", 2, "--out", out, *options]
        monkeypatch.setattr(sys, "argv", [str(word) for word in words])
        general_training.main()
        return torch.load(out, weights_only=True)["weights"]

    return run


@pytest.mark.long
def test_the_deviation_alone_is_learned_where_that_is_asked_for(ran, tmp_path: Path) -> None:
    """The estimate stays the same to the last bit, also in a run that was stopped."""
    begun = ran("begun.pt", "--steps", 3)
    alone = ("--from", tmp_path / "begun.pt", "--steps", 4, "--seed", 1, "--deviation-alone")
    ran("parts.pt", *alone, "--until", 2)
    in_parts, at_once = ran("parts.pt", *alone), ran("whole.pt", *alone)
    changed = {name for name in begun if not torch.equal(begun[name], at_once[name])}
    assert changed == {"network.head.weight", "network.head.bias"}
    for name in changed:
        assert torch.equal(begun[name][: SHRINK**2], at_once[name][: SHRINK**2])
    assert all(torch.equal(in_parts[name], at_once[name]) for name in begun)
    frames, there = 20 + torch.rand(1, 1, 32, 32), torch.ones(1, 0, 1, 1)
    before, after = _answers(begun, frames, there), _answers(at_once, frames, there)
    assert torch.equal(before[0], after[0])
    assert not torch.equal(before[1], after[1])


def _answers(weights, frames, there):
    network = GeneralNetwork()
    network.load_state_dict(weights)
    with torch.no_grad():
        return network(frames, there, torch.ones(1, 1, 1, 1))


def test_the_deviation_of_nothing_cannot_be_learned(ran) -> None:
    with pytest.raises(SystemExit):
        ran("none.pt", "--deviation-alone")
