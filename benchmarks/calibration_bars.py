"""Measure what calibration promises, on the demo camera, an EM-CCD series and photon counting.

    python benchmarks/calibration_bars.py demo|emccd|nandb|speed [--repeats N]

Real data is found through QUIETSCOPE_DATA (default ../shared/data beside the repository). Each
part prints its figures and writes them to benchmarks/results/calibration_<part>.json.
"""

import argparse
import os
import time
from pathlib import Path

import numpy as np

from quietscope.calibration.fit_camera import fit_camera
from quietscope.calibration.fit_gaussian_mixture import fit_gaussian_mixture
from quietscope.calibration.level_statistics import level_statistics, signal_observation_pairs
from quietscope.calibration.photon_transfer import PhotonTransfer
from quietscope.calibration.straight_line import Interval
from quietscope.storage.atomic_output import write_json
from quietscope.storage.open_stack import open_stack
from quietscope.storage.stack import Stack

RESULTS = Path(__file__).parent / "results"
DATA = Path(os.environ.get("QUIETSCOPE_DATA") or Path(__file__).parents[2] / "shared" / "data")
SETTINGS = ((1.0, 2.5), (2.0, 2.5), (0.5, 5.0), (4.0, 12.0))
"""Photon Conversion Factor (e⁻/ADU) and ReadNoise (electrons)."""


def demo(repeats: int) -> dict:
    from quietscope.acquisition.light_ladder import Light, record_ladder
    from quietscope.acquisition.microscope.core import MicroscopeSettings, open_microscope

    rows = []
    settings = MicroscopeSettings(exposure_ms=10.0, roi=(0, 0, 192, 192))
    for factor, read_e in SETTINGS:
        with open_microscope(settings) as microscope:
            microscope.set_property("Photon Conversion Factor", factor)
            microscope.set_property("ReadNoise (electrons)", read_e)
            for _ in range(repeats):
                with record_ladder(
                    microscope,
                    levels=8,
                    frames_per_level=20,
                    light=Light("exposure", low=0.3, high=40.0),
                ) as ladder:
                    found = fit_camera(
                        ladder.levels, dark=ladder.dark, exposures_ms=ladder.exposures_ms
                    )
                    left_out = _worst_left_out(ladder.levels, ladder.dark)
                row = _demo_row(found, factor, read_e)
                rows.append({**row, "left_out_level_variance_error": left_out})
                print(rows[-1], flush=True)
    with open_microscope(settings) as microscope, record_ladder(microscope) as ladder:
        default_left_out = _worst_left_out(ladder.levels, ladder.dark)
    inside = {
        name: float(np.mean([row[f"{name}_inside"] for row in rows]))
        for name in ("gain", "offset", "read_noise")
    }
    return {
        "runs": rows,
        "share_inside_95_percent_interval": inside,
        "worst_gain_error": max(row["gain_error"] for row in rows),
        "worst_offset_error_adu": max(row["offset_error_adu"] for row in rows),
        "worst_read_noise_error": max(row["read_noise_error"] for row in rows),
        "worst_level_variance_error": max(row["level_variance_error"] for row in rows),
        "worst_left_out_level_variance_error": max(
            row["left_out_level_variance_error"] for row in rows
        ),
        "left_out_level_variance_error_of_default_ladder": default_left_out,
        "mixture_minus_best_rival_nats": [row["mixture_minus_best_rival_nats"] for row in rows],
    }


def _demo_row(found, factor: float, read_e: float) -> dict:
    law, gain = found.photon_transfer, 1 / factor
    return {
        "photon_conversion_factor": factor,
        "read_noise_set_e": read_e,
        "gain_error": abs(law.gain_adu_per_e / gain - 1),
        "offset_error_adu": abs(law.offset_adu - 99.25),
        "read_noise_error": abs(law.read_noise_e / read_e - 1),
        "gain_inside": law.gain.low <= gain <= law.gain.high,
        "offset_inside": law.offset.low <= 99.25 <= law.offset.high,
        "read_noise_inside": law.read_noise.low <= read_e <= law.read_noise.high,
        "level_variance_error": _worst_level(found),
        "mixture_minus_best_rival_nats": _margin(found),
    }


