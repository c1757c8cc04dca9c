"""What the full noise mixture would add to the posterior in closed form.

A signal is drawn from a gamma prior, the camera observes it, and the signal is estimated three
ways: by the linear rule of the exported graph, mean + (x − mean) · share; by a Gaussian mixture
fit to the noise at the prior's mean, each component with its own share; and by the exact posterior
mean, which is found by averaging the signal over all draws of like observations. Printed and
stored is how much each gains over the prior's mean alone.

    python benchmarks/training_posterior.py
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from quietscope.storage.atomic_output import write_json

RESULTS = Path(__file__).parent / "results" / "training_posterior.json"
DRAWS = 400_000
MEANS_E = (1.0, 4.0, 20.0)
RATIOS = (0.05, 0.2, 0.5)
"""Of prior to noise variance."""
Values = NDArray[np.float64]
Camera = Callable[[Values, np.random.Generator], Values]


def photon_counter(signal: Values, rng: np.random.Generator) -> Values:
    """Poisson counts and a read noise of 0.3 electrons."""
    return rng.poisson(signal) + 0.3 * rng.standard_normal(signal.size)


def electron_multiplier(signal: Values, rng: np.random.Generator) -> Values:
    """Follow the gamma law of a multiplication register, in photoelectrons (excess noise 2)."""
    electrons = rng.poisson(signal)
    multiplied = np.where(electrons > 0, rng.gamma(np.maximum(electrons, 1)), 0.0)
    return multiplied + 0.3 * rng.standard_normal(signal.size)


def flickering(signal: Values, rng: np.random.Generator) -> Values:
    """Poisson counts; one reading in twenty has five times the read noise of 1.6 electrons."""
    wide = rng.random(signal.size) < 0.05
    read = np.where(wide, 8.0, 1.6) * rng.standard_normal(signal.size)
    return rng.poisson(signal) + read


CAMERAS: dict[str, Camera] = {
    "photon counter": photon_counter,
    "electron multiplier": electron_multiplier,
    "flickering pixels": flickering,
}


def mixture(noise: Values, components: int = 3, rounds: int = 300) -> tuple[Values, ...]:
    """Fit weights, offsets and variances by expectation maximisation."""
    noise = noise[:40_000]
    offsets = np.quantile(noise, np.linspace(0.2, 0.9, components))
    variances = np.full(components, noise.var())
    weights = np.full(components, 1 / components)
    for _ in range(rounds):
        share = responsibilities(noise, weights, offsets, variances)
        total = share.sum(axis=0)
        offsets = (share * noise[:, None]).sum(axis=0) / total
        spread = (share * (noise[:, None] - offsets) ** 2).sum(axis=0) / total
        variances, weights = np.maximum(spread, 0.05), total / total.sum()
    return weights, offsets - weights @ offsets, variances


def responsibilities(x: Values, weights: Values, centres: Values, variances: Values) -> Values:
    logs = (
        np.log(weights) - 0.5 * np.log(variances) - 0.5 * (x[:, None] - centres) ** 2 / variances
    )
    shares = np.exp(logs - logs.max(axis=1, keepdims=True))
    return shares / shares.sum(axis=1, keepdims=True)


def gains(camera: Camera, mean: float, ratio: float, rng: np.random.Generator) -> dict[str, float]:
    noise = camera(np.full(DRAWS, mean), rng) - mean
    prior = ratio * noise.var()
    signal = rng.gamma(mean**2 / prior, prior / mean, DRAWS)
    x = camera(signal, rng)
    weights, offsets, variances = mixture(noise)
    wide = variances + prior
    share = responsibilities(x, weights, mean + offsets, wide)
    estimates = {
        "linear": mean + (x - mean) * ratio / (1 + ratio),
        "mixture at the mean": mean
        + (share * (x[:, None] - mean - offsets) * prior / wide).sum(axis=1),
        "exact": exact(x, signal),
    }
    half = slice(DRAWS // 2, None)
    alone = ((mean - signal[half]) ** 2).mean()
    return {
        name: float(10 * np.log10(alone / ((estimate[half] - signal[half]) ** 2).mean()))
        for name, estimate in estimates.items()
    }


def exact(x: Values, signal: Values) -> Values:
    """Average the signal over the first half of the draws, by quantile of the observation."""
    edges = np.unique(np.quantile(x, np.linspace(0, 1, 401)))
    place = np.digitize(x, edges)
    first, size = slice(DRAWS // 2), edges.size + 1
    count = np.bincount(place[first], minlength=size)
    total = np.bincount(place[first], signal[first], minlength=size)
    return (total / np.maximum(count, 1))[place]


def main() -> None:
    rng = np.random.default_rng(0)
    rows = []
    for name, camera in CAMERAS.items():
        for mean in MEANS_E:
            for ratio in RATIOS:
                row = gains(camera, mean, ratio, rng)
                text = ", ".join(f"{rule} {gain:+.2f} dB" for rule, gain in row.items())
                print(f"{name}, {mean:g} photoelectrons, prior {ratio:g} of the noise: {text}")
                rows.append({"camera": name, "mean_e": mean, "ratio": ratio, "gain_db": row})
    write_json(RESULTS, {"draws": DRAWS, "rows": rows})


if __name__ == "__main__":
    main()
