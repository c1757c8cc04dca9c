"""Train the general model: `python -m quietscope.training.general.train --out FILE.pt`.

Owns the loop and its working file, from which a run that was stopped goes on. The budget is steps,
so that a seed gives one result on one machine, in however many parts; `--from` goes on from the
end of another run with a new course of the learning rate. With `--deviation-alone` it then learns
how far off the estimate is where the noise is told wrongly; the estimate stays what it is.
"""

from __future__ import annotations

import argparse
import math
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from ...storage.atomic_output import new_file
from ..model.general import LEAST_VARIANCE_E2, SHRINK, GeneralNetwork
from ..model.weight_average import weight_average
from ..schedule import learning_rate_share
from .photons import Examples, draw_examples, told_wrongly
from .scenes import draw_scene

SCENE_EDGE = 256
BATCH = 16
PATCH = 96
LEARNING_RATE = 1.2e-3
STEPS = 7000
LEAST_ERROR = 0.01
"""Of the frame's variance: an empty field, in which nearly nothing is left to learn, weighs no
more than that."""
DEVIATION_WEIGHT = 0.02
RENEW_EVERY = 12
"""Steps after which one scene of the pool makes way for a new one."""
SAVE_EVERY_S = 120.0


def draw_pool(count: int, seed: int) -> NDArray[np.float16]:
    """Return `count` scenes, (count, SCENE_EDGE, SCENE_EDGE)."""
    return np.stack([_scene(seed, number) for number in range(count)])


def loss_of(network: GeneralNetwork, drawn: Examples) -> tuple[Tensor, Tensor]:
    """Return what both outputs cost; each a number.

    The mean's is the logarithm of each example's error in units of its noise: what counts is by
    how much a picture gets better (in dB), not how bright and crowded it is. Inside an example it
    is the squared error of the signal, so that the estimate is a mean and has no bias.

    The deviation's is its likelihood. The mean does not learn from that: it slows it down (a
    network may trade one for the other).
    """
    mean, deviation = network(drawn.frames, drawn.there, drawn.read)
    noise = drawn.signal + drawn.read + LEAST_VARIANCE_E2
    squared = (mean - drawn.signal) ** 2
    frames = 1 + drawn.there.sum(dim=1, keepdim=True)
    error = (frames * squared / noise).mean(dim=(1, 2, 3))
    fit = torch.log(error + LEAST_ERROR).mean()
    spread = (torch.log(deviation) + 0.5 * squared.detach() / deviation**2).mean()
    return fit, spread - 0.5 * torch.log(noise).mean()


@dataclass
class _Work:
    """What a run has come to: all that its working file holds.

    Attributes
    ----------
    network, average, optimizer
        Trained; the average of its weights is what ships.
    begun
        Steps of the runs that this one goes on from.
    step
        Steps of this run.
    seconds
        Of process time, those before included.
    recipe
        In words, the runs that this one goes on from.
    """

    network: GeneralNetwork
    average: AveragedModel
    optimizer: torch.optim.Optimizer
    begun: int = 0
    step: int = 0
    seconds: float = 0.0
    recipe: tuple[str, ...] = ()

    @classmethod
    def new(cls) -> _Work:
        network = GeneralNetwork()
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return cls(network, weight_average(network), torch.optim.Adam(network.parameters()))

    def go_on_from(self, path: Path, *, with_optimizer: bool) -> None:
        """Begin with the averaged weights of an earlier run."""
        before = torch.load(path, weights_only=True)
        self.begun = before["steps"]
        self.seconds = before["seconds"] + before.get("seconds_before", 0.0)
        self.recipe = tuple(before.get("recipe", ()))
        self.network.load_state_dict(before["weights"])
        self.average.module.load_state_dict(before["weights"])
        if with_optimizer:
            self.optimizer.load_state_dict(before["optimizer"])

    def learn_deviation_alone(self) -> None:
        """Keep everything as it is but the last layer's outputs for the deviation."""
        self.network.requires_grad_(False)
        for last in self.network.network.head.parameters():
            last.requires_grad_(True)
            last.register_hook(_of_deviation)  # type: ignore[no-untyped-call]
        self.optimizer = torch.optim.Adam(self.network.network.head.parameters())

    def resume(self, path: Path) -> None:
        """Take up a run that was stopped."""
        kept = torch.load(path, weights_only=True)
        self.begun, self.step = kept["begun"], kept["steps"] - kept["begun"]
        self.seconds = kept["seconds"]
        self.recipe = tuple(kept["recipe"][:-1])
        self.network.load_state_dict(kept["current"])
        self.average.module.load_state_dict(kept["weights"])
        self.average.n_averaged.fill_(1 + self.step)
        self.optimizer.load_state_dict(kept["optimizer"])

    def save(self, path: Path, seconds: float, options: argparse.Namespace) -> None:
        """Replace the working file."""
        own = (
            f"--seed {options.seed} --scenes {options.scenes} --steps {options.steps} "
            f"--until {self.step} --learning-rate {options.learning_rate:g}"
            f"{' --deviation-alone' * options.deviation_alone}"
        )
        kept = {
            "weights": self.average.module.state_dict(),
            "current": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "steps": self.begun + self.step,
            "begun": self.begun,
            "seconds": seconds,
            "seed": options.seed,
            "recipe": [*self.recipe, own],
        }
        with new_file(path) as staging:
            torch.save(kept, staging)


