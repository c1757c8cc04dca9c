"""The page of a calibration: what a person looks at before trusting it.

Owns what is said, for two readers: sentences for those who want to know whether their pictures
will be right, and the figures of EMVA Standard 1288 for those who know cameras. The figures are
drawn in `report_figures`.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ..reporting.html_report import Page
from .checks import Check
from .photon_transfer import PhotonTransfer
from .result import Calibration, spoken
from .sensor_figures import Nonuniformity
from .straight_line import Interval

EXAMPLE_E = 100.0
"""Photoelectrons of the pixel that the page explains."""


def write_report(calibration: Calibration, path: Path) -> None:
    """Write the page to `path`."""
    from . import report_figures as figures

    model, law, sensor = calibration.noise_model, calibration.photon_transfer, calibration.sensor
    page = Page(f"Camera: {model.fingerprint.camera or 'not named'}", _lead(calibration))
    page.tiles(_tiles(law))
    page.heading("In plain words")
    for sentence in plain_words(calibration):
        page.text(sentence)
    page.heading("Checks")
    page.checks(
        [
            (check.colour, check.name.replace("_", " "), check.says)
            for check in sorted(calibration.checks, key=_worst_first)
        ]
    )
    page.heading("Photon transfer")
    page.figure(
        figures.photon_transfer_figure(calibration),
        "Temporal variance against mean. Dots are measured light levels, the line is the noise "
        "model with its range of ±3 %, dashed is the straight photon-transfer law. Below, the "
        "deviation of both from the measurement: dots should scatter around 0.",
    )
    if law.offset is not None:
        page.figure(
            figures.signal_to_noise_figure(calibration, law.offset.value),
            "How many times its own noise a pixel's light is. Below 1 a pixel alone says nothing; "
            "where the line leaves the dashed one, the camera adds noise to that of light itself.",
        )
    page.heading("Data sheet (after EMVA 1288)")
    page.table(("quantity", "value", "95 % interval, or what it is"), _data_sheet(calibration))
    if sensor.dark_spectrum is not None or sensor.light_spectrum is not None:
        page.figure(
            figures.spectra_figure(sensor.dark_spectrum, sensor.light_spectrum),
            "Spectrograms of what stands still on the sensor. A level line is a pattern without "
            "order; narrow peaks are stripes that repeat.",
        )
    page.heading("Shape of the noise")
    page.figure(
        figures.shapes_figure(calibration),
        "Distribution of the observation around its signal, in standard deviations, at a dim, a "
        "middle and a bright level; dashed, a Gaussian of the same variance.",
    )
    page.table(
        ("noise model", "held-out negative log likelihood, nats per observation"),
        [
            (name.replace("_", " "), f"{value:.5f}")
            for name, value in calibration.held_out_nll.items()
        ],
    )
    if model.maps is not None:
        page.heading("Single pixels")
        page.figure(
            figures.maps_figure(model.maps),
            "Offset and noise of every pixel without light, and its response to light. Columns, "
            "corners and single bright dots are the camera's own pattern.",
        )
    page.heading("Camera and setting")
    page.table(
        ("property", "value"),
        [
            (name.replace("_", " "), str(value))
            for name, value in model.fingerprint.model_dump().items()
            if value is not None
        ],
    )
    page.write(path)


def _worst_first(check: Check) -> int:
    return ("red", "amber", "green").index(check.colour)


def _lead(calibration: Calibration) -> str:
    failed = [check for check in calibration.checks if check.colour == "red"]
    noted = [check for check in calibration.checks if check.colour == "amber"]
    if failed:
        which = ", ".join(check.name.replace("_", " ") for check in failed)
        return f"Do not use this calibration before you have read about: {which}."
    if noted:
        which = ", ".join(check.name.replace("_", " ") for check in noted)
        return f"This calibration can be used. Worth a look: {which}."
    return "This calibration is good: all checks passed."


def plain_words(calibration: Calibration) -> list[str]:
    """Say what was found, for someone who does not know cameras."""
    law, sensor = calibration.photon_transfer, calibration.sensor
    gain = law.photoelectron_gain_adu_per_e
    said = [
        "Each photoelectron (a photon that the camera caught) raises a pixel's value by "
        f"{gain:.3g} grey values (ADU)."
    ]
    if law.offset is not None and law.read_noise is not None:
        deviation = float(
            np.sqrt(calibration.noise_model.variance(law.offset.value + gain * EXAMPLE_E)) / gain
        )
        read = _spoken_read_noise(law.read_noise)
        said += [
            f"Without light a pixel shows {law.offset.value:.4g} ADU on average, and that value "
            f"varies from frame to frame by as much as {read} photoelectrons would make.",
            f"A pixel that caught {EXAMPLE_E:.0f} photoelectrons is uncertain by {deviation:.3g} "
            f"(light alone would make {np.sqrt(EXAMPLE_E):.0f}).",
        ]
        full = (law.saturation_adu - law.offset.value) / gain
        seen = "" if law.saturation_reached else ", if its range ends with its pixel type"
        said.append(f"A pixel is full at {full:,.0f} photoelectrons{seen}.")
    else:
        said.append(
            "Its value without light and its read noise are not known: there were no usable dark "
            "frames."
        )
    if sensor.dsnu_e is not None and law.read_noise is not None:
        beside = "less" if sensor.dsnu_e.total < law.read_noise.value else "more"
        said.append(
            f"Without light pixels differ from each other by {sensor.dsnu_e.total:.2g} "
            f"photoelectrons, {beside} than they vary in time"
            + (f"; in bright light by {100 * sensor.prnu.total:.2g} %." if sensor.prnu else ".")
        )
    return said


def _spoken_read_noise(read_noise: Interval) -> str:
    return f"{read_noise.value:.3g}" if read_noise.value else spoken(read_noise)


def _tiles(law: PhotonTransfer) -> list[tuple[str, str]]:
    tiles = [(f"{law.photoelectron_gain_adu_per_e:.4g} ADU/e⁻", "gain")]
    factor = law.excess_noise_factor
    if factor is not None:
        tiles.append(
            (f"F² = {factor.value:.2f}", "excess noise of an electron-multiplying camera")
        )
    if law.offset is not None:
        tiles.append((f"{law.offset.value:.2f} ADU", "offset"))
    if law.read_noise is not None:
        tiles.append((f"{_spoken_read_noise(law.read_noise)} e⁻", "read noise"))
    tiles.append((f"{law.saturation_adu:.0f} ADU", "saturation"))
    if law.dynamic_range:
        tiles.append((f"{20 * np.log10(law.dynamic_range):.1f} dB", "saturation over read noise"))
    return tiles


def _data_sheet(calibration: Calibration) -> list[tuple[str, str, str]]:
    law, sensor = calibration.photon_transfer, calibration.sensor
    gain = law.photoelectron_gain
    rows = [
        ("system gain K", f"{gain.value:.5g} ADU/e⁻", f"{gain.low:.5g} to {gain.high:.5g}"),
        ("1/K", f"{1 / gain.value:.5g} e⁻/ADU", f"{1 / gain.high:.5g} to {1 / gain.low:.5g}"),
    ]
    factor = law.excess_noise_factor
    if factor is not None:
        rows.append(
            (
                "excess noise factor F²",
                f"{factor.value:.3g}",
                f"{factor.low:.3g} to {factor.high:.3g}",
            )
        )
    if law.summed_correlation != 1:
        rows.append(
            (
                "summed autocorrelation of the noise",
                f"{law.summed_correlation:.3f}",
                "taken into K",
            )
        )
    if law.offset is not None and law.read_noise is not None:
        offset, read = law.offset, law.read_noise
        capacity = (law.saturation_adu - offset.value) / gain.value
        threshold = float(np.hypot(read.value, 12**-0.5 / gain.value)) + 0.5
        best = np.sqrt(capacity)
        rows += [
            (
                "dark signal (offset)",
                f"{offset.value:.3f} ADU",
                f"{offset.low:.3f} to {offset.high:.3f}",
            ),
            ("temporal dark noise", f"{read.value:.4g} e⁻", f"{read.low:.4g} to {read.high:.4g}"),
            ("saturation capacity", f"{capacity:,.0f} e⁻", _reached(law)),
            ("absolute sensitivity threshold", f"{threshold:.3g} e⁻", "signal = noise"),
            (
                "dynamic range",
                f"{_decibel(capacity / threshold)}",
                f"{capacity / threshold:,.0f} : 1",
            ),
            ("maximum signal-to-noise ratio", f"{_decibel(best)}", f"{best:,.0f} : 1"),
        ]
    if sensor.dsnu_e is not None:
        rows.append(("DSNU 1288", f"{sensor.dsnu_e.total:.3g} e⁻", _parts(sensor.dsnu_e, "e⁻", 1)))
    if sensor.prnu is not None:
        rows.append(
            ("PRNU 1288", f"{100 * sensor.prnu.total:.3g} %", _parts(sensor.prnu, "%", 100))
        )
    if sensor.linearity_error is not None:
        rows.append(
            ("linearity error", f"{100 * sensor.linearity_error:.2g} %", "mean over levels")
        )
    current = sensor.dark_current_e_per_s
    if current is not None:
        rows.append(
            (
                "dark current",
                f"{current.value:.3g} e⁻/s",
                f"{current.low:.3g} to {current.high:.3g}",
            )
        )
    return rows


def _decibel(ratio: float) -> str:
    return f"{20 * np.log10(ratio):.1f} dB = {np.log2(ratio):.1f} bits"


def _reached(law: PhotonTransfer) -> str:
    return "seen" if law.saturation_reached else "not reached; from the pixel type"


def _parts(found: Nonuniformity, unit: str, factor: float) -> str:
    rows, columns, pixels = (factor * x for x in (found.rows, found.columns, found.pixels))
    return f"rows {rows:.2g}, columns {columns:.2g}, pixels {pixels:.2g} {unit}"
