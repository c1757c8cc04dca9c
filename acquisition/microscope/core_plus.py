"""The core of pymmcore-plus, asked as every other core of the house.

Owns who that is, and the translation of its method names. Whoever uses pymmcore-plus has imported
it; nothing here does it for them.
"""

from __future__ import annotations

import re
import sys
from typing import Any

from ..errors import AcquisitionError
from .core import Microscope, running_core
from .settings import MicroscopeSettings

PACKAGE = "pymmcore_plus"


def ask_whom(given: Any) -> tuple[Microscope | None, InSnakeCase | None]:
    """Return whom to ask about the camera, and the core of pymmcore-plus if it is one.

    Parameters
    ----------
    given
        A Microscope, a CMMCorePlus, or None for the core that this program runs.

    Raises
    ------
    AcquisitionError
        If it is none of these.
    """
    if isinstance(given, Microscope):
        return given, None
    if given is None:
        given = None if running_core() is not None else _instance()
        if given is None:
            return None, None
    elif not (hasattr(given, "run_mda") and hasattr(given, "getCameraDevice")):
        raise AcquisitionError(
            f"microscope is a {type(given).__name__}, expected what `open_microscope` gives or a "
            "CMMCorePlus of pymmcore-plus; leave it out for the core of this program"
        )
    core = InSnakeCase(given)
    return Microscope(core, MicroscopeSettings()), core


def _instance() -> Any | None:
    """Return the core that `CMMCorePlus.instance()` would give, if it has a camera; None without.

    That call itself would make a core where the program has none yet, so its memory is looked at.
    """
    made = getattr(sys.modules.get(f"{PACKAGE}.core._mmcore_plus"), "_instance", None)
    core = None if made is None else made()
    return core if core is not None and core.getCameraDevice() else None


class InSnakeCase:
    """A core by the method names of pycro-manager: `get_roi` for `getROI`.

    Attributes
    ----------
    core
        The CMMCorePlus itself.
    """

    def __init__(self, core: Any) -> None:
        self.core = core
        self._names = {_snake(name): name for name in dir(type(core)) if name[:1].islower()}

    def __getattr__(self, name: str) -> Any:
        return getattr(self.core, self._names.get(name, name))


def _snake(name: str) -> str:
    words = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub("([a-z0-9])([A-Z])", r"\1_\2", words).lower()
