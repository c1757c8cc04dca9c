"""Small scenes, their camera, and learners that are trained for a few steps."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from quietscope.calibration.noise_model import MixtureTable
from quietscope.storage.stack import Stack, stack_from_array
from quietscope.training.methods import learner_for
from quietscope.training.methods.learner import Learner
from quietscope.training.model.noise_likelihood import TabulatedNoise
from quietscope.training.options import InputPlanes, TrainingOptions
from quietscope.training.train import fit, read

OFFSET, READ = 100.0, 2.0


class PhotonsAndOffset:
    """One ADU a photon, an offset of 100 ADU, 2 ADU of read noise, as a Gaussian."""

    signal_range_adu = (OFFSET, 500.0)
    least_variance_adu2 = READ**2

    def variance(self, signal):
        return np.clip(np.asarray(signal) - OFFSET, 0, None) + READ**2

    def mixture(self, signal):
        signal = np.asarray(signal, dtype=float)
        return MixtureTable(
            signal=signal,
            weights=np.ones((1, signal.size)),
            offsets=np.zeros((1, signal.size)),
            variances=self.variance(signal)[None],
        )


CAMERA = PhotonsAndOffset()


@pytest.fixture(scope="session")
def truth() -> np.ndarray:
    """A still scene, (Y, X) ADU."""
    y, x = np.mgrid[:72, :88]
    stripes = 20 * (np.sin(x / 6.0 + y / 11.0) > 0.3)
    return OFFSET + 6 + stripes + 60 * np.exp(-((y - 36) ** 2 + (x - 40) ** 2) / 60.0)


def observed(signal: np.ndarray, seed: int = 0) -> np.ndarray:
    """Return what the camera makes of a signal, uint16."""
    rng = np.random.default_rng(seed)
    photons = rng.poisson(signal - OFFSET) + READ * rng.standard_normal(signal.shape)
    return np.rint(OFFSET + photons).clip(0).astype(np.uint16)


@pytest.fixture(scope="session")
def repeats(truth) -> Stack:
    return stack_from_array(observed(np.broadcast_to(truth, (16, *truth.shape))))


@pytest.fixture(scope="session")
def true_stack(truth) -> Stack:
    return stack_from_array(truth[None].astype(np.float32), path="truth")


@pytest.fixture
def learner_of_noise() -> Callable[..., Learner]:
    """Build the learner of an algorithm, untrained."""

    def build(algorithm: str, inputs: InputPlanes | None = None, **choices: Any) -> Learner:
        torch.manual_seed(0)
        noise = TabulatedNoise(
            CAMERA, low_adu=90.0, high_adu=260.0, centre_adu=120.0, scale_adu=20.0
        )
        options = TrainingOptions(**{"algorithm": algorithm, "preset": "fast"} | choices)
        return learner_for(options, noise, inputs)

    return build


@pytest.fixture
def trained() -> Callable[..., Any]:
    """Train without writing a bundle; returns estimator, run and remarks."""

    def run(stacks, algorithm, *, truths=(), pairs=None, noise_model=CAMERA, **choices):
        torch.manual_seed(0)
        plain = {"algorithm": algorithm, "preset": "fast", "steps": 100, "batch": 4, "patch": 32}
        options = TrainingOptions(**plain | choices)
        said: list[str] = []
        recordings, _ = read(stacks, options, None, None, said.append, truths=truths, pairs=pairs)
        estimator, done = fit(
            recordings, noise_model, options, started=time.monotonic(), on_remark=said.append
        )
        return estimator.eval(), done, said

    return run


def denoised(estimator, frame: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return estimate and uncertainty (Y, X) of a frame (Y, X) or observations (P, Y, X)."""
    planes = frame if frame.ndim == 3 else frame[None]
    with torch.no_grad():
        mean, deviation = estimator(torch.from_numpy(planes[None].astype(np.float32)))
    return mean[0, 0].numpy(), deviation[0, 0].numpy()


def mse(estimate: np.ndarray, truth: np.ndarray) -> float:
    return float(np.mean((np.asarray(estimate, dtype=float) - truth) ** 2))
