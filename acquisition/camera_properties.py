"""The properties of a camera on which its noise depends, by the names that adapters give them.

Owns those names and how a fingerprint is put together from their values, whoever is asked for
them: a core for the camera that is running, or the tags of an image for the camera as it was then.
"""

from __future__ import annotations

from collections.abc import Callable

from ..calibration.fingerprint import CameraFingerprint

Read = Callable[[str], str | None]
"""Returns a property of the camera, None if it has none of that name."""

NAME = "CameraName"
BINNING = "Binning"
BIT_DEPTH = "BitDepth"

# Names that camera adapters give to one and the same thing. All that a camera has are compared.
SERIAL = ("CameraID", "SerialNumber", "Serial Number", "Camera Serial", "Serial", "S/N")
READOUT = (
    "ReadoutMode",
    "Readout Mode",
    "ReadoutRate",
    "Readout Rate",
    "PixelReadoutRate",
    "ScanMode",
    "SCAN MODE",
    "Sensitivity/DynamicRange",
    "SensitivityMode",
    "Output_Amplifier",
    "Port",
    "Speed",
)
GAIN = (
    "Gain",
    "GAIN",
    "EMGain",
    "EM Gain",
    "EMSwitch",
    "MultiplierGain",
    "Pre-Amp-Gain",
    "PreAmpGain",
    "Conversion Gain",
    "Photon Conversion Factor",
)
OFFSET = ("Offset", "CCDOffset", "BlackLevel", "Black Level", "Bias")

ALL = (NAME, BINNING, *SERIAL, *READOUT, *GAIN, *OFFSET)


def fingerprint_of(
    read: Read,
    *,
    name: str | None,
    pixel_type: str | None,
    bit_depth: int | None,
    roi: tuple[int, int, int, int] | None,
) -> CameraFingerprint:
    """Return the fingerprint of a camera whose properties `read` returns.

    Parameters
    ----------
    name
        Used where the camera has no name of its own among its properties.
    pixel_type, bit_depth, roi
        No properties, but asked of the core or seen in the image.
    """
    return CameraFingerprint(
        camera=read(NAME) or name,
        serial=_joined(read, SERIAL, named=False),
        readout_mode=_joined(read, READOUT),
        pixel_type=pixel_type,
        bit_depth=bit_depth,
        binning=read(BINNING),
        gain_setting=_joined(read, GAIN),
        offset_setting=_joined(read, OFFSET),
        roi=roi,
    )


def _joined(read: Read, names: tuple[str, ...], *, named: bool = True) -> str | None:
    found = [(name, value) for name in names if (value := read(name))]
    return ", ".join(f"{n}={v}" if named else v for n, v in found) or None
