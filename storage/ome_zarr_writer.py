"""Write frames to OME-Zarr as they come: any coordinates, any order, any number.

Owns a store while it is written: which images it has, that its metadata tell of them at every
instant, and which frames were handed over. Places come from `axis_map`, arrays from
`tensorstore_backend`, the format's JSON from `ngff_metadata`; what is really on the disk is
counted in `written_frames`. Reading is the business of `stack`; what is written, and when, that
of `acquisition` and `inference`.

Every folder appears whole (it is made under a hidden name beside the store), and the JSON that
names it is replaced afterwards, in one step. So the store on the disk can be opened after a kill
at any instant, and a killed program loses at most the frames in flight. A power cut can also cost
what the operating system had not yet put on the disk; when to ask it to is up to those who write.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from .atomic_output import (
    MovedAside,
    OutputError,
    recover,
    require_absent,
    require_zarr_name,
    staged,
)
from .axis_map import Axes, AxisMap, Place
from .ngff_metadata import (
    ARRAY,
    GROUP,
    array_folder,
    image_folders,
    image_metadata,
    omero,
    read_group,
    store_attributes,
    write_collection,
    write_group,
)
from .open_stack import open_stack
from .output_kinds import kind_of_store
from .stack import DisplayRange
from .tensorstore_backend import TCZ, Compression, FrameArray, InFlight
from .written_frames import chunk_places, written_chunks, written_frames

IN_FLIGHT = 16
IN_FLIGHT_BYTES = 64 * 2**20
"""Frames on their way to the disk at the same time; what a kill costs in a store that is alone."""

_OS_ERROR = re.compile(r"os_error_code='(\d+)'")


class OmeZarrWriter:
    """Write frames (Y, X) to one OME-Zarr store. Used from one thread at a time.

    The store appears with the first frame.

    Parameters
    ----------
    path
        The store to create.
    frame_shape, dtype
        Of every frame: (Y, X) and `uint8`, `uint16` or `float32`.
    pixel_size_um, z_step_um, interval_s
        Edge of a pixel in the specimen, distance of planes, time between frames; left out of the
        metadata when None.
    channel_names
        Channels known beforehand, in the order of their index. Others are added as they come.
    display_ranges
        From where to where viewers show the channels, in the order of their index.
    planned
        Lengths of t, c and z that the store has in the end at the least: frames at its end that
        are never written are absent, not unknown.
    attributes
        Further attributes of every image group, next to `ome`.
    overwrite
        Replace a store of the same kind (a recording, or what was made of one) that is already
        there: it is moved aside when the first frame is written, and goes when this is on the
        disk.
    resume
        Go on with a store that is already there (also one that a killed program left behind).
    max_in_flight, max_in_flight_bytes
        Writes under way at the same time. More wait in `write`, which bounds the memory, and what
        a kill can cost.
    compression
        `blosc-lz4`, `blosc-zstd`, `zstd` or `none`; all without loss.
    axis_map
        Numbers the axes; two stores that share one put a frame at the same place. With one,
        positions may appear at any time; without, positions keep the number that they have, and
        the first frame decides whether the store has any.

    Raises
    ------
    OutputError
        If the place cannot be written, or holds something that may not be replaced.
    """

    def __init__(
        self,
        path: Path | str,
        *,
        frame_shape: tuple[int, int],
        dtype: str | np.dtype[Any],
        pixel_size_um: float | None = None,
        z_step_um: float | None = None,
        interval_s: float | None = None,
        channel_names: Sequence[str] = (),
        display_ranges: Sequence[DisplayRange] = (),
        planned: TCZ = (1, 1, 1),
        attributes: Mapping[str, Any] | None = None,
        overwrite: bool = False,
        resume: bool = False,
        max_in_flight: int = IN_FLIGHT,
        max_in_flight_bytes: int = IN_FLIGHT_BYTES,
        compression: Compression = "blosc-lz4",
        axis_map: AxisMap | None = None,
    ) -> None:
        self.path = Path(path)
        self.frame_shape = (int(frame_shape[0]), int(frame_shape[1]))
        self.dtype = np.dtype(dtype)
        self.frames_written = 0
        self._axis_map = axis_map or AxisMap(number_as_they_appear=False)
        self._axis_map.know_channels(channel_names)
        self._may_get_positions = axis_map is not None
        self._is_collection = False
        self._scales = {
            "pixel_size_um": pixel_size_um,
            "z_step_um": z_step_um,
            "interval_s": interval_s,
        }
        self._display_ranges = tuple(display_ranges)
        self._planned = planned
        self._attributes = dict(attributes or {})
        self._compression: Compression = compression
        self._in_flight = InFlight(max_in_flight, max_in_flight_bytes, self._write_error)
        self._images: dict[int, _Image] = {}
        self._replaced: MovedAside | None = None
        self._closed = False
        try:
            require_zarr_name(self.path)
            recover(self.path, holds_something=_holds_frames(self.path))
            if resume and (self.path / GROUP).is_file():
                self._open_existing()
            else:
                kind = kind_of_store(self._attributes)
                require_absent(self.path, overwrite=overwrite, kind=kind)
        except (OSError, ValueError) as error:
            raise self._write_error(error) from error

    @property
    def channel_names(self) -> tuple[str, ...]:
        """The names of the channels so far, in the order of their index."""
        return tuple(self._axis_map.channel_names)

    # ------------------------------------------------------------------------- writing

    def write(
        self,
        pixels: NDArray[Any],
        axes: Axes | Place,
        *,
        unchanging: bool = False,
    ) -> None:
        """Write one frame, or wait while too many writes are in flight.

        Parameters
        ----------
        pixels
            (Y, X), not changed.
        axes
            Micro-Manager's axes: `time`, `channel`, `z` become t, c, z; `position` and any other
            axis make a series each; a `camera` counts as part of the channel. Or a place.
        unchanging
            The caller promises never to write to `pixels` again: saves a copy.

        Raises
        ------
        OutputError
            If the frame does not fit, or this or an earlier frame could not be written.
        """
        self._require_fitting(pixels, axes)
        place = self._place(axes)
        try:
            self._image(place).write(pixels, place.tcz, self._in_flight, unchanging=unchanging)
        except (OSError, ValueError) as error:
            raise self._write_error(error) from error
        self.frames_written += 1
        if self._replaced is not None:  # it is kept until this frame is there
            self.flush()
            replaced, self._replaced = self._replaced, None
            replaced.let_go()

    def holds(self, axes: Axes | Place) -> bool:
        """Whether a frame was written there already."""
        place = self._place(axes)
        image = self._images.get(place.position or 0)
        return image is not None and image.holds(place.tcz)

    def read(self, axes: Axes | Place) -> NDArray[Any] | None:
        """Read back a frame (Y, X) that was written, None if there is none.

        Also after `close`.
        """
        place = self._place(axes)
        if not self.holds(place):
            return None
        if not self._closed:  # then all is there that will ever be
            self._in_flight.wait()
        return self._images[place.position or 0].read(place.tcz)

    def frames_on_disk(self) -> int:
        """Count the frames that are really there, also after a write has failed."""
        return sum(image.frames_on_disk() for image in self._images.values())

    @property
    def frames_in_flight(self) -> int:
        """Frames that were handed over and may not be on the disk yet."""
        return len(self._in_flight)

    def flush(self) -> None:
        """Wait until every frame is written. Raises OutputError if one could not be."""
        self._in_flight.wait()

    def update_attributes(self, attributes: Mapping[str, Any]) -> None:
        """Add or replace attributes of every image group, in one visible step each."""
        self._attributes.update(attributes)
        try:
            for number, image in self._images.items():
                image.describe(self._attributes_of(number), self._display_ranges)
            if self._is_collection:
                write_collection(self.path, self._images, self._attributes)
        except (OSError, ValueError) as error:
            raise self._write_error(error) from error

    def update_scales(self, *, z_step_um: float | None, interval_s: float | None) -> None:
        """Say how far planes and time points lie apart, where that is known only now."""
        known = {"z_step_um": z_step_um, "interval_s": interval_s}
        new = {name: value for name, value in known.items() if value is not None}
        if all(self._scales[name] == value for name, value in new.items()):
            return
        self._scales.update(new)
        try:
            for image in self._images.values():
                for folder, array in image.groups.items():
                    found = read_group(folder)
                    scaled = image_metadata(
                        array, self.dtype, channel_names=(), display_ranges=(), **self._scales
                    )
                    ome = {**found["ome"], "multiscales": scaled["multiscales"]}
                    write_group(folder, {**found, "ome": ome}, store=self.path)
        except (OSError, ValueError) as error:
            raise self._write_error(error) from error

    def first_frames(self) -> dict[int, NDArray[Any]]:
        """Read back the first frame (Y, X) of each channel that has one, by its index."""
        found: dict[int, NDArray[Any]] = {}
        self._in_flight.wait()
        for _, image in sorted(self._images.items()):
            for place in image.first_places():
                found.setdefault(place[1], image.read(place))
        return found

    def update_display_ranges(self, ranges: Sequence[DisplayRange]) -> None:
        """Say from where to where viewers show the channels, in the order of their index."""
        self._display_ranges = tuple(ranges)
        self.update_attributes({})

    def close(self) -> None:
        """Wait for the writes, cut the arrays to their frames, and read the store back.

        May be called more than once. Raises OutputError if a frame could not be written, or is not
        there; what was written is readable all the same.
        """
        if self._closed:
            return
        self._closed = True
        try:
            self._in_flight.wait()
        finally:
            try:
                for image in self._images.values():
                    image.cut(self._planned)
            except (OSError, ValueError) as error:
                raise self._write_error(error) from error
        self._require_readable()

    def _require_readable(self) -> None:
        """Open the store as everybody will: every frame has to be there, the last one whole."""
        if not self._images:
            return
        stack = open_stack(self.path)
        found, expected = len(stack.present_indices), sum(i.frames for i in self._images.values())
        if found < expected:  # more are there where others write as well
            raise OutputError(
                f"{self.path}: {expected - found} of {expected} frames that were written are not "
                "on the disk; check it, and whether another program works in this folder"
            )
        stack.frame(int(stack.present_indices[-1]))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            self.close()
        except OutputError:
            if error is None:  # the error that is already on its way says more
                raise

    # ----------------------------------------------------------------- images and series

    def _place(self, axes: Axes | Place) -> Place:
        return axes if isinstance(axes, Place) else self._axis_map.place(axes)

    def _image(self, place: Place) -> _Image:
        number = place.position or 0
        if not self._images:
            self._begin(number, as_collection=place.position is not None)
        if place.position is not None and not self._is_collection:
            self._become_collection()
        if number not in self._images:
            self._add_image(number)
        image = self._images[number]
        if len(self._axis_map.channel_names) > len(image.channel_names):
            image.channel_names = list(self._axis_map.channel_names)
            image.describe(self._attributes_of(number), self._display_ranges)
        return image

    def _begin(self, number: int, *, as_collection: bool) -> None:
        """Make the store with its first image; it appears whole."""
        in_a_group = as_collection or self._may_get_positions
        with staged(self.path) as staging:
            first = staging / str(number) if in_a_group else staging
            self._create_image(first, number)
            if as_collection:
                write_collection(staging, [number], self._attributes)
            elif in_a_group:
                self._write_image_group(staging, f"{number}/{ARRAY}", self._attributes)
            self._replaced = MovedAside.of(self.path)
        self._is_collection = as_collection
        groups = {self.path / str(number) if in_a_group else self.path: ARRAY}
        if in_a_group and not as_collection:
            groups[self.path] = f"{number}/{ARRAY}"
        self._images[number] = _Image(self.path, groups)

    def _add_image(self, number: int) -> None:
        folder = self.path / str(number)
        if not (folder / GROUP).is_file():  # else a kill came before it was named
            with staged(folder, beside=self.path) as staging:
                self._create_image(staging, number)
        self._images[number] = _Image(self.path, {folder: ARRAY})
        write_collection(self.path, self._images, self._attributes)

    def _become_collection(self) -> None:
        """Describe a single image as the first of several; nothing moves."""
        image = self._images[0]
        if self.path / "0" not in image.groups:
            raise OutputError(
                f"{self.path}: was begun without positions, so frames of a position do not fit "
                "in; write them to another store"
            )
        write_collection(self.path, [0], self._attributes)
        del image.groups[self.path]
        self._is_collection = True

    def _create_image(self, folder: Path, number: int) -> None:
        FrameArray.create(
            folder / ARRAY,
            frame_shape=self.frame_shape,
            dtype=self.dtype,
            compression=self._compression,
        )
        self._write_image_group(folder, ARRAY, self._attributes_of(number))

    def _write_image_group(self, folder: Path, array: str, attributes: Mapping[str, Any]) -> None:
        names = self._axis_map.channel_names
        ome = image_metadata(
            array,
            self.dtype,
            channel_names=names,
            display_ranges=self._display_ranges,
            **self._scales,
        )
        write_group(folder, {"ome": ome, **attributes}, store=self.path)

    def _attributes_of(self, number: int) -> dict[str, Any]:
        """Return an image's attributes: the store's, and the name of its position."""
        names = self._axis_map.position_names
        return self._attributes | ({"position": names[number]} if number in names else {})

    def _open_existing(self) -> None:
        try:
            folders = image_folders(self.path)
            kept = store_attributes(self.path)
            self._is_collection = None not in folders
            for position, folder in folders.items():
                self._take_up(position or 0, folder)
        except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
            raise OutputError(
                f"{self.path}: cannot be resumed, it was not written by quietscope or is damaged "
                f"({error}); choose another --out"
            ) from error
        self._attributes = {**kept, **self._attributes}

    def _take_up(self, number: int, folder: Path) -> None:
        groups = {folder: array_folder(folder).relative_to(folder).as_posix()}
        inner = self.path / str(number)
        if folder == self.path and array_folder(folder) == inner / ARRAY:
            groups = {inner: ARRAY, **groups}
        image = _Image(self.path, groups)
        if (image.array.frame_shape, image.array.dtype) != (self.frame_shape, self.dtype):
            raise OutputError(
                f"{self.path}: holds frames of {image.array.frame_shape} {image.array.dtype}, "
                f"cannot go on with {self.frame_shape} {self.dtype}; choose another --out"
            )
        self._images[number] = image
        self._axis_map.know_channels(image.channel_names)
        self.frames_written += image.frames

    # ---------------------------------------------------------------------------- checks

    def _require_fitting(self, pixels: NDArray[Any], axes: Axes | Place) -> None:
        if self._closed:
            raise OutputError(f"{self.path}: is closed; open it again to write more frames")
        if pixels.shape != self.frame_shape or pixels.dtype != self.dtype:
            raise OutputError(
                f"{self.path}: frame {axes} is {pixels.shape} {pixels.dtype}, expected "
                f"{self.frame_shape} {self.dtype}; write frames of another kind to another store"
            )

    def _write_error(self, error: BaseException) -> OutputError:
        if isinstance(error, OutputError):
            return error
        found = _OS_ERROR.search(str(error))
        known = os.strerror(int(found.group(1))) if found else getattr(error, "strerror", None)
        reason = known or str(error)
        return OutputError(
            f"{self.path}: cannot be written ({' '.join(reason.split())}); check the disk's "
            "free space and your right to write there. Frames before this one are kept"
        )


def _holds_frames(path: Path) -> bool:
    written = written_frames(path)
    return path.exists() and (written is None or bool(written.any()))


class _Image:
    """One image: its array, the groups that describe it, and which of its frames were written.

    Parameters
    ----------
    store
        The whole.
    groups
        Folder of each group to the place of the array within, the image's own first.
    """

    def __init__(self, store: Path, groups: dict[Path, str]) -> None:
        self._store = store
        self.groups = groups
        folder, place = next(iter(groups.items()))
        self._folder = folder / place
        self.array = FrameArray.open(self._folder)
        self._written = written_chunks(self._folder)
        self.channel_names = _channel_names(read_group(folder))

    @property
    def frames(self) -> int:
        return int(self._written.sum())

    def holds(self, place: TCZ) -> bool:
        inside = all(i < n for i, n in zip(place, self._written.shape, strict=True))
        return inside and bool(self._written[place])

    def write(
        self, pixels: NDArray[Any], place: TCZ, in_flight: InFlight, *, unchanging: bool
    ) -> None:
        # Noted first: writing may raise for an earlier frame, and this one gets to the disk yet.
        if any(i >= n for i, n in zip(place, self._written.shape, strict=True)):
            self._make_room(place)
        self._written[place] = True
        self.array.write(place, pixels, in_flight, unchanging=unchanging)

    def read(self, place: TCZ) -> NDArray[Any]:
        return self.array.read(place)

    def first_places(self) -> list[TCZ]:
        """Return where the first frame of each channel was written."""
        places = (tuple(int(i) for i in place) for place in np.argwhere(self._written))
        first: dict[int, TCZ] = {}
        for t, c, z in places:
            first.setdefault(c, (t, c, z))
        return list(first.values())

    def frames_on_disk(self) -> int:
        return sum(1 for _ in chunk_places(self._folder))

    def describe(
        self, attributes: Mapping[str, Any], display_ranges: Sequence[DisplayRange]
    ) -> None:
        """Write the channels' names and these attributes to every group, the image's own first."""
        for folder in self.groups:
            found = read_group(folder)
            ome = found["ome"]
            if self.channel_names or display_ranges:
                ome["omero"] = omero(self.channel_names, self.array.dtype, display_ranges)
            write_group(folder, {**found, "ome": ome, **attributes}, store=self._store)

    def cut(self, planned: TCZ) -> None:
        """Cut the axes t, c, z to what was written or planned; named channels stay."""
        written = np.argwhere(self._written).max(axis=0, initial=0) + 1
        t, c, z = (max(int(n), least) for n, least in zip(written, planned, strict=True))
        self.array.cut([t, max(c, len(self.channel_names)), z])

    def _make_room(self, place: TCZ) -> None:
        """Double an axis that is too short, so that a frame costs no copy of what is known."""
        needed = [
            max(n, 2 * i) if i >= n else n for i, n in zip(place, self._written.shape, strict=True)
        ]
        larger = np.zeros([max(n, i + 1) for n, i in zip(needed, place, strict=True)], np.bool_)
        larger[tuple(slice(n) for n in self._written.shape)] = self._written
        self._written = larger


def _channel_names(attributes: Mapping[str, Any]) -> list[str]:
    channels = attributes["ome"].get("omero", {}).get("channels", [])
    return [str(channel["label"]) for channel in channels if "label" in channel]
