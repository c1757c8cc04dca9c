"""Whether a newer model has come into use while a run lasts.

Owns the looking, now and then and away from every frame, and what is said. A run keeps the models
that it began with, so that all of its frames are denoised alike, until it is asked to use another
one (`model_requests`); the next run takes the newer.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

from ...errors import QuietscopeError
from ...inference.bundle import Bundle
from ...inference.library import Library, library_around

logger = logging.getLogger(__name__)

LOOK_EVERY_S = 30.0
"""Models change once a night, and a look reads one small file."""


class NewerModels:
    """Looks after the library that each of a run's models lies in.

    Parameters
    ----------
    bundles
        Returns the present models of the run, by the names of their channels.
    log
        Gets a line for each that is newer.
    look_every_s
        Between two looks.
    """

    def __init__(
        self,
        bundles: Callable[[], Mapping[str, Bundle]],
        log: Callable[[str], None],
        *,
        look_every_s: float = LOOK_EVERY_S,
    ) -> None:
        self._bundles, self._log, self._look_every_s = bundles, log, look_every_s
        self._watched = {
            name: shelf
            for name, bundle in bundles().items()
            if (shelf := library_around(bundle.path)) is not None
        }
        self._before = {
            name: _in_use(shelf, bundles()[name]) for name, shelf in self._watched.items()
        }
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look_on, name="quietscope newer models")
        self.found: dict[str, str] = {}
        """The newer models that wait, by the names of their channels."""

    def start(self) -> None:
        """Begin to look, where there is a library to look at."""
        if self._watched:
            self._thread.start()

    def waiting(self) -> Path | None:
        """Return a newer model that this run could change over to; called with every frame."""
        if not self.found:
            return None
        present = {bundle.path.absolute() for bundle in self._bundles().values()}
        newer = (Path(found).absolute() for found in tuple(self.found.values()))
        return next((path for path in newer if path not in present), None)

    def close(self) -> None:
        """Look a last time and stop."""
        self._over.set()
        if self._thread.is_alive():
            self._thread.join()
            self._look()

    def _look_on(self) -> None:
        while not self._over.wait(self._look_every_s):
            self._look()

    def _look(self) -> None:
        present = self._bundles()
        for name, shelf in self._watched.items():
            bundle = present[name]
            now = _in_use(shelf, bundle)
            if now is None:
                continue
            if now == self._before[name] or now.absolute() == bundle.path.absolute():
                self.found.pop(name, None)  # it was rolled back, or this run has changed over
                continue
            if self.found.get(name) == str(now):
                continue
            self.found[name] = str(now)
            channel = "" if bundle.manifest.channel is None else f" of {bundle.manifest.channel}"
            words = (
                f"a newer model{channel} is ready: {now.name}; this run keeps {bundle.path.name} "
                f"and the next one takes the newer, or this one as well with `quietscope models "
                f"use {now.name} --library {shelf.path} --running`"
            )
            self._log(words)
            logger.warning("%s", words)  # so that it is read in a terminal, too


def _in_use(shelf: Library, bundle: Bundle) -> Path | None:
    """Return the model that is in use for what a bundle is for; None if that is not known."""
    manifest = bundle.manifest
    try:
        for one in shelf.in_use():
            if one.serves_as(manifest.channel, manifest.camera):
                return shelf.bundle(one.model)
    except (QuietscopeError, OSError) as error:  # no reason to disturb a run
        logger.debug("the library %s cannot be asked: %s", shelf.path, error)
    return None
