"""Which of the noise models in a folder belong to a camera as it is set now.

Owns the search; which settings make a camera another one is known to its fingerprint.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..errors import QuietscopeError
from .fingerprint import CameraFingerprint
from .gaussian_mixture import GaussianMixtureNoiseModel
from .noise_files import load_noise_model

MOST_MODELS = 30
"""Each of them is read, and those with pixel maps are large."""


@dataclass(frozen=True, slots=True, eq=False)
class KeptModel:
    """A noise model on disk.

    Attributes
    ----------
    differs
        How the camera differs from the one that it was measured on; empty if it fits.
    """

    path: Path
    model: GaussianMixtureNoiseModel
    differs: tuple[str, ...]

    @property
    def fits(self) -> bool:
        """Whether it belongs to the camera that was asked about."""
        return not self.differs


def kept_models(folder: Path, camera: CameraFingerprint) -> list[KeptModel]:
    """Return the newest noise models in `folder`, newest first; what is none is left out."""
    found = []
    newest = sorted(folder.glob("*.npz"), key=lambda file: -file.stat().st_mtime)
    for path in newest[:MOST_MODELS]:
        try:
            model = load_noise_model(path)
        except QuietscopeError:
            continue
        differs = model.fingerprint.differences(camera, compare_roi=model.maps is not None)
        found.append(KeptModel(path, model, tuple(differs)))
    return found
