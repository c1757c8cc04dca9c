"""Noise2Noise's own synthetic tests in small: which loss finds the picture under which noise.

Lehtinen et al. 2018, arXiv:1803.04189, sections 3 and 4: a network learns to turn one corrupted
picture into another one of the same scene, and never sees a clean one. What it learns is the mean
of what it is asked for under l2, the median under l1, the commonest value under l0 (annealed); so
l2 is right where the noise is zero on average, l1 where less than half of the pixels are replaced
(text), and l0 where more of them are. Published, in dB (on colour photographs, by large networks:
what can be compared is the order):

    text, a quarter covered       l2 26.89, l1 35.75, clean targets 35.82
    random impulses, 70 %         l2 and l1 fail (grey haze), l0 28.43, clean targets 28.86

Corruptions, on scenes from 0 to 1 that the general model's generator draws: `gaussian` (0.2),
`poisson` (20 photons at 1), `bernoulli` (half of the pixels are there, the loss asks for those of
the target that are), `text` (a quarter covered by words of one brightness each), `impulse 30` and
`impulse 70` (that share of the pixels replaced by any value). Scenes that are tested are not
trained on; every training has the same network, steps and patches. `clean` is the same by clean
targets (l2), `nothing` the corrupted picture itself, and `median` and `gaussian blur` are filters
whose width the truth chose.

    python benchmarks/training_noise2noise.py [--steps 300] [--left N] [--summary] [NOISE …]
"""

from __future__ import annotations

import argparse
import string
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage
from torch import Tensor
from training_rows import RESULTS, Rows

from quietscope.training.general.scenes import draw_scene
from quietscope.training.methods.n2n import FIRST_EXPONENT, difference
from quietscope.training.model.masking import MaskedPrior
from quietscope.training.model.weight_average import weight_average
from quietscope.training.options import NetworkPlan
from quietscope.training.schedule import learning_rate_share

Picture = NDArray[np.float32]
Corruption = Callable[[Picture, np.random.Generator], tuple[Picture, Picture]]
"""Returns the corrupted picture, and where it says anything."""

EDGE, PATCH, BATCH = 128, 64, 4
TRAINED, TESTED = 120, 16
PLAN = NetworkPlan(width=16, depth=3, outer_convolutions=1)
RATE = 3e-3
LOSSES = ("l2", "l1", "l0")
LEAST_ERROR = 1e-6
"""Of a scene: one that is empty can be met without any, and would count for all others."""
COVERED = 0.25
PAGES = 200
"""Of text, each at any place and upside down as well."""
PHOTONS = 20.0


def gaussian(scene: Picture, rng: np.random.Generator) -> tuple[Picture, Picture]:
    """Add noise of 0.2."""
    noisy = scene + 0.2 * rng.standard_normal(scene.shape)
    return noisy.astype(np.float32), np.ones_like(scene)


def poisson(scene: Picture, rng: np.random.Generator) -> tuple[Picture, Picture]:
    """Count photons."""
    return (rng.poisson(scene * PHOTONS) / PHOTONS).astype(np.float32), np.ones_like(scene)


def bernoulli(scene: Picture, rng: np.random.Generator) -> tuple[Picture, Picture]:
    """Lose half of the pixels."""
    there = (rng.random(scene.shape) < 0.5).astype(np.float32)
    return scene * there, there


def text(scene: Picture, rng: np.random.Generator) -> tuple[Picture, Picture]:
    """Write over the picture until a quarter of it is covered."""
    page = pages()[int(rng.integers(PAGES))]
    page = np.roll(np.rot90(page, 2 * int(rng.integers(2))), rng.integers(0, EDGE, 2), (0, 1))
    return np.where(np.isnan(page), scene, page).astype(np.float32), np.ones_like(scene)


@cache
def pages() -> list[Picture]:
    """Return pages of words of one brightness each, NaN where nothing is written."""
    rng = np.random.default_rng(5)
    return [_page(rng) for _ in range(PAGES)]


