"""Sweep what cameras, lamps and people do, and hold the calibration against the simulated truth.

    python benchmarks/calibration_regimes.py [--seeds N] [--only WORD] [--minutes M] [--again]

A figure is right where its 95 % interval holds the truth, not claimed where it is said to be
unknown, and excused where a check failed that says it is invalid. Everything else is wrong: of
right figures 5 % by chance, by a little; `by_much` counts those farther off than twice their
interval. The table and the counts go to benchmarks/results/calibration_regimes.json as they are
measured; what stands there is not measured again without --again.
"""

import argparse
import json
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from scipy.ndimage import convolve1d

from quietscope.calibration.bootstrap import bootstrap_noise_model
from quietscope.calibration.fit_camera import fit_camera
from quietscope.calibration.noise_files import load_noise_model, save_noise_model
from quietscope.storage.atomic_output import write_json
from quietscope.storage.stack import stack_from_array

RESULTS = Path(__file__).parent / "results"
LEVELS = (5.0, 20.0, 80.0, 300.0, 1000.0, 3000.0)
SHAPE = (64, 64)
FRAMES = 40
VARIANCE_TOLERANCE = 0.05
"""Of the noise model's variance at the brightest level; its own interval is not stated."""
INVALIDATES = {
    "clipping_at_zero": {"gain", "offset", "read_noise", "variance"},
    "dark_is_dark": {"offset", "read_noise"},
    "dark_fits_levels": {"offset", "read_noise"},
    "quantisation": {"read_noise"},
    "excess_noise": {"gain", "read_noise"},
    "motion": {"gain", "variance"},
    "held_out_likelihood": {"variance"},
    "mixture_against_photon_transfer": {"gain"},
    "offset_known": {"offset", "read_noise"},
}
"""Which figures a failed check says are invalid."""


@dataclass(frozen=True)
class Camera:
    """A simulated camera and its lamp. Gain in ADU/e⁻, all else in the units that names say."""

    gain: float = 2.0
    offset_adu: float = 100.0
    read_e: float = 1.6
    em_gain: float = 1.0
    smoothing: float = 0.0
    """a of the kernel [a, 1 − 2a, a] along both axes."""
    smooths_light_only: bool = False
    row_adu: float = 0.0
    column_adu: float = 0.0
    flicker: float = 0.0
    drift: float = 0.0
    prnu: float = 0.0
    dsnu_adu: float = 0.0
    hot_share: float = 0.0
    hot_read_e: float = 30.0
    stuck: int = 0
    top: int = 65535

    def frames(self, electrons, rng, *, frames=FRAMES, shape=SHAPE, offset_adu=None):
        """Repeats (N, Y, X) of an even field or of a scene (Y, X) of photoelectrons."""
        fixed = np.random.default_rng(1)  # the pattern of the sensor stays what it is
        response = 1 + self.prnu * _without_mean(fixed.normal(size=shape))
        offsets = self.dsnu_adu * _without_mean(fixed.normal(size=shape))
        hot = fixed.random(shape) < self.hot_share
        light = 1 + self.flicker * rng.normal(size=frames)
        light = light * np.linspace(1 - self.drift / 2, 1 + self.drift / 2, frames)
        count = rng.poisson(electrons * response * light[:, None, None]).astype(float)
        if self.em_gain > 1:
            # A register of many stages: one electron comes out as a geometric number.
            some = count > 0
            count[some] += rng.negative_binomial(count[some], 1 / self.em_gain)
        read = rng.normal(size=count.shape) * np.where(hot, self.hot_read_e, self.read_e)
        if self.smoothing:
            kernel = [self.smoothing, 1 - 2 * self.smoothing, self.smoothing]
            for axis in (1, 2):
                count = convolve1d(count, kernel, axis=axis, mode="wrap")
                if not self.smooths_light_only:
                    read = convolve1d(read, kernel, axis=axis, mode="wrap")
        adu = self.gain * (count + read) + (self.offset_adu if offset_adu is None else offset_adu)
        adu += offsets
        adu += self.row_adu * rng.normal(size=(frames, shape[0], 1))
        adu += self.column_adu * rng.normal(size=(frames, 1, shape[1]))
        pixels = np.clip(np.rint(adu), 0, self.top).astype(np.uint16)
        pixels.reshape(frames, -1)[:, 100 : 100 + 7 * self.stuck : 7] = self.top
        return pixels

    @property
    def lines_adu(self):
        """What rows and columns add to the noise of each of their pixels."""
        return float(np.hypot(self.row_adu, self.column_adu))

    def variance_adu2(self, electrons):
        """Of one pixel of an even field, without what all pixels of a frame share."""
        excess = 2 - 1 / self.em_gain
        light = self.gain**2 * self.em_gain**2 * excess * electrons
        read = (self.gain * self.read_e) ** 2
        a = self.smoothing
        narrower = ((1 - 2 * a) ** 2 + 2 * a**2) ** 2
        own = light * narrower + read * (1 if self.smooths_light_only else narrower)
        return own + self.lines_adu**2 + 1 / 12