def _worst_level(found) -> float:
    return max(abs(x.model_variance_adu2 / x.variance_adu2 - 1) for x in found.levels)


def _worst_left_out(levels: list[Stack], dark: Stack) -> float:
    """Fit every second level, compare the model with the levels between them."""
    model = fit_camera(levels[::2], dark=dark).noise_model
    unseen = [level_statistics(level) for level in levels[1::2]]
    return max(
        abs(float(np.mean(model.variance(level.mean))) / float(np.mean(level.variance)) - 1)
        for level in unseen
    )


def _margin(found) -> float:
    nll = found.held_out_nll
    return nll["gaussian_mixture"] - min(nll["gaussian"], nll["histogram"])


def emccd(_: int) -> dict:
    results = {}
    for name in ("ADU_1x-gain", "gain-IS_100x-gain"):
        folder = DATA / "emccd_calib"
        offset = open_stack(folder / f"{name}_no-signal_S0.tif").frame(0).astype(float)
        levels = [open_stack(path) for path in sorted(folder.glob(f"{name}_level-*.tif"))]
        found = fit_camera(levels, offset_adu=offset)
        law = found.photon_transfer
        results[name] = {
            "gain_adu_per_e": law.gain_adu_per_e,
            "gain_interval": [law.gain.low, law.gain.high],
            "read_noise_adu": law.read_noise_adu,
            "excess_noise": law.excess_noise,
            "excess_noise_ratio": law.excess_noise_ratio.value,
            "held_out_nll": found.held_out_nll,
            "left_out_level_variance_error": [
                _left_out(levels, k, offset) for k in range(len(levels))
            ],
        }
        print(name, results[name], flush=True)
    return results


def _left_out(levels: list[Stack], number: int, offset: np.ndarray) -> float:
    others = [stack for place, stack in enumerate(levels) if place != number]
    level = level_statistics(levels[number])
    model = fit_camera(others, offset_adu=offset).noise_model
    return float(model.variance(level.mean)) / level.variance - 1


def nandb(_: int) -> dict:
    results = {}
    for path in sorted((DATA / "nandb_fkbp_confocal").glob("*.tif")):
        found = fit_camera([open_stack(path)], offset_adu=0.0)
        codes, signals = np.arange(256)[:, None], np.linspace(0, 60, 61)[None]
        total = np.exp(found.noise_model.log_likelihood(codes, signals)).sum(axis=0)
        results[path.stem] = {
            "gain_adu_per_e": found.photon_transfer.gain_adu_per_e,
            "held_out_nll": found.held_out_nll,
            "mixture_minus_best_rival_nats": _margin(found),
            "worst_sum_of_likelihood_minus_1": float(np.abs(total - 1).max()),
        }
        print(path.stem, results[path.stem], flush=True)
    return results


def speed(repeats: int) -> dict:
    rng = np.random.default_rng(0)
    electrons = rng.uniform(0, 10_000, 200_000)
    x = np.rint(
        0.5 * rng.poisson(electrons, (50, electrons.size))
        + rng.normal(100, 2, (50, electrons.size))
    )
    pairs = signal_observation_pairs(x.astype(np.float32))
    gain = Interval(0.5, 0.5, 0.5)
    law = PhotonTransfer(gain, -46.0, Interval(100, 100, 100), None, 4.0, 65535.0)
    seconds = []
    for _ in range(repeats):
        begun = time.perf_counter()
        fit_gaussian_mixture(pairs, law)
        seconds.append(time.perf_counter() - begun)
    return {"pairs": len(pairs), "seconds_median": float(np.median(seconds)), "seconds": seconds}


def main() -> None:
    parts = {"demo": demo, "emccd": emccd, "nandb": nandb, "speed": speed}
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=parts)
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    begun = time.perf_counter()
    result = parts[arguments.part](arguments.repeats)
    result |= {"hardware": "2 CPU cores", "benchmark_seconds": time.perf_counter() - begun}
    write_json(RESULTS / f"calibration_{arguments.part}.json", result)
    print({name: value for name, value in result.items() if name != "runs"})


if __name__ == "__main__":
    main()
