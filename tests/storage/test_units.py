"""Units: every spelling of a length is the same length."""

from __future__ import annotations

import pytest

from quietscope.storage.units import length_um, time_s


@pytest.mark.parametrize(
    "unit",
    [
        "um",
        "µm",
        "μm",
        "\\u00B5m",
        "micron",
        "microns",
        "micrometer",
        "micrometre",
        "Micrometer",
        "micrometers",
    ],
)
def test_micrometres(unit):
    assert length_um(0.1083, unit) == 0.1083


@pytest.mark.parametrize(
    ("value", "unit", "expected"),
    [
        (108.3, "nanometer", 0.1083),
        (108.3, "nm", 0.1083),
        (1.083e-4, "millimeter", 0.1083),
        (1.083e-7, "meter", 0.1083),
        (1083, "angstrom", 0.1083),
        (1e-5, "inch", 0.254),
        ("0.1083", "um", 0.1083),
    ],
)
def test_other_lengths(value, unit, expected):
    assert length_um(value, unit) == expected


@pytest.mark.parametrize(
    ("value", "unit"),
    [
        (1, None),
        (1, "pixel"),
        (0, "um"),
        (-1, "um"),
        ("x", "um"),
        (float("nan"), "um"),
        (None, "um"),
        (float("inf"), "um"),
    ],
)
def test_what_is_no_length(value, unit):
    assert length_um(value, unit) is None


def test_times():
    assert time_s(250, "millisecond") == time_s(250, "ms") == 0.25
    assert time_s(2, "minute") == 120
    assert time_s(1, "m") is None
