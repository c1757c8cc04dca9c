"""From recorded light levels to a noise model that was checked.

Owns the order of the work: statistics of every level, saturation kept out, photon transfer, maps,
the mixture and its rivals, held-out likelihoods, checks. Recording is the business of
`acquisition`; the single steps live in the modules of this package.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from ..storage.atomic_output import jsonable
from ..storage.stack import Stack
from . import checks as checking
from .baseline_noise_models import PoissonGaussianNoiseModel, fit_histogram
from .checks import Check
from .dark_frames import noise_variance
from .errors import CalibrationError
from .fingerprint import CameraFingerprint
from .fit_gaussian_mixture import fit_gaussian_mixture
from .fit_photon_transfer import doubt_of_levels, fit_photon_transfer, transfer_points
from .gaussian_mixture import GaussianMixtureNoiseModel
from .level_statistics import (
    LevelStatistics,
    Pairs,
    joined,
    level_statistics,
    signal_observation_pairs,
)
from .likelihood import Codes, mixture_log_likelihood
from .noise_model import FloatArray, NoiseModel
from .pixel_maps import PixelMaps, pixel_maps
from .result import Calibration, LevelResult
from .sensor_figures import sensor_figures
from .sound_levels import SoundLevels, sound_levels

MAX_PAIRS = 10_000_000
HELD_OUT_SHARE = 0.2
SCORED_AT_ONCE = 1 << 18
Progress = Callable[[str, float], None]


def fit_camera(
    levels: Sequence[Stack],
    *,
    dark: Stack | None = None,
    offset_adu: float | FloatArray | None = None,
    exposures_ms: Sequence[float | None] | None = None,
    fingerprint: CameraFingerprint | None = None,
    dark_series: Sequence[Stack] = (),
    data: Sequence[Stack] = (),
    seed: int = 0,
    on_progress: Progress | None = None,
) -> Calibration:
    """Calibrate a camera from stacks of repeats.

    Parameters
    ----------
    levels
        One stack of repeats per light level, or one stack of a static scene with bright and
        dark parts. Saturated levels are found and kept out.
    dark
        Repeats without light.
    offset_adu
        Known offset instead of dark frames: a number or a map (Y, X).
    exposures_ms
        Exposure of each level; taken from the stacks' own attributes where not given.
    fingerprint
        Camera and setting.
    dark_series
        Repeats without light at several exposures, for the dark current.
    data
        Recordings to be denoised: whether their range of intensities is covered is checked.
    seed
        Of the draw of pixels for likelihood fits.
    on_progress
        Called with the step and its share done.

    Raises
    ------
    CalibrationError
        If levels are missing, differ in shape or type, are all saturated, or do not differ.
    """
    begun = time.perf_counter()
    report = on_progress or (lambda step, share: None)
    _require_usable(levels, dark, offset_adu, dark_series)
    integer = levels[0].dtype.kind == "u"
    statistics, dark_statistics = _read(levels, dark, exposures_ms, seed, report)
    if offset_adu is not None:
        _require_dark(np.asarray(offset_adu, dtype=np.float64), statistics)
    sound = sound_levels(
        statistics,
        dark_statistics,
        full_scale_adu=_full_scale(levels[0], fingerprint),
        quantised=integer,
    )
    maps = pixel_maps(sound.dark, sound.levels, stuck=sound.stuck) if sound.dark else None
    usable = maps.usable if maps else sound.usable
    series = [
        level_statistics(stack, max_sample=0, exposure_ms=_exposure_ms(stack))
        for stack in dark_series
    ]
    law = fit_photon_transfer(
        sound.levels,
        dark=sound.dark,
        offset_adu=offset_adu,
        saturation_adu=sound.saturation_adu,
        saturation_reached=sound.saturation_reached,
        usable=usable,
        quantised=integer,
    )
    report("fitting the noise model", 0.0)
    codes = Codes(0.0, law.saturation_adu, 1.0) if integer else Codes(-np.inf, np.inf, 0.0)
    known, held = (_pairs(sound, maps, held_out=held_out) for held_out in (False, True))
    mixture = fit_gaussian_mixture(
        known,
        law,
        codes=codes,
        fingerprint=fingerprint,
        on_progress=lambda share: report("fitting the noise model", share),
    )
    gaussian = PoissonGaussianNoiseModel(law, mixture.signal_range_adu, codes)
    histogram = fit_histogram(known.signal, known.observation)
    nll = {
        "gaussian_mixture": -log_likelihood_of_repeats(mixture, held, codes),
        "histogram": -histogram.log_likelihood(held.observation, held.signal),
        "gaussian": -log_likelihood_of_repeats(gaussian, held, codes),
    }
    # The model that is kept is the very one that was scored on pixels that it never saw.
    noise_model = replace(mixture, maps=maps)
    report("checking", 1.0)
    made = Calibration(
        noise_model=noise_model,
        poisson_gaussian=gaussian,
        histogram=histogram,
        levels=_level_results(sound.levels, noise_model, maps),
        held_out_nll={name: float(values.mean()) for name, values in nll.items()},
        sensor=sensor_figures(sound.levels, sound.dark, series, law, usable),
        checks=(
            *_checks(sound, noise_model, maps, nll),
            *(checking.coverage_of_data(noise_model, stack) for stack in data),
        ),
        seconds=time.perf_counter() - begun,
    )
    return replace(made, noise_model=replace(noise_model, record=jsonable(made.result())))


def _require_usable(
    levels: Sequence[Stack],
    dark: Stack | None,
    offset: float | FloatArray | None,
    dark_series: Sequence[Stack],
) -> None:
    if not levels:
        raise CalibrationError("light levels: none given, expected at least one stack of repeats")
    first = levels[0]
    for stack in [*levels, *([dark] if dark else []), *dark_series]:
        if stack.frame_shape != first.frame_shape or stack.dtype != first.dtype:
            raise CalibrationError(
                f"{stack.path}: frames of {stack.frame_shape} {stack.dtype}, expected "
                f"{first.frame_shape} {first.dtype} as in {first.path}; record all levels "
                "with one ROI, binning and pixel type"
            )
        if stack.sizes.get("channel", 1) > 1:
            raise CalibrationError(
                f"{stack.path}: has {stack.sizes['channel']} channels, expected repeats of one; "
                "give one channel per stack"
            )
    if isinstance(offset, np.ndarray) and offset.shape != first.frame_shape:
        raise CalibrationError(
            f"offset map: has shape {offset.shape}, expected {first.frame_shape} as the stacks; "
            "cut it to the same ROI"
        )
    if dark is not None and offset is not None:
        raise CalibrationError(
            "dark frames and an offset were both given; give one of them (dark frames hold more)"
        )


def _require_dark(offset: FloatArray, levels: Sequence[LevelStatistics]) -> None:
    """Refuse an offset that is no number, or brighter than light."""
    if not np.isfinite(offset).all():
        raise CalibrationError(
            "offset: holds NaN or infinity, expected ADU; give what the camera writes in the dark"
        )
    dimmest = min(levels, key=lambda level: level.mean)
    if offset.mean() > dimmest.mean + np.sqrt(dimmest.variance):
        raise CalibrationError(
            f"offset: {offset.mean():.4g} ADU are more than the dimmest light level has "
            f"({dimmest.mean:.4g} ADU); give what the camera writes in the dark"
        )


def _read(
    levels: Sequence[Stack],
    dark: Stack | None,
    exposures_ms: Sequence[float | None] | None,
    seed: int,
    report: Progress,
) -> tuple[list[LevelStatistics], LevelStatistics | None]:
    stacks = [*levels, *([dark] if dark else [])]
    total = sum(len(stack) - stack.absent for stack in stacks)
    done = 0

    def one_more() -> None:
        nonlocal done
        done += 1
        report("reading frames", done / total)

    exposures = list(exposures_ms or [recorded_exposure_ms(stack) for stack in levels])
    share = MAX_PAIRS // len(stacks)
    statistics = [
        level_statistics(
            stack, max_sample=share, seed=seed, exposure_ms=exposure, on_frame=one_more
        )
        for stack, exposure in zip(levels, exposures, strict=True)
    ]
    dark_statistics = (
        level_statistics(dark, max_sample=share, seed=seed, on_frame=one_more) if dark else None
    )
    return statistics, dark_statistics


def _exposure_ms(stack: Stack) -> float | None:
    own = recorded_exposure_ms(stack)
    return stack.exposure_ms if own is None else own


def recorded_exposure_ms(stack: Stack) -> float | None:
    """Return the exposure that `quietscope calibrate` wrote into a stack, if any."""
    own = (stack.attributes or {}).get("quietscope")
    value = own.get("exposure_ms") if isinstance(own, dict) else None
    return float(value) if isinstance(value, int | float) else None


def _full_scale(stack: Stack, fingerprint: CameraFingerprint | None) -> float:
    if fingerprint is not None and fingerprint.bit_depth is not None:
        return float(2**fingerprint.bit_depth - 1)
    return float(np.iinfo(stack.dtype).max) if stack.dtype.kind == "u" else 65535.0


def _pairs(sound: SoundLevels, maps: PixelMaps | None, *, held_out: bool) -> Pairs:
    """Pairs of one share of the pixels: held out are whole pixels, never single frames."""
    parts = []
    stride = round(1 / HELD_OUT_SHARE)
    usable = maps.usable if maps else sound.usable
    for level in [*([sound.dark] if sound.dark else []), *sound.levels]:
        chosen = (np.arange(level.sample.shape[1]) % stride == stride - 1) == held_out
        if usable is not None:
            chosen &= usable.ravel()[level.sample_index] > 0
        parts.append(
            signal_observation_pairs(
                level.sample[:, chosen],
                light_changes_adu=level.light_changes_adu[:, chosen],
                frame_pixels=None if level.light_slope is None else level.pixels,
            )
        )
    return joined(parts)


def log_likelihood_of_repeats(model: NoiseModel, pairs: Pairs, codes: Codes) -> FloatArray:
    """Score a model on repeats whose signal is their own mean.

    Around a mean that holds the observation itself, residuals are smaller by 1 − 1/W than the
    noise. The model's variance is taken down by that much here, so that it is compared with a
    histogram of just such pairs on equal terms.
    """
    parts = []
    for start in range(0, len(pairs), SCORED_AT_ONCE):
        part = slice(start, start + SCORED_AT_ONCE)
        table, restore = model.mixture(pairs.signal[part]), pairs.restore[part]
        parts.append(
            mixture_log_likelihood(
                pairs.observation[part],
                table.signal + table.offsets / np.sqrt(restore),
                table.variances / restore,
                table.weights,
                codes,
            )
        )
    return np.concatenate(parts)


def _level_results(
    levels: Sequence[LevelStatistics],
    model: GaussianMixtureNoiseModel,
    maps: PixelMaps | None,
) -> tuple[LevelResult, ...]:
    usable = None if maps is None else [maps.usable] * len(levels)
    points = transfer_points(levels, usable=usable)
    results = []
    for number, level in enumerate(levels):
        own = np.flatnonzero(points.level == number)
        own = own[np.argsort(points.mean_adu[own], kind="stable")]
        # The two halves of the frames give each stretch of brightness twice, next to each other.
        for pair in own.reshape(-1, 2) if own.size % 2 == 0 else own[:, None]:
            results.append(
                LevelResult(
                    mean_adu=float(points.mean_adu[pair].mean()),
                    variance_adu2=float(points.variance_adu2[pair].mean()),
                    model_variance_adu2=float(model.variance(points.mean_adu[pair]).mean()),
                    name=level.name,
                )
            )
    return tuple(results)


def _checks(
    sound: SoundLevels,
    model: GaussianMixtureNoiseModel,
    maps: PixelMaps | None,
    nll: dict[str, FloatArray],
) -> tuple[Check, ...]:
    law, levels = model.photon_transfer, sound.levels
    usable = maps.usable if maps else sound.usable
    bad = sound.bad_pixels if maps is None else maps.hot | maps.dead
    made = [
        checking.saturation(sound.all_levels, law.saturation_adu),
        checking.clipping_at_zero(sound.clipped_share),
        checking.stuck_pixels(int(sound.stuck.sum()), sound.stuck.size),
        checking.motion(levels, usable),
        checking.lamp_drift(levels, law.offset_adu),
        checking.lamp_flicker(levels, law.offset_adu),
        checking.repeats(levels),
        checking.coverage(model),
        checking.spatial_correlation(levels, sound.dark),
        checking.hot_pixels(bad, maps=maps),
        checking.agreement_with_law(model),
        checking.held_out_likelihood(nll["gaussian_mixture"], nll["histogram"], nll["gaussian"]),
        checking.offset_known(law, why_not=sound.why_no_dark),
        checking.linearity(levels, law),
        checking.multiplication(law),
    ]
    if sound.recorded_dark is not None:
        made.append(checking.dark_is_dark(sound.light_in_dark_adu, sound.dimmer_than_dark_adu))
    if sound.dark is not None:
        doubt = doubt_of_levels(levels, sound.dark, usable)
        noise = noise_variance(sound.dark, usable) if model.codes.step else None
        made.append(checking.dark_fits_levels(doubt))
        if noise is not None and sound.dark.mean > 0:
            made.append(checking.quantisation(float(np.sqrt(noise.value))))
    return tuple(check for check in made if check is not None)
