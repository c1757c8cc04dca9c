"""What programs call micrometres and seconds.

Owns the spellings of units of length and time in OME-XML, NGFF (UDUNITS), ImageJ and TIFF, and
their size. Where they stand in a file is known by its reader.
"""

from __future__ import annotations

from math import isfinite

_PREFIXES = {
    "": ("", 1.0),
    "yotta": ("Y", 1e24),
    "kilo": ("k", 1e3),
    "deci": ("d", 1e-1),
    "centi": ("c", 1e-2),
    "milli": ("m", 1e-3),
    "micro": ("µ", 1e-6),
    "nano": ("n", 1e-9),
    "pico": ("p", 1e-12),
    "femto": ("f", 1e-15),
}


def _spellings(names: tuple[str, ...], symbol: str) -> dict[str, float]:
    found = {}
    for prefix, (short, size) in _PREFIXES.items():
        for name in names:
            found[prefix + name] = found[f"{prefix}{name}s"] = size
        found[short + symbol] = size
    return found


_METRES = _spellings(("meter", "metre"), "m") | {
    "um": 1e-6,
    "micron": 1e-6,
    "microns": 1e-6,
    "micro m": 1e-6,
    "inch": 0.0254,
    "inches": 0.0254,
    "in": 0.0254,
    '"': 0.0254,
    "thou": 0.0254e-3,
    "mil": 0.0254e-3,
    "foot": 0.3048,
    "å": 1e-10,
    "angstrom": 1e-10,
    "ångström": 1e-10,
}
_SECONDS = _spellings(("second",), "s") | {
    "sec": 1.0,
    "secs": 1.0,
    "msec": 1e-3,
    "us": 1e-6,
    "usec": 1e-6,
    "minute": 60.0,
    "minutes": 60.0,
    "min": 60.0,
    "hour": 3600.0,
    "hours": 3600.0,
    "hr": 3600.0,
    "h": 3600.0,
    "day": 86400.0,
    "days": 86400.0,
    "d": 86400.0,
}


def length_um(value: object, unit: str | None) -> float | None:
    """Return a length in µm; None if it is no positive number of a known unit."""
    metres = _size(value, unit, _METRES)
    return None if metres is None else float(f"{metres * 1e6:.12g}")  # 0.1083, not 0.10829999…


def time_s(value: object, unit: str | None) -> float | None:
    """Return a time in seconds; None if it is no positive number of a known unit."""
    return _size(value, unit, _SECONDS)


def _size(value: object, unit: str | None, known: dict[str, float]) -> float | None:
    try:
        number = float(str(value))
    except ValueError:
        return None
    factor = known.get(_plain(unit or "")) or known.get(_plain(unit or "").lower())
    if factor is None or not isfinite(number) or number <= 0:
        return None
    return number * factor


def _plain(unit: str) -> str:
    """Return a unit with one µ for the two of Unicode and ImageJ's escaped one."""
    unit = unit.strip().strip("\0").replace("\\u00B5", "µ").replace("\\u00b5", "µ")
    return unit.replace("\u03bc", "µ").replace("\u00c2\u00b5", "µ")
