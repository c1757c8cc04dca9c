"""A recording as everything else sees it: frames in a known order, read one at a time.

Owns the frames' axes, which of them are there, and what is known about them (sizes, names, camera,
what was left out). Files are opened by `open_stack` and read in `readers`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import isclose, prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import QuietscopeError, one_line
from .urls import UrlPath

PIXEL_TYPES = ("uint8", "uint16", "float32")
"""What a frame may be made of. Anything else is refused by name."""
LARGEST_FRAME_BYTES = 2**30
"""A frame is read whole; one beyond this is no camera's, and often a damaged or hostile file."""
MOST_FRAMES = 10_000_000
"""More than a day at 100 frames per second; beyond it the sizes of a file are not believed."""
SQUARE_WITHIN = 0.01
FEW_ROWS = 4
"""So many rows or columns are channels or colours rather than a camera's."""
RECORDING = "recording"
"""Under this key images that we write keep what was known of the recording; see `described`."""
FINISHED = "finished"
"""There: whether what wrote the image came to its end."""

FrameAxes = Mapping[str, int]
AxisValue = int | float | str
DisplayRange = tuple[float, float]


class StackError(QuietscopeError, ValueError):
    """A file or array that is no usable image stack."""


class AbsentFrameError(StackError):
    """A frame that the recording has a place for but does not hold."""


