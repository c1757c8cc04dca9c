"""Train the general model: `python -m quietscope.training.general.train --out FILE.pt`.

Owns the loop and its working file, from which a run that was stopped goes on.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..model.general import LEAST_VARIANCE_E2, GeneralNetwork
from ..schedule import learning_rate_share
from .photons import Examples, draw_examples
from .scenes import draw_scene

SCENE_EDGE = 256
BATCH = 16
PATCH = 96
LEARNING_RATE = 1.2e-3
AVERAGE_DECAY = 0.995
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


def main() -> None:
    """Train for the given time and write the averaged weights."""
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--minutes", type=float, default=60)
    asked.add_argument("--scenes", type=int, default=600)
    asked.add_argument("--seed", type=int, default=0)
    asked.add_argument("--out", type=Path, required=True)
    asked.add_argument("--learning-rate", type=float, default=LEARNING_RATE)
    asked.add_argument("--from", dest="start", type=Path, help="An earlier run to go on from.")
    asked.add_argument("--pool", type=Path, help="Scenes drawn before; written if there are none.")
    options = asked.parse_args()
    torch.manual_seed(options.seed)
    pool = _pool(options)
    network = GeneralNetwork()
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    average = torch.optim.swa_utils.AveragedModel(
        network,
        multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(AVERAGE_DECAY),  # type: ignore[no-untyped-call]
    )
    optimizer = torch.optim.Adam(network.parameters(), lr=options.learning_rate)
    step, spent, before = 0, 0.0, 0.0
    if options.start:
        begun_with = torch.load(options.start, weights_only=True)
        step = begun_with["steps"]
        before = begun_with["seconds"] + begun_with.get("seconds_before", 0.0)
        network.load_state_dict(begun_with["weights"])
        average.module.load_state_dict(begun_with["weights"])
        average.n_averaged.fill_(step)
        optimizer.load_state_dict(begun_with["optimizer"])
    if options.out.is_file():
        kept = torch.load(options.out, weights_only=True)
        step, spent = kept["steps"], kept["seconds"]
        before = kept.get("seconds_before", 0.0)
        network.load_state_dict(kept["current"])
        average.module.load_state_dict(kept["weights"])
        average.n_averaged.fill_(step)
        optimizer.load_state_dict(kept["optimizer"])

    def progress() -> dict[str, float]:
        return {"steps": step, "seconds": spent, "seconds_before": before, "seed": options.seed}

    started, saved, shown = time.monotonic() - spent, spent, np.zeros(2)
    begun = step
    while (spent := time.monotonic() - started) < 60 * options.minutes:
        share = learning_rate_share(spent / (60 * options.minutes))
        optimizer.param_groups[0]["lr"] = options.learning_rate * share
        if step % RENEW_EVERY == 0:
            number = step // RENEW_EVERY
            pool[number % len(pool)] = _scene(options.seed, len(pool) + number)
        drawn = draw_examples(pool, BATCH, PATCH, np.random.default_rng([options.seed, 1, step]))
        fit, spread = loss_of(network, drawn)
        optimizer.zero_grad(set_to_none=True)
        (fit + DEVIATION_WEIGHT * spread).backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(network.parameters(), 2.0)
        optimizer.step()
        average.update_parameters(network)
        step += 1
        shown = 0.99 * shown + 0.01 * np.array([fit.item(), spread.item()])
        if step % 100 == 0:
            print(step, f"{spent:.0f} s", shown / (1 - 0.99 ** (step - begun)), flush=True)
        if spent - saved > SAVE_EVERY_S:
            saved = spent
            _save(options.out, network, average.module, optimizer, progress())
    _save(options.out, network, average.module, optimizer, progress())


def _scene(seed: int, number: int) -> NDArray[np.float16]:
    return draw_scene(SCENE_EDGE, np.random.default_rng([seed, number])).astype(np.float16)


def _pool(options: argparse.Namespace) -> NDArray[np.float16]:
    if options.pool and options.pool.is_file():
        kept: NDArray[np.float16] = np.load(options.pool)
        return kept
    pool = draw_pool(options.scenes, options.seed)
    if options.pool:
        np.save(options.pool, pool)
    return pool


def _save(
    path: Path,
    network: torch.nn.Module,
    average: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    progress: Mapping[str, Any],
) -> None:
    staging = path.with_suffix(".partial")
    torch.save(
        {
            "weights": average.state_dict(),
            "current": network.state_dict(),
            "optimizer": optimizer.state_dict(),
            **progress,
        },
        staging,
    )
    staging.replace(path)


if __name__ == "__main__":
    main()