def _page(rng: np.random.Generator) -> Picture:
    page = Image.new("F", (EDGE, EDGE), float("nan"))
    while np.isfinite(np.asarray(page)).mean() < COVERED:
        word = "".join(rng.choice(list(string.ascii_letters), int(rng.integers(2, 9))))
        font = ImageFont.load_default(size=int(rng.integers(8, 22)))
        mask = Image.new("L", page.size)
        ImageDraw.Draw(mask).text(tuple(rng.uniform(-10, EDGE, 2)), word, fill=255, font=font)
        page.paste(float(rng.random()), mask=mask.point(lambda value: 255 * (value > 127)))
    return np.asarray(page, np.float32)


def impulses(share: float) -> Corruption:
    """Return what replaces that share of the pixels by any value."""

    def replaced(scene: Picture, rng: np.random.Generator) -> tuple[Picture, Picture]:
        hit = rng.random(scene.shape) < share
        values = rng.random(scene.shape, dtype=np.float32)
        return np.where(hit, values, scene), np.ones_like(scene)

    return replaced


CORRUPTIONS: dict[str, Corruption] = {
    "gaussian": gaussian,
    "poisson": poisson,
    "bernoulli": bernoulli,
    "text": text,
    "impulse 30": impulses(0.3),
    "impulse 70": impulses(0.7),
}


class Correction(torch.nn.Module):
    """A U-Net whose output is added to the picture."""

    def __init__(self) -> None:
        super().__init__()
        self.network = MaskedPrior(0, PLAN, artefact_free=False, outputs=1)

    def forward(self, seen: Tensor) -> Tensor:
        """Return the corrected picture, (N, 1, Y, X)."""
        corrected: Tensor = seen + self.network(seen)
        return corrected


def scenes(count: int, seed: int) -> list[Picture]:
    """Return scenes from 0 to 1."""
    rng = np.random.default_rng(seed)
    return [np.clip(draw_scene(EDGE, rng), 0, 1) for _ in range(count)]


def patches(
    drawn: Sequence[Picture], corruption: Corruption, rng: np.random.Generator, *, clean: bool
) -> Tensor:
    """Return corrupted patch, target, and where the target says anything, (B, 3, P, P)."""
    found = []
    for _ in range(BATCH):
        scene = drawn[int(rng.integers(len(drawn)))]
        y, x = rng.integers(0, EDGE - PATCH + 1, 2)
        turned = np.rot90(scene, int(rng.integers(4))).copy()
        seen, _ = corruption(turned, rng)
        target, there = (turned, np.ones_like(turned)) if clean else corruption(turned, rng)
        planes = np.stack([seen, target, there])
        found.append(planes[:, y : y + PATCH, x : x + PATCH])
    return torch.from_numpy(np.stack(found))


def trained(
    corruption: Corruption, loss: str, drawn: Sequence[Picture], steps: int, seed: int
) -> torch.nn.Module:
    """Return the network that learned from corrupted pictures; `clean` from clean ones."""
    torch.manual_seed(seed)
    network = Correction()
    network.to(memory_format=torch.channels_last)
    optimizer = torch.optim.Adam(network.parameters(), fused=True)
    average = weight_average(network)
    for step in range(steps):
        rng = np.random.default_rng([seed, step])
        planes = patches(drawn, corruption, rng, clean=loss == "clean")
        seen, target, there = planes.split(1, dim=1)
        share = step / steps
        wrong = difference(
            "l2" if loss == "clean" else loss,
            network(seen),
            target,
            exponent=FIRST_EXPONENT * (1 - share),
        )
        optimizer.param_groups[0]["lr"] = RATE * learning_rate_share(share)
        optimizer.zero_grad(set_to_none=True)
        ((wrong * there).sum() / there.sum()).backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        average.update_parameters(network)
    return average.module.eval()


