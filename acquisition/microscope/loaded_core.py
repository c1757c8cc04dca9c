"""The one core of this process: found, started with an installation, and unloaded.

One process holds one core, because pycro-manager's engine is one object per process. A core that
is running already is used; another installation or configuration replaces it.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ...errors import one_line
from ..errors import MicroscopeError

logger = logging.getLogger(__name__)

BUFFER_MB = 1024
"""Micro-Manager's circular buffer: what absorbs a slow disk."""


def running_core() -> Any | None:
    """Return the core of this process if one was started here, by us or by the user's script."""
    from mmpycorex import Core, is_pymmcore_active

    return Core() if is_pymmcore_active() else None


def demo_installation() -> tuple[Path, Path]:
    """Return the folder of the device adapters from PyPI, and the demo camera's configuration."""
    from mm_test_adapters import device_adapter_path

    folder = Path(device_adapter_path())
    return folder, folder / "MMConfig_demo.cfg"


def installation(mm_dir: Path, config: Path) -> tuple[Path, Path]:
    """Return both paths, absolute, with a bare `config` looked for in the installation too.

    Raises
    ------
    MicroscopeError
        If one of them is not there.
    """
    if not config.is_file() and (mm_dir / config).is_file():
        config = mm_dir / config
    for name, path, there in (
        ("--mm-dir", mm_dir, mm_dir.is_dir()),
        ("--config", config, config.is_file()),
    ):
        if not there:
            raise MicroscopeError(f"{name} {path}: is not there; check the path")
    return mm_dir.absolute(), config.absolute()


def core_with(folder: Path, config: Path) -> Any:
    """Return a core that runs with this configuration, or the one that the user's script runs.

    Raises
    ------
    MicroscopeError
        If the core cannot be started.
    """
    core = running_core()
    if core is not None and _Started.by_us in {None, (folder, config)}:
        return core  # ours with the same configuration, or the user's own script's
    return _start(folder, config)


class _Started:
    """What the core of this process was started with; None if not by us."""

    by_us: tuple[Path, Path] | None = None


def _start(folder: Path, config: Path) -> Any:
    from mmpycorex import Core
    from pycromanager import start_headless

    close_core()
    try:
        with _in_utf8(config) as readable:
            start_headless(
                str(folder), str(readable), python_backend=True, buffer_size_mb=BUFFER_MB
            )
        core = Core()
        core.snap_image()  # the first use finds what is wrong, not the first frame of a run
    except Exception as error:  # the core, a device or a missing library
        close_core()
        raise MicroscopeError(
            f"{config}: Micro-Manager's core cannot be started with it ({one_line(error)}); "
            "check that Micro-Manager itself can load it, and that its device interface version "
            f"is that of pymmcore ({_interface_version()})"
        ) from error
    _Started.by_us = (folder, config)
    return core


@contextmanager
def _in_utf8(config: Path) -> Iterator[Path]:
    """Yield the configuration, or a copy of it in UTF-8 where it is in another encoding.

    Micro-Manager on Windows writes a device label such as "Kamera Süd" in the encoding of that
    computer. The core takes any bytes, but Python cannot hand such a label back to it.
    """
    content = config.read_bytes()
    try:
        content.decode("utf-8")
    except UnicodeDecodeError:
        logger.info("%s is not in UTF-8: read as Windows-1252", config)
    else:
        yield config
        return
    with tempfile.TemporaryDirectory(prefix="quietscope-") as folder:
        copy = Path(folder) / config.name
        text = content.decode("cp1252", errors="replace")
        copy.write_text(text, encoding="utf-8", newline="")
        yield copy


def close_core() -> None:
    """Unload the core of this process, if there is one. Another one can be started then."""
    from mmpycorex import Core, is_pymmcore_active
    from pycromanager import stop_headless
    from pycromanager.acquisition.acq_eng_py.internal.engine import Engine

    if is_pymmcore_active():
        # The core's object outlives this (it refers to itself), its buffer of 1 GB need not.
        Core().set_circular_buffer_memory_footprint(1)
        stop_headless()
    if hasattr(Engine, "singleton"):
        # The engine keeps its first core for ever otherwise, and its threads are shut down.
        del Engine.singleton
    _Started.by_us = None


def _interface_version() -> str:
    import pymmcore

    return str(pymmcore.CMMCore().getAPIVersionInfo())
