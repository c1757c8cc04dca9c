"""What stands still on a sensor is told apart from noise, and by rows, columns and pixels."""

import dataclasses

import numpy as np
import pytest

from quietscope.benchmarks.calibration_regimes import Camera
from quietscope.calibration.errors import CalibrationError
from quietscope.calibration.fit_camera import fit_camera
from quietscope.calibration.report import plain_words, write_report
from quietscope.calibration.result import Calibration, spoken
from quietscope.calibration.sensor_figures import nonuniformity
from quietscope.calibration.straight_line import Interval
from quietscope.storage.stack import stack_from_array

SHAPE = (96, 96)
CAMERA = Camera(prnu=0.01, dsnu_adu=1.5)
STRIPES_ADU = 2.0
DARK_CURRENT = 3.0


def recording(electrons: float, seed: int, exposure_ms: float | None = None):
    rng = np.random.default_rng(seed)
    pixels = CAMERA.frames(electrons, rng, frames=24, shape=SHAPE)
    pixels[:, :, ::2] += np.uint16(STRIPES_ADU)
    return dataclasses.replace(
        stack_from_array(pixels, path=f"{electrons}"), exposure_ms=exposure_ms
    )


@pytest.fixture(scope="module")
def found() -> Calibration:
    levels = (20.0, 300.0, 4000.0)
    return fit_camera(
        [recording(e, i) for i, e in enumerate(levels, start=1)],
        dark=recording(0.0, 0),
        exposures_ms=[e / 10 for e in levels],
        dark_series=[
            recording(DARK_CURRENT * ms / 1000, 10 + i, float(ms))
            for i, ms in enumerate((10, 500, 2000))
        ],
    )


def test_dark_and_light_patterns_are_the_sensors(found):
    dsnu, prnu = found.sensor.dsnu_e, found.sensor.prnu
    assert dsnu.pixels == pytest.approx(1.5 / CAMERA.gain, rel=0.05)
    assert dsnu.columns == pytest.approx(STRIPES_ADU / 2 / CAMERA.gain, rel=0.05)
    assert dsnu.rows < 0.1 * dsnu.columns
    assert prnu.total == pytest.approx(0.01, rel=0.1)


def test_stripes_are_a_peak_in_the_spectrum_along_rows_alone(found):
    spectrum = found.sensor.dark_spectrum
    assert spectrum.cycles_per_pixel_x[spectrum.along_x.argmax()] == 0.5
    assert spectrum.along_x.max() > 5 * np.median(spectrum.along_x)
    assert spectrum.along_y.max() < 2 * np.median(spectrum.along_y)


def test_dark_current_over_exposures(found):
    current = found.sensor.dark_current_e_per_s
    assert current.low <= DARK_CURRENT <= current.high
    assert current.value == pytest.approx(DARK_CURRENT, rel=0.1)


def test_dark_series_without_exposures_is_refused_in_one_line():
    levels = [recording(e, i) for i, e in enumerate((20.0, 300.0), start=1)]
    with pytest.raises(CalibrationError, match="dark series: exposures of") as error:
        fit_camera(levels, dark_series=[recording(0.0, 4), recording(0.0, 5)])
    assert "\n" not in str(error.value)


def test_parts_add_up():
    rng = np.random.default_rng(0)
    rows, columns = rng.normal(0, 2, (64, 1)), rng.normal(0, 3, (1, 80))
    picture = rows + columns + rng.normal(0, 1, (64, 80))
    parts = nonuniformity(picture - picture.mean(), 0.0)
    assert parts.pixels == pytest.approx(1, rel=0.05)
    assert parts.rows == pytest.approx(rows.std(), rel=0.02)
    assert parts.columns == pytest.approx(columns.std(), rel=0.02)


def test_the_page_speaks_to_those_who_know_no_cameras(found, tmp_path):
    said = " ".join(plain_words(found))
    assert "photoelectron" in said
    assert "is uncertain by 10." in said
    page = tmp_path / "camera.html"
    write_report(found, page)
    text = page.read_text(encoding="utf-8")
    assert text.index("In plain words") < text.index("Data sheet (after EMVA 1288)")
    for quantity in ("DSNU 1288", "PRNU 1288", "dark current", "linearity error", "dynamic range"):
        assert quantity in text


@pytest.mark.parametrize(
    ("interval", "said"),
    [
        (Interval(0.99984, 0.99943, 1.00025), "0.99984 ± 0.00041"),
        (Interval(99.25, 99.0, 99.5), "99.25 ± 0.25"),
        (Interval(0.0, 0.0, 0.81), "below 0.81"),
        (Interval(1.8, 1.7, 2.6), "1.80 (1.70 to 2.60)"),
        (Interval(1e-9, 0.0, float("inf")), "1e-09 (not known)"),
    ],
)
def test_no_more_digits_than_are_known(interval, said):
    assert spoken(interval) == said