def tested(estimate: Callable[[Picture], Picture], corruption: Corruption) -> float:
    """Return the mean PSNR on scenes that nobody trained on, peak 1."""
    rng = np.random.default_rng(99)
    found = []
    for scene in scenes(TESTED, seed=1):
        seen, _ = corruption(scene, rng)
        wrong = float(np.mean((estimate(seen).astype(float) - scene) ** 2))
        found.append(-10 * np.log10(max(wrong, LEAST_ERROR)))
    return float(np.mean(found))


def filtered(corruption: Corruption) -> dict[str, float]:
    """Return what needs no training, each with the width that the truth would choose."""
    return {
        "nothing": tested(lambda seen: seen, corruption),
        "median": max(
            tested(lambda seen, edge=edge: ndimage.median_filter(seen, edge), corruption)
            for edge in (3, 5, 7, 9)
        ),
        "gaussian blur": max(
            tested(lambda seen, wide=wide: ndimage.gaussian_filter(seen, wide), corruption)
            for wide in (0.7, 1.0, 1.5, 2.0, 3.0)
        ),
    }


def estimate_by(network: torch.nn.Module) -> Callable[[Picture], Picture]:
    """Return the network as a filter."""

    def estimate(seen: Picture) -> Picture:
        with torch.no_grad():
            found: Picture = network(torch.from_numpy(seen)[None, None])[0, 0].numpy()
        return found

    return estimate


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("noises", nargs="*", help=", ".join(CORRUPTIONS))
    arguments.add_argument("--steps", type=int, default=300)
    arguments.add_argument("--losses", nargs="*", default=[*LOSSES, "clean"])
    arguments.add_argument("--seed", type=int, default=0)
    arguments.add_argument("--left", type=int, help="Trainings after which to stop.")
    arguments.add_argument("--summary", action="store_true", help="Print what is stored only.")
    arguments.add_argument("--out", type=Path, default=RESULTS / "training_noise2noise.json")
    chosen = arguments.parse_args()
    if strange := set(chosen.noises) - set(CORRUPTIONS):
        arguments.error(f"{', '.join(strange)}: expected some of {', '.join(CORRUPTIONS)}")
    torch.set_num_threads(1)
    rows = Rows(chosen.out, ("noise", "loss", "seed", "steps"), batch=BATCH, patch=PATCH)
    if not chosen.summary:
        measure(rows, chosen)
    summary(rows.rows)


def measure(rows: Rows, chosen: argparse.Namespace) -> None:
    """Store every row that is not there yet."""
    there = {(row["noise"], row["loss"], row["seed"], row["steps"]) for row in rows.rows}
    drawn = scenes(TRAINED, seed=0)
    left = chosen.left if chosen.left is not None else len(CORRUPTIONS) * len(chosen.losses)
    for noise in chosen.noises or CORRUPTIONS:
        corruption = CORRUPTIONS[noise]
        if (noise, "nothing", None, None) not in there:
            for name, score in filtered(corruption).items():
                rows.add(row_of(noise, name, None, None, score))
        for loss in chosen.losses:
            if (noise, loss, chosen.seed, chosen.steps) in there or left <= 0:
                continue
            left -= 1
            network = trained(corruption, loss, drawn, chosen.steps, chosen.seed)
            score = tested(estimate_by(network), corruption)
            rows.add(row_of(noise, loss, chosen.seed, chosen.steps, score))


def row_of(
    noise: str, loss: str, seed: int | None, steps: int | None, score: float
) -> dict[str, Any]:
    return {"noise": noise, "loss": loss, "seed": seed, "steps": steps, "psnr_db": score}


def summary(rows: Sequence[dict[str, Any]]) -> None:
    """Print a line for each noise."""
    for noise in CORRUPTIONS:
        own = {row["loss"]: row["psnr_db"] for row in rows if row["noise"] == noise}
        print(f"{noise:12}", "  ".join(f"{name} {score:.2f}" for name, score in own.items()))


if __name__ == "__main__":
    main()