@dataclass(frozen=True, slots=True, eq=False)
class Stack:
    """Frames (Y, X) in a fixed order, read one at a time.

    Attributes
    ----------
    path
        Where the pixels come from; only for messages and provenance. Of a URL without credentials.
    sizes
        Axis name to length for every axis but y and x, in storage order. Names are `time`,
        `channel`, `z`, `position`, as in Micro-Manager; others are kept as the file has them.
    frame_shape
        (Y, X) in pixels.
    dtype
        One of PIXEL_TYPES.
    read
        Reads one frame, given an index per axis of `sizes`, in that order.
    pixel_size_yx_um, z_step_um, time_interval_s, exposure_ms, camera
        What the file says; None where it says nothing.
    camera_is_label
        Whether `camera` is the name in Micro-Manager's configuration, as calibrations have it,
        and not a model as other programs write.
    channel_names
        In the order of the channels; () where they have none.
    axis_values
        For axes whose places are more than 0, 1, 2, …: what they are called, in order. Names of
        positions, exposures of a ladder.
    display_ranges
        From where to where each channel is shown, ADU, if the file says so.
    attributes
        The file's own metadata, as far as they are one dictionary.
    present
        Which frames are there, of the shape of `sizes`; None where all are. A killed or aborted
        recording has places without a frame: they are never read as images, and everything that
        goes through a stack leaves them out.
    remarks
        What the reader had to decide or leave out, one sentence each, for the person who asked.
    """

    path: Path
    sizes: Mapping[str, int]
    frame_shape: tuple[int, int]
    dtype: np.dtype[Any]
    read: Callable[[tuple[int, ...]], NDArray[Any]]
    pixel_size_yx_um: tuple[float, float] | None = None
    z_step_um: float | None = None
    time_interval_s: float | None = None
    channel_names: tuple[str, ...] = ()
    axis_values: Mapping[str, tuple[AxisValue, ...]] = field(default_factory=dict)
    camera: str | None = None
    camera_is_label: bool = False
    exposure_ms: float | None = None
    display_ranges: tuple[DisplayRange, ...] = ()
    attributes: Mapping[str, Any] | None = None
    present: NDArray[np.bool_] | None = None
    remarks: tuple[str, ...] = ()

    def __len__(self) -> int:
        """Return the size of the whole grid, absent frames included."""
        return prod(self.sizes.values())

    def __iter__(self) -> Iterator[NDArray[Any]]:
        return (self.frame(int(index)) for index in self.present_indices)

    def is_present(self, index: int) -> bool:
        """Whether frame `index` is there."""
        return self.present is None or bool(self.present.flat[index])

    @property
    def present_indices(self) -> NDArray[np.intp]:
        """The indices of the frames that are there, in order."""
        return np.arange(len(self)) if self.present is None else np.flatnonzero(self.present)

    @property
    def absent(self) -> int:
        """How many frames of the grid are not there."""
        return 0 if self.present is None else int(self.present.size - self.present.sum())

    @property
    def frames_there(self) -> str:
        """How many frames there are, for a person: `17 of 18 frames; 1 absent`."""
        if not self.absent:
            return f"{len(self)} frame{'s' if len(self) > 1 else ''}"
        return f"{len(self) - self.absent} of {len(self)} frames; {self.absent} absent"

    @property
    def pixel_size_um(self) -> float | None:
        """Edge of a pixel in the specimen, µm; its width where pixels are not square."""
        return None if self.pixel_size_yx_um is None else self.pixel_size_yx_um[1]

    @property
    def channel_labels(self) -> tuple[str, ...]:
        """What its channels are called: their names, or their numbers where they have none."""
        return self.channel_names or tuple(str(i) for i in range(self.sizes.get("channel", 1)))

    @property
    def bytes(self) -> int:
        """Size of all frames in memory."""
        return len(self) * prod(self.frame_shape) * self.dtype.itemsize

    def axes(self, index: int) -> dict[str, int]:
        """Return the axes of frame `index`: {'time': 3, 'channel': 0, …}."""
        position = np.unravel_index(index, tuple(self.sizes.values()))
        return {name: int(i) for name, i in zip(self.sizes, position, strict=True)}

    @property
    def _outer(self) -> dict[str, int]:
        """The axes that one image does not have: position, and those of the file's own."""
        return {n: s for n, s in self.sizes.items() if n not in {"time", "channel", "z"}}

    def image_axes(self, index: int) -> dict[str, int]:
        """Return where frame `index` lies among images of time, channel and z.

        All other axes together are one `position`, counted in their order, so that a format that
        knows no others holds the frame; `image_places` tells what each position is.
        """
        axes, outer = self.axes(index), self._outer
        found = {name: place for name, place in axes.items() if name not in outer}
        if outer:
            places = tuple(axes[name] for name in outer)
            found["position"] = int(np.ravel_multi_index(places, tuple(outer.values())))
        return found

    @property
    def image_places(self) -> list[dict[str, AxisValue]]:
        """What each position of `image_axes` is: the values of its axes; [] if there are none."""
        outer = self._outer
        if not outer:
            return []
        values = {n: self.axis_values.get(n) or tuple(range(s)) for n, s in outer.items()}
        return [
            {name: values[name][i] for name, i in zip(outer, place, strict=True)}
            for place in np.ndindex(*outer.values())
        ]

    @property
    def described(self) -> dict[str, Any]:
        """What is known of the recording beside its pixels, for a result to keep."""
        known = {
            "pixel_size_yx_um": self.pixel_size_yx_um,
            "z_step_um": self.z_step_um,
            "time_interval_s": self.time_interval_s,
            "exposure_ms": self.exposure_ms,
            "camera": self.camera,
            "images": self.image_places or None,
        }
        return {name: value for name, value in known.items() if value is not None}

    def index(self, axes: FrameAxes) -> int:
        """Return the place of the frame with these axes in the stack's order."""
        position = tuple(axes[name] for name in self.sizes)
        return int(np.ravel_multi_index(position, tuple(self.sizes.values())))

    def with_remarks(self, *remarks: str) -> Stack:
        """Return the stack with further remarks of its reader."""
        return replace(self, remarks=(*self.remarks, *remarks))

    def frame(self, index: int) -> NDArray[Any]:
        """Read frame `index` as (Y, X).

        Raises
        ------
        IndexError
            If there is no such frame.
        AbsentFrameError
            If the recording has a place for it but does not hold it.
        StackError
            If it cannot be read, or holds NaN or infinity.
        """
        if not 0 <= index < len(self):
            raise IndexError(f"{self.path}: no frame {index}, there are {len(self)}")
        if not self.is_present(index):
            raise AbsentFrameError(
                f"{self.path}: frame {index} ({self.axes(index)}) was never recorded; leave it "
                f"out ({self.frames_there})"
            )
        try:
            pixels = self.read(tuple(self.axes(index).values()))
        except QuietscopeError:
            raise
        except Exception as error:  # a disk, a network or a decoder, each with errors of its own
            raise StackError(
                f"{self.path}: frame {index} cannot be read ({reason(error, self.path)}); check "
                "the disk or the connection, or copy the recording anew"
            ) from error
        if pixels.shape != self.frame_shape:
            raise StackError(
                f"{self.path}: frame {index} is {pixels.shape}, the others are "
                f"{self.frame_shape}; give recordings of one frame size on their own"
            )
        if self.dtype.kind == "f" and not np.isfinite(pixels).all():
            raise StackError(
                f"{self.path}: frame {index} holds NaN or infinite pixels; a camera never "
                "writes those, so give the raw recording, or say what stands for them (--fill-nan)"
            )
        return pixels

    def frames(self, indices: Sequence[int]) -> NDArray[Any]:
        """Read several frames as one array (N, Y, X)."""
        out = np.empty((len(indices), *self.frame_shape), dtype=self.dtype)
        for row, index in enumerate(indices):
            out[row] = self.frame(index)
        return out

    def preceding(self, index: int, count: int) -> list[int | None]:
        """Return the `count` frames before `index` in time, newest first.

        Same channel, plane and position; None where the recording had not begun, or the frame is
        absent.
        """
        if "time" not in self.sizes:
            return [None] * count
        names, lengths = list(self.sizes), list(self.sizes.values())
        stride = prod(lengths[names.index("time") + 1 :])
        now = index // stride % self.sizes["time"]
        earlier = (index - back * stride if back <= now else None for back in range(1, count + 1))
        return [i if i is not None and self.is_present(i) else None for i in earlier]

    def observations(self, index: int, context_frames: int) -> NDArray[Any]:
        """Read frame `index` and what came before it as (1 + T, Y, X), newest first.

        Frames that are not there are zeros, as `Denoiser.denoise` expects them.
        """
        out = np.zeros((1 + context_frames, *self.frame_shape), dtype=self.dtype)
        out[0] = self.frame(index)
        for row, earlier in enumerate(self.preceding(index, context_frames), start=1):
            if earlier is not None:
                out[row] = self.frame(earlier)
        return out

    def channel(self, channel: int) -> Stack:
        """Return the frames of one channel as a stack without that axis."""
        if "channel" not in self.sizes:
            return self
        names = list(self.sizes)
        place = names.index("channel")
        read = self.read

        def read_channel(position: tuple[int, ...]) -> NDArray[Any]:
            return read((*position[:place], channel, *position[place:]))

        present = self.present
        if present is not None:
            present = np.asarray(present.take(channel, axis=place), dtype=np.bool_)
        return replace(
            self,
            sizes={n: s for n, s in self.sizes.items() if n != "channel"},
            read=read_channel,
            channel_names=self.channel_names[channel : channel + 1],
            display_ranges=self.display_ranges[channel : channel + 1],
            axis_values={n: v for n, v in self.axis_values.items() if n != "channel"},
            present=present,
        )


