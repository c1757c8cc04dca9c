"""Which camera, in which setting, a measurement belongs to.

Owns the comparison of two cameras and the sentence that says how they differ. Reading the
properties from a running camera is the business of `acquisition`.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from .errors import CameraMismatchError


class CameraFingerprint(BaseModel):
    """The properties of a camera on which its noise depends.

    A property that is None is not known (stacks from a file seldom say); an unknown property
    matches everything, since refusing it would refuse every recording from elsewhere.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    camera: str | None = None
    serial: str | None = None
    readout_mode: str | None = None
    pixel_type: str | None = None
    bit_depth: int | None = None
    binning: str | None = None
    gain_setting: str | None = None
    offset_setting: str | None = None
    roi: tuple[int, int, int, int] | None = None
    """x, y, width, height in unbinned sensor pixels. Noise models with per-pixel maps need it."""

    def differences(self, running: CameraFingerprint, *, compare_roi: bool = False) -> list[str]:
        """Say, property by property, how the `running` camera differs from this one.

        `compare_roi` is for models with per-pixel maps: they hold for one region of the sensor.
        """
        names = [name for name in type(self).model_fields if name != "roi" or compare_roi]
        return [
            f"{name.replace('_', ' ')} is {running_value}, calibrated with {own_value}"
            for name in names
            if (own_value := getattr(self, name)) is not None
            and (running_value := getattr(running, name)) is not None
            and own_value != running_value
        ]

    def require_match(
        self, running: CameraFingerprint, *, what: str, compare_roi: bool = False
    ) -> None:
        """Raise CameraMismatchError if `running` differs; `what` names the file that does not fit.

        Raises
        ------
        CameraMismatchError
            With every property that differs and the remedy.
        """
        differences = self.differences(running, compare_roi=compare_roi)
        if differences:
            raise CameraMismatchError(
                f"{what} does not belong to this camera: {'; '.join(differences)}; set the camera "
                "back, calibrate and train for the present setting, or pass --force"
            )