def _without_mean(values):
    return values - values.mean()


@dataclass(frozen=True)
class Regime:
    """One thing that happens."""

    name: str
    camera: Camera = field(default_factory=Camera)
    levels: tuple = LEVELS
    frames: int = FRAMES
    dark: bool = True
    dark_offset_adu: float | None = None
    dark_electrons: float = 0.0
    known_offset: bool = False
    exposures: bool = False
    must_fail: tuple[str, ...] = ()
    """Checks that have to fail; where one only notes what was corrected, figures still count."""


def scene():
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    return 30 + 1500 * np.exp(-((y - 30) ** 2 + (x - 25) ** 2) / 300)


def regimes() -> list[Regime]:
    plain = Camera()
    flicker = [
        Regime(f"lamp flicker {share:.1%}", replace(plain, flicker=share))
        for share in (0.002, 0.005)
    ]
    smoothed = [
        Regime(
            f"smoothed [a, 1-2a, a], a = {a}",
            replace(plain, smoothing=a),
            must_fail=("spatial_correlation",),
        )
        for a in (0.02, 0.05, 0.1)
    ]
    em = [
        Regime(f"EM gain {gain}", Camera(gain=0.5, em_gain=gain, read_e=20.0), (2, 5, 10, 30, 100))
        for gain in (2, 4, 20, 100)
    ]
    return [
        Regime("clean"),
        Regime("clean, gain 0.5", Camera(gain=0.5, read_e=4.0)),
        Regime("clean, exposures known", exposures=True),
        Regime("a scene", levels=(scene(),), known_offset=True, dark=False),
        *flicker,
        Regime("lamp flicker 1 %", replace(plain, flicker=0.01), must_fail=("lamp_flicker",)),
        Regime(
            "flicker 1 % on a scene",
            replace(plain, flicker=0.01),
            levels=(scene(), 2 * scene()),
            must_fail=("lamp_flicker",),
        ),
        Regime("drift 5 % per level", replace(plain, drift=0.05), must_fail=("lamp_drift",)),
        Regime(
            "zeros clipped, black level 0",
            replace(plain, offset_adu=0),
            must_fail=("clipping_at_zero",),
        ),
        Regime(
            "black level 0, no dark frames, 1 and 2 e⁻",
            replace(plain, offset_adu=0),
            levels=(1.0, 2.0),
            dark=False,
            must_fail=("clipping_at_zero",),
        ),
        Regime("photon counter", Camera(gain=1.0, offset_adu=0, read_e=0.0), (0.3, 1, 3, 10, 30)),
        Regime("three stuck pixels", replace(plain, stuck=3), must_fail=("stuck_pixels",)),
        *smoothed,
        Regime(
            "charge shared, a = 0.05",
            replace(plain, smoothing=0.05, smooths_light_only=True),
            must_fail=("spatial_correlation",),
        ),
        Regime(
            "row noise 0.7 ADU", replace(plain, row_adu=0.7), must_fail=("spatial_correlation",)
        ),
        Regime(
            "column noise 0.7 ADU",
            replace(plain, column_adu=0.7),
            must_fail=("spatial_correlation",),
        ),
        *[
            Regime(
                f"dark frames {shift} ADU off",
                replace(plain, offset_adu=100 + shift),
                dark_offset_adu=100.0,
                exposures=exposures,
                must_fail=("dark_fits_levels",),
            )
            for shift, exposures in ((5, False), (5, True), (0.9, True))
        ],
        Regime(
            "dark frames lit",
            dark_electrons=500.0,
            levels=tuple(500 + e for e in LEVELS),
            must_fail=("dark_is_dark",),
        ),
        Regime(
            "a level dimmer than the dark frames", dark_electrons=40.0, must_fail=("dark_is_dark",)
        ),
        *em,
        Regime(
            "coarse: K 0.1, σ 0.16 ADU",
            Camera(gain=0.1),
            (20, 200, 1000, 5000, 20000),
            must_fail=("quantisation",),
        ),
        Regime(
            "coarse: K 0.02, σ 0.03 ADU",
            Camera(gain=0.02),
            (100, 1000, 5000, 20000, 80000),
            must_fail=("quantisation",),
        ),
        Regime(
            "2 % hot pixels, no dark frames",
            Camera(read_e=0.99, hot_share=0.02, hot_read_e=15.0),
            dark=False,
            known_offset=True,
            must_fail=("hot_pixels",),
        ),
        Regime("2 % hot pixels", Camera(hot_share=0.02, dsnu_adu=2.0), must_fail=("hot_pixels",)),
        *[
            Regime(f"{frames} frames a level", frames=frames, must_fail=("repeats",))
            for frames in (2, 3, 6)
        ],
        Regime("saturating at 4095", replace(plain, top=4095), must_fail=("saturation",)),
        Regime("uneven sensor: PRNU 2 %, DSNU 2 ADU", replace(plain, prnu=0.02, dsnu_adu=2.0)),
    ]


