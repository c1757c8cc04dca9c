"""The denoised stores of a run, one for each part of it.

Owns when they are opened and what their attributes say. Which frame is written when is decided in
`denoise_stage` and `completion`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ...storage.ome_zarr_writer import OmeZarrWriter
from .part import Part
from .run_directory import RunDirectory


class DenoisedStores:
    """The denoised stores of a run, one per part, opened with the first frame of each.

    Parameters
    ----------
    run
        Where they lie.
    attributes
        Returns what the store of a part says.
    model_changes
        Returns how often a model took another's place so far: stores say so.
    """

    def __init__(
        self,
        run: RunDirectory,
        attributes: Callable[[Part], Mapping[str, Any]],
        model_changes: Callable[[], int],
    ) -> None:
        self._run = run
        self._attributes = attributes
        self._model_changes = model_changes
        self._stores: dict[int, OmeZarrWriter] = {}
        self._parts: dict[int, Part] = {}
        self._told: dict[int, tuple[int, int, int]] = {}

    def of(self, part: Part) -> OmeZarrWriter:
        """Return the store of one part."""
        if part.number not in self._stores:
            self._parts[part.number] = part
            self._told[part.number] = self._known(part)
            self._stores[part.number] = OmeZarrWriter(
                self._run.denoised(part.number),
                frame_shape=part.frame_shape,
                dtype="float32",
                pixel_size_um=part.pixel_size_um,
                attributes=self._attributes(part),
                axis_map=part.axis_map,
            )
        store = self._stores[part.number]
        known = self._known(part)
        if self._told.setdefault(part.number, known) != known:
            self._told[part.number] = known
            part.scale(store)
            store.update_attributes(self._attributes(part))
        return store

    def _known(self, part: Part) -> tuple[int, int, int]:
        return len(part.axis_map.channel_names), part.changes, self._model_changes()

    @property
    def paths(self) -> list[Path]:
        """The stores that were written."""
        return [store.path for store in self._stores.values()]

    def close(self) -> None:
        """Close every store; raises the first error after all are closed."""
        errors = []
        for number, store in self._stores.items():
            try:
                self._parts[number].scale(store)
                self._parts[number].show(store)
                store.close()
            except Exception as error:
                errors.append(error)
        if errors:
            raise errors[0]