def _of_deviation(gradient: Tensor) -> Tensor:
    """Return the last layer's gradient without that of the mean, whose outputs come first."""
    kept = gradient.clone()
    kept[: SHRINK**2] = 0
    return kept


def main() -> None:
    """Train for the given steps, or a part of them, and write the averaged weights."""
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--steps", type=int, default=STEPS, help="Of the run, to its last one.")
    asked.add_argument("--until", type=int, help="Stop and save at this step of them.")
    asked.add_argument("--part-minutes", type=float, help="Of process time, then stop and save.")
    asked.add_argument("--scenes", type=int, default=600)
    asked.add_argument("--seed", type=int, default=0)
    asked.add_argument("--out", type=Path, required=True)
    asked.add_argument("--learning-rate", type=float, default=LEARNING_RATE)
    asked.add_argument("--from", dest="start", type=Path, help="An earlier run to go on from.")
    asked.add_argument("--deviation-alone", action="store_true")
    options = asked.parse_args()
    if options.deviation_alone and not options.start:
        asked.error("--deviation-alone goes on from the end of a run: name it with --from")
    torch.manual_seed(options.seed)
    work = _Work.new()
    if options.deviation_alone:
        work.learn_deviation_alone()
    if options.out.is_file():
        work.resume(options.out)
    elif options.start:
        # What another run's optimizer was about to do would move the estimate on.
        work.go_on_from(options.start, with_optimizer=not options.deviation_alone)
    _steps(work, options)


def _steps(work: _Work, options: argparse.Namespace) -> None:
    pool = draw_pool(options.scenes, options.seed)
    for number in range(-(-work.step // RENEW_EVERY)):
        _renew(pool, options.seed, number)
    most = math.inf if options.part_minutes is None else 60 * options.part_minutes
    started, before, saved, shown = time.process_time(), work.seconds, 0.0, np.zeros(2)
    spent, begun = 0.0, work.step
    last = options.steps if options.until is None else min(options.until, options.steps)
    while work.step < last and spent < most:
        share = learning_rate_share(work.step / options.steps)
        work.optimizer.param_groups[0]["lr"] = options.learning_rate * share
        if work.step % RENEW_EVERY == 0:
            _renew(pool, options.seed, work.step // RENEW_EVERY)
        rng = np.random.default_rng([options.seed, 1, work.begun + work.step])
        drawn = draw_examples(pool, BATCH, PATCH, rng)
        if options.deviation_alone:
            drawn = told_wrongly(drawn, rng)
        fit, spread = loss_of(work.network, drawn)
        work.optimizer.zero_grad(set_to_none=True)
        (fit + DEVIATION_WEIGHT * spread).backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(work.network.parameters(), 2.0)
        work.optimizer.step()
        work.average.update_parameters(work.network)
        work.step += 1
        spent = time.process_time() - started
        shown = 0.99 * shown + 0.01 * np.array([fit.item(), spread.item()])
        if work.step % 100 == 0:
            recent = shown / (1 - 0.99 ** (work.step - begun))
            print(work.step, f"{spent:.0f} s", recent, flush=True)
        if spent - saved > SAVE_EVERY_S:
            saved = spent
            work.save(options.out, before + spent, options)
    work.save(options.out, before + spent, options)


def _renew(pool: NDArray[np.float16], seed: int, number: int) -> None:
    """Let one scene make way for a new one: the pool is a function of the step."""
    pool[number % len(pool)] = _scene(seed, len(pool) + number)


def _scene(seed: int, number: int) -> NDArray[np.float16]:
    return draw_scene(SCENE_EDGE, np.random.default_rng([seed, number])).astype(np.float16)


if __name__ == "__main__":
    main()
