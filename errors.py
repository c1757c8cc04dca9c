"""The root of every error that is meant for the person at the keyboard.

QuietscopeError
├── MissingExtraError              also ImportError   a library that this installation left out
├── stacks.StackError              also ValueError    a file or array that is no usable image stack
├── urls.UrlError                  also ValueError    a URL that cannot be opened here
├── outputs.OutputError            also RuntimeError  a place where results cannot be written
├── calibration.CalibrationError   also ValueError    light levels, noise models, fingerprints
├── inference.InferenceError       also RuntimeError  bundles, sessions, frames that do not fit
├── training.TrainingError         also RuntimeError  data, budgets, checkpoints, export
├── arrays.ArrayError              also ValueError    an array that is no recording (or TypeError)
├── comparison.ComparisonError     also RuntimeError  methods that are unknown, what cannot begin
└── acquisition.AcquisitionError   also RuntimeError  the core, the camera, the stream

Each message is one line and says what was given, what was expected and what to do. The
command line prints that line and ends with status 1, as it does with what the operating system
refuses (`OSError`); anything else is a defect of ours.

Owns the names of the installation's extras as well: every room may meet one that is missing.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping

EXTRAS: Mapping[str, tuple[str, ...]] = {
    "train": ("torch", "onnxscript"),
    "cluster": ("distributed",),
    "classical": ("pywt",),
    "bm3d": ("bm3d",),
    "microssim": ("microssim",),
    "bioimage": ("bioimageio.spec",),
    "napari": ("napari", "npe2", "dask"),
    "pymmcore": ("pymmcore_plus", "useq", "yaml"),
    "vendor": ("nd2", "liffile", "pylibCZIrw"),
}
"""The modules that each extra of the installation brings; `pyproject.toml` has their packages."""


class QuietscopeError(Exception):
    """An error whose message is written for the user, in one line."""


class MissingExtraError(QuietscopeError, ImportError):
    """A library that this installation left out, and the line that installs it."""


def require_extra(extra: str, purpose: str) -> None:
    """Raise MissingExtraError if `extra` is not installed; `purpose` begins the message.

    Nothing is imported, so that asking costs no time.
    """
    missing = [module for module in EXTRAS[extra] if not _is_installed(module)]
    if missing:
        raise MissingExtraError(
            f"{purpose} needs {' and '.join(missing)}, which this installation left out; "
            f'install with: pip install "quietscope[{extra}]"'
        )


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # the package that `module` would lie in
        return False


def one_line(error: BaseException) -> str:
    """Return the message of any error in one line; its type's name where it has none."""
    return " ".join(str(error).split()) or type(error).__name__
