"""What the training benchmarks share: data, a training run without a bundle, rows kept as JSON.

Owns no figure and starts nothing; the scripts `training_*.py` beside it do.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from quietscope.calibration.bootstrap import bootstrap_noise_model
from quietscope.calibration.noise_model import NoiseModel
from quietscope.inference.evaluation.metrics import psnr_db
from quietscope.inference.runtime.providers import all_cores, cpu_name
from quietscope.storage.atomic_output import write_json
from quietscope.storage.open_stack import open_stack
from quietscope.storage.stack import Stack
from quietscope.training.data.recordings import load_recordings
from quietscope.training.methods import patch_edge
from quietscope.training.model.estimator import Estimator
from quietscope.training.options import LATTICE_PLANS, PLANS, NetworkPlan, TrainingOptions
from quietscope.training.run import Run
from quietscope.training.train import fit

DATA = Path(os.environ.get("QUIETSCOPE_DATA", Path(__file__).parents[2] / "shared" / "data"))
RESULTS = Path(__file__).parent / "results"

Image = NDArray[Any]


class Rows:
    """Rows of one benchmark, printed and stored as soon as they are measured.

    A row replaces an earlier one of the same `key`, so that parts of a benchmark can be run again.

    Parameters
    ----------
    path
        The JSON file; rows that it holds already are kept.
    key
        The names that tell rows apart.
    facts
        What holds for all rows.
    """

    def __init__(self, path: Path, key: Sequence[str], **facts: Any) -> None:
        self._path = path
        self._key = key
        self._facts = {"hardware": cpu_name(all_cores()), "torch": torch.__version__, **facts}
        self.rows = self._stored()

    def add(self, row: dict[str, Any]) -> dict[str, Any]:
        """Print a row and write the file anew."""
        print(json.dumps(_short(row)), flush=True)
        # Another part of the benchmark may have added its own in the meantime.
        self.rows = [old for old in self._stored() if not self._same(old, row)] + [row]
        write_json(self._path, {**self._facts, "rows": self.rows})
        return row

    def row(self, key: dict[str, Any]) -> dict[str, Any]:
        """Return what is known under a key: the key alone where nothing is."""
        return next((old for old in self._stored() if self._same(old, key)), dict(key))

    def holds(self, row: dict[str, Any]) -> bool:
        """Return whether there is a row of the same key; another part may have added it."""
        return any(self._same(old, row) for old in self._stored())

    def _stored(self) -> list[dict[str, Any]]:
        if not self._path.is_file():
            return []
        stored = json.loads(self._path.read_text(encoding="utf-8"))["rows"]
        return [row for row in stored if set(self._key) <= row.keys()]

    def _same(self, one: dict[str, Any], other: dict[str, Any]) -> bool:
        return all(one.get(name) == other.get(name) for name in self._key)


def _short(value: Any) -> Any:
    """Return what is readable on a screen: few digits, and of long lists their length."""
    if isinstance(value, dict):
        return {name: _short(part) for name, part in value.items()}
    if isinstance(value, list) and len(value) <= 6:
        return [_short(part) for part in value]
    if isinstance(value, list):
        return f"{len(value)} in the file"
    return float(f"{value:.5g}") if isinstance(value, float) else value


def is_default(options: TrainingOptions) -> bool:
    """Return whether a person who gives nothing but data and a budget trains this."""
    plain = TrainingOptions()
    budget = {name: getattr(plain, name) for name in ("seconds", "steps", "seed", "resume")}
    return replace(options, **budget) == plain


@contextmanager
def as_live(plan: NetworkPlan) -> Iterator[None]:
    """Let the default preset stand for another plan."""
    usual = PLANS["live"], LATTICE_PLANS["live"]
    PLANS["live"] = LATTICE_PLANS["live"] = plan
    try:
        yield
    finally:
        PLANS["live"], LATTICE_PLANS["live"] = usual


def nandb() -> list[Stack]:
    """Open six stacks of photon counts, 50 repeats of one scene each."""
    return [open_stack(path) for path in sorted((DATA / "nandb_fkbp_confocal").glob("*.tif"))]


@dataclass(frozen=True)
class Example:
    """A frame with its context, (1 + T, Y, X), and what the other repeats say, (Y, X) ADU.

    The truth leaves out every input frame; `truth_variance` is the variance of that mean.
    """

    observations: Image
    truth: NDArray[np.float64]
    truth_variance: NDArray[np.float64]

    def psnr_db(self, estimate: Image) -> float:
        return psnr_db(estimate, self.truth)


def repeats(stacks: Sequence[Stack], frames: Iterable[int], context_frames: int) -> list[Example]:
    """Return frames of static stacks with their truth."""
    examples = []
    for stack in stacks:
        pixels = stack.frames(range(len(stack))).astype(np.float64)
        for index in frames:
            others = np.delete(pixels, range(index - context_frames, index + 1), axis=0)
            variance = others.var(axis=0, ddof=1) / len(others)
            observations = stack.observations(index, context_frames)
            examples.append(Example(observations, others.mean(axis=0), variance))
    return examples


def mean_psnr_db(estimator: Estimator, examples: Sequence[Example]) -> float:
    """Return the mean PSNR of the estimates."""
    return float(
        np.mean([one.psnr_db(denoised(estimator, one.observations)[0]) for one in examples])
    )


def z_by_brightness(
    estimates: Sequence[tuple[Image, Image]], examples: Sequence[Example]
) -> list[float]:
    """Return the standard deviation of standardised errors by quartile of the estimate.

    `estimates` are mean and standard deviation of each example. The truth's own variance is
    allowed for; 1 is honest, more is overconfident.
    """
    level = np.concatenate([mean.ravel() for mean, _ in estimates])
    squared = np.concatenate(
        [
            ((mean - one.truth) ** 2 / (deviation**2 + one.truth_variance)).ravel()
            for (mean, deviation), one in zip(estimates, examples, strict=True)
        ]
    )
    quarters = np.array_split(np.argsort(level, kind="stable"), 4)
    return [float(np.sqrt(squared[quarter].mean())) for quarter in quarters]


def fitted(
    stacks: Sequence[Stack],
    options: TrainingOptions,
    noise_model: NoiseModel | None = None,
    **given: Any,
) -> tuple[Estimator, Run]:
    """Train as `quietscope train` does, without writing a bundle; `given` goes to `fit`."""
    started = time.monotonic()
    recordings = load_recordings(
        stacks,
        context_frames=options.context_frames,
        patch=patch_edge(options),
        memory_mib=options.memory_mib,
    )
    known = noise_model or bootstrap_noise_model(stacks, seed=options.seed)
    return fit(recordings, known, options, **{"started": started, **given})


def denoised(estimator: Estimator, observations: Image) -> tuple[Image, Image]:
    """Return estimate and standard deviation, (Y, X) ADU, of observations (1 + T, Y, X)."""
    with torch.no_grad():
        mean, deviation = estimator(torch.from_numpy(observations[None]))
    return mean[0, 0].double().numpy(), deviation[0, 0].double().numpy()


def affine_fitted(image: Image, truth: Image) -> NDArray[np.float64]:
    """Return a·image + b that is nearest to the truth in the mean square."""
    slope, offset = np.polyfit(image.astype(np.float64).ravel(), truth.ravel(), 1)
    return slope * image.astype(np.float64) + offset