def recorded(regime: Regime, seed: int):
    """Return levels, dark frames and options as `fit_camera` takes them."""
    rng = np.random.default_rng([seed, *regime.name.encode()])
    camera = regime.camera
    levels = [
        stack_from_array(camera.frames(e, rng, frames=regime.frames), path=f"level {number}")
        for number, e in enumerate(regime.levels)
    ]
    options = {}
    if regime.dark:
        frames = camera.frames(
            regime.dark_electrons, rng, frames=regime.frames, offset_adu=regime.dark_offset_adu
        )
        options["dark"] = stack_from_array(frames, path="dark")
    if regime.known_offset:
        options["offset_adu"] = camera.offset_adu
    if regime.exposures:
        options["exposures_ms"] = [e / 10 for e in regime.levels]
    return levels, options


def judged(regime: Regime, found) -> dict:
    """Return what is true, what was found, and the verdict on each figure."""
    camera, law = regime.camera, found.photon_transfer
    failed = {check.name for check in found.checks if not check.passed}
    excused = set().union(*(INVALIDATES.get(name, set()) for name in failed))
    brightest = max(float(np.mean(e)) for e in regime.levels)
    signal = camera.offset_adu + camera.gain * camera.em_gain * brightest
    truth = {
        "gain": camera.gain * camera.em_gain,
        "offset": camera.offset_adu,
        "read_noise": np.hypot(camera.read_e, camera.lines_adu / camera.gain) / camera.em_gain,
        "variance": camera.variance_adu2(brightest),
    }
    figures = {
        "gain": law.photoelectron_gain,
        "offset": law.offset,
        "read_noise": law.read_noise,
    }
    variance = float(found.noise_model.variance(signal))
    row = {"regime": regime.name, "failed_checks": sorted(failed)}
    for name, true in truth.items():
        if name == "variance":
            low, high = (variance / (1 + s * VARIANCE_TOLERANCE) for s in (1, -1))
            value, inside = variance, low <= true <= high
        else:
            interval = figures[name]
            value, low, high = (
                (None, None, None)
                if interval is None
                else (interval.value, interval.low, interval.high)
            )
            inside = interval is not None and low <= true <= high
        verdict = "right" if inside else "not claimed" if value is None else "WRONG"
        if verdict == "WRONG" and name in excused:
            verdict = "excused"
        row[name] = {"true": true, "found": value, "low": low, "high": high, "verdict": verdict}
    missing = [name for name in regime.must_fail if name not in failed]
    row["not_noticed"] = missing
    return row


# ------------------------------------------------------------------ ordinary recordings


def ordinary(seed: int) -> dict[str, np.ndarray]:
    """Return recordings in which noise hardly grows with light, or there is no light."""
    rng = np.random.default_rng(seed)
    plain, shape = Camera(), (64, 64)
    return {
        "dark": plain.frames(0.0, rng, frames=12, shape=shape),
        "dark with hot pixels": Camera(hot_share=0.01).frames(0.0, rng, frames=12, shape=shape),
        "nearly constant": plain.frames(50.0, rng, frames=12, shape=shape),
        "noise alone": rng.integers(0, 65536, (12, *shape), dtype=np.uint16),
        "one frame": plain.frames(100.0, rng, frames=1, shape=shape),
        "brightness without noise of its own": (
            100 + np.linspace(0, 900, 64)[:, None] + rng.normal(0, 3, (12, *shape))
        ).astype(np.uint16),
    }


