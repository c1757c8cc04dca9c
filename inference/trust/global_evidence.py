"""Figures of a whole frame that tell what is wrong, each with its sign.

Owns what is measured of the camera's noise and of what was removed. Every figure is near zero for
a right model; how near is told by `null`.

====================  ============================================================================
`noise_dark`,         log of the noise found in the camera's image over that calibrated, in the
`noise_bright`        darker and the brighter half. Measured by a difference of nine pixels that
                      leaves of smooth structure nothing (Immerkær 1996,
                      doi:10.1006/cviu.1996.0060), where the picture is smooth: it does not ask
                      the model.
`removed`             log of the variance found in the residual over that expected.
`lag_x`, `lag_y`      correlation of neighbouring residuals.
`rows`, `columns`     log of the variance of row (column) means of the residual, against their
                      neighbours, over that of independent pixels.
`softness`            slope of the residual against the fine structure of the picture, times the
                      root of its power: positive where what was removed looks like the picture.
`bias_dark`,          mean standardised residual in the darkest half, the brightest quarter.
`bias_bright`
====================  ============================================================================
"""

from __future__ import annotations

from math import log, sqrt

import numpy as np

from .residuals import Image, Residuals

FEWEST_PIXELS = 400
SMOOTH = 0.6
"""Fine structure of the picture in units of the noise, up to which a pixel counts as smooth."""
LEAST = 1e-6

Figures = dict[str, float]


def global_figures(
    residuals: Residuals, smoothed: Image, fine: Image, uncertainty: Image
) -> Figures:
    """Measure a frame.

    Parameters
    ----------
    residuals
        Of the frame.
    smoothed
        (Y, X), the picture without fine structure: how bright a pixel is, hardly touched by its
        own noise. By the estimate itself pixels would be sorted by their noise.
    fine
        (Y, X), the picture's fine structure in units of the noise, see `fine_structure`.
    uncertainty
        (Y, X), the standard deviation that is stated with the picture, ADU.

    Returns
    -------
    Only figures that this frame can tell.
    """
    z = residuals.standard
    levels = smoothed[::4, ::4]
    middle, upper = (float(v) for v in np.quantile(levels, (0.5, 0.75)))
    found = {
        **_noise(residuals, fine),
        **_removed(residuals, uncertainty),
        **_lags(z),
        **_lines(z),
        **_softness(z, fine),
    }
    for name, where in (
        ("bias_dark", smoothed <= middle),
        ("bias_bright", smoothed > upper),
    ):
        where &= residuals.usable
        count = int(where.sum())
        if count >= FEWEST_PIXELS:
            found[name] = float(z[where].sum(dtype=np.float64)) / count
    return {name: value for name, value in found.items() if np.isfinite(value)}


def _noise(residuals: Residuals, fine: Image) -> Figures:
    x, sigma, light = residuals.raw, residuals.own_sigma_adu, residuals.light_adu
    if min(x.shape) < 8:
        return {}
    rows = x[:-2] - 2 * x[1:-1] + x[2:]
    ripple = rows[:, :-2] - 2 * rows[:, 1:-1] + rows[:, 2:]
    ripple /= sigma[1:-1, 1:-1]
    inner = (slice(1, -1), slice(1, -1))
    # A pixel that jumps reaches over nine; beyond six deviations nothing is noise.
    good = (np.abs(fine[inner]) < SMOOTH) & (np.abs(ripple) < 6 * 6) & residuals.usable[inner]
    dark = light[inner] <= np.median(light[::4, ::4])
    found = {}
    for name, where in (("noise_dark", good & dark), ("noise_bright", good & ~dark)):
        some = ripple[where]
        if some.size >= FEWEST_PIXELS:
            found[name] = log(max(float(np.mean(some**2, dtype=np.float64)) / 36, LEAST))
    return found


def _removed(residuals: Residuals, uncertainty: Image) -> Figures:
    usable = residuals.usable[::2, ::2]
    if not usable.any():
        return {}
    z = residuals.standard[::2, ::2][usable]
    share = (uncertainty[::2, ::2][usable] / residuals.sigma_adu[::2, ::2][usable]) ** 2
    expected = float(np.maximum(1 - share, 0).mean(dtype=np.float64))
    if expected < LEAST:
        return {}
    return {"removed": log(max(float((z**2).mean(dtype=np.float64)), LEAST) / expected)}


def _lags(z: Image) -> Figures:
    power = float((z**2).mean(dtype=np.float64))
    if power < LEAST or min(z.shape) < 2:
        return {}
    return {
        "lag_x": float((z[:, 1:] * z[:, :-1]).mean(dtype=np.float64)) / power,
        "lag_y": float((z[1:] * z[:-1]).mean(dtype=np.float64)) / power,
    }


def _lines(z: Image) -> Figures:
    found = {}
    for name, axis in (("rows", 1), ("columns", 0)):
        means = z.mean(axis=axis, dtype=np.float64)
        if means.size < 16:
            continue
        against = means[1:-1] - (means[:-2] + means[2:]) / 2
        found[name] = log(max(float((against**2).mean()) * z.shape[axis] / 1.5, LEAST))
    return found


def _softness(z: Image, fine: Image) -> Figures:
    power = float((fine**2).sum(dtype=np.float64))
    if power < LEAST:
        return {}
    along = float((z * fine).sum(dtype=np.float64))
    return {"softness": along / power * sqrt(power / fine.size)}


def fine_structure(estimate: Image, smoothed: Image, sigma_adu: Image) -> Image:
    """Return what a blur takes from the picture, in units of the noise."""
    fine: Image = estimate - smoothed
    fine /= sigma_adu
    return fine