def stack_from_array(
    pixels: NDArray[Any],
    *,
    path: Path | str = "array",
    axes: Sequence[str] = ("time",),
    present: NDArray[np.bool_] | None = None,
) -> Stack:
    """Wrap an array (…, Y, X) whose leading axes are named by `axes`."""
    if pixels.ndim != len(axes) + 2:
        raise StackError(
            f"{path}: an array of shape {pixels.shape} does not have the axes {(*axes, 'y', 'x')}"
        )
    return checked(
        Stack(
            path=Path(path),
            sizes=dict(zip(axes, pixels.shape, strict=False)),
            frame_shape=(pixels.shape[-2], pixels.shape[-1]),
            dtype=pixels.dtype,
            read=lambda position: np.asarray(pixels[position]),
            present=present,
        )
    )


def checked(stack: Stack) -> Stack:
    """Return a stack that can be worked with, with a remark where its pixels are not square.

    Raises
    ------
    StackError
        If it is empty, of another pixel type, or of sizes that no recording has.
    """
    if stack.dtype.name not in PIXEL_TYPES:
        raise StackError(
            f"{stack.path}: pixels are {stack.dtype.name}, expected one of "
            f"{', '.join(PIXEL_TYPES)}; convert them as they are read (--pixels uint16, which "
            "stops at a pixel that does not fit, or --pixels float32)"
        )
    require_sizes(stack.path, tuple(stack.sizes.values()), stack.frame_shape, stack.dtype)
    if stack.present is not None and stack.present.shape != tuple(stack.sizes.values()):
        raise StackError(
            f"{stack.path}: which frames are there is told for {stack.present.shape}, expected "
            f"{tuple(stack.sizes.values())}"
        )
    if stack.absent == len(stack):
        raise StackError(f"{stack.path}: holds no frame; record at least one frame first")
    return _with_remark_on_rows(_with_remark_on_pixels(stack))


def require_sizes(
    path: Path, leading: Sequence[int], frame_shape: Sequence[int], dtype: np.dtype[Any]
) -> None:
    """Refuse sizes that no recording has, before anything is made of them.

    Raises
    ------
    StackError
        If there is no frame, too many, or one is too large.
    """
    count, frame_bytes = prod(leading), prod(frame_shape) * dtype.itemsize
    if count == 0 or 0 in frame_shape:
        raise StackError(f"{path}: the stack is empty; record at least one frame first")
    if frame_bytes > LARGEST_FRAME_BYTES:
        raise StackError(
            f"{path}: a frame of {'×'.join(map(str, frame_shape))} pixels takes "
            f"{frame_bytes / 2**30:.3g} GiB, expected at most {LARGEST_FRAME_BYTES // 2**30}; "
            "crop it first, or check the file"
        )
    if count > MOST_FRAMES:
        raise StackError(
            f"{path}: says that it holds {count:.3g} frames, expected at most {MOST_FRAMES:,}; "
            "divide the recording, or check the file"
        )


def reason(error: Exception, path: Path) -> str:
    """Return in one line what went wrong; only its kind where the path hides credentials."""
    name = type(error).__name__
    quotes = isinstance(path, UrlPath) and path.hides_credentials
    return name if quotes else f"{name}: {one_line(error)}"


def _with_remark_on_rows(stack: Stack) -> Stack:
    height, width = stack.frame_shape
    if min(height, width) > FEW_ROWS or max(height, width) <= FEW_ROWS:
        return stack
    remark = f"its frames are {width}×{height}: are its dimensions in another order (--axes)?"
    return replace(stack, remarks=(*stack.remarks, remark))


def _with_remark_on_pixels(stack: Stack) -> Stack:
    if stack.pixel_size_yx_um is None:
        return stack
    height, width = stack.pixel_size_yx_um
    if isclose(height, width, rel_tol=SQUARE_WITHIN):
        return stack
    remark = f"pixels are not square: {width:g} µm wide, {height:g} µm high"
    return replace(stack, remarks=(*stack.remarks, remark))