def bootstrapped(name: str, pixels: np.ndarray) -> dict:
    model = bootstrap_noise_model([stack_from_array(pixels, path=name)])
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "camera.npz"
        save_noise_model(model, path)
        law = load_noise_model(path).photon_transfer
    return {
        "recording": name,
        "gain_known": law.gain_known,
        "gain": law.gain_adu_per_e if law.gain_known else None,
        "low": law.gain.low,
        "high": law.gain.high if np.isfinite(law.gain.high) else None,
    }


def show(row: dict) -> None:
    def cell(name):
        one = row[name]
        if one["found"] is None:
            return f"{one['true']:9.4g} {'not claimed':>28}"
        interval = f"({one['low']:.4g}, {one['high']:.4g})"
        mark = {"right": " ", "excused": "~", "WRONG": "!"}[one["verdict"]]
        return f"{one['true']:9.4g} {one['found']:9.4g} {interval:>17}{mark}"

    cells = " |".join(cell(name) for name in ("gain", "offset", "read_noise"))
    variance = row["variance"]["found"] / row["variance"]["true"] - 1
    mark = {"right": " ", "excused": "~", "WRONG": "!"}[row["variance"]["verdict"]]
    noticed = f"  NOT NOTICED: {row['not_noticed']}" if row["not_noticed"] else ""
    print(
        f"{row['regime'][:40]:40} {cells} | {variance:+6.1%}{mark} "
        f"{','.join(row['failed_checks'])}{noticed}",
        flush=True,
    )


def wrong_by_much(figure: dict) -> bool:
    """Return whether a wrong figure is farther off than its interval is by chance."""
    if figure["verdict"] != "WRONG" or figure["low"] is None:
        return False
    half = (figure["high"] - figure["low"]) / 2
    return abs(figure["true"] - figure["found"]) > 2 * half


def summed_up(rows: list[dict], ordinary_rows: list[dict]) -> dict:
    """Return what is stored."""
    names = ("gain", "offset", "read_noise", "variance")
    count = Counter(f"{name} {row[name]['verdict']}" for row in rows for name in names)
    much = [
        f"{row['regime']}, seed {row['seed']}: {name}"
        for row in rows
        for name in names[:3]
        if wrong_by_much(row[name])
    ]
    return {
        "verdicts": dict(sorted(count.items())),
        "by_much": much,
        "runs_with_a_check_that_did_not_notice": sum(bool(row["not_noticed"]) for row in rows),
        "gains_claimed_from_ordinary_recordings_without_one": sum(
            row["gain_known"] for row in ordinary_rows
        ),
        "rows": rows,
        "ordinary_recordings": ordinary_rows,
        "hardware": "2 CPU cores",
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--only", default="")
    parser.add_argument("--minutes", type=float, default=60.0, help="No run begins later.")
    parser.add_argument("--again", action="store_true")
    parser.add_argument("--out", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    begun, path = time.perf_counter(), arguments.out / "calibration_regimes.json"
    stored = {} if arguments.again or not path.is_file() else json.loads(path.read_text("utf-8"))
    rows, ordinary_rows = stored.get("rows", []), stored.get("ordinary_recordings", [])
    known = {(row["regime"], row["seed"]) for row in rows}

    def late() -> bool:
        return time.perf_counter() - begun > 60 * arguments.minutes

    for seed in range(arguments.seeds):
        for regime in regimes():
            if arguments.only not in regime.name or (regime.name, seed) in known or late():
                continue
            levels, options = recorded(regime, seed)
            rows.append(judged(regime, fit_camera(levels, **options)) | {"seed": seed})
            show(rows[-1])
        if not late() and not any(row.get("seed") == seed for row in ordinary_rows):
            for name, pixels in ordinary(seed).items():
                ordinary_rows.append(bootstrapped(name, pixels) | {"seed": seed})
                print(ordinary_rows[-1], flush=True)
        write_json(path, summed_up(rows, ordinary_rows))
    result = summed_up(rows, ordinary_rows)
    print(result["verdicts"], result["by_much"], len(rows))


if __name__ == "__main__":
    main()
