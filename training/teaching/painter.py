"""The teacher's pictures: what it makes of each frame from what was around it.

Owns the passes over whole frames, each averaged over flips of the frame, and how many of them fit
into the time. The network and its training are the method's.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..data.pictures import Pictures, single_frames
from ..data.recordings import Recordings
from ..data.resident_frames import ResidentChunk
from ..data.side_inputs import Sample
from ..device import join_workers
from ..model.estimator import Estimator
from ..options import InputPlanes
from .surroundings import Reach, Surroundings

FLIPS: Sequence[tuple[int, ...]] = ((), (2,), (3,), (2, 3))
"""Axes of (N, C, Y, X) that are turned round; averaged over all of them errors are smaller."""
STRIP = 256
"""Rows that are painted at a time, for the memory's sake …"""
MARGIN = 48
"""… with as many around them as the network looks at, a multiple of its stride."""
PAINTING_SHARE = 0.15
"""Of a budget of time: what the pictures may take, with all flips or without them."""


class Painter:
    """Paints frames of recordings by a trained teacher.

    Parameters
    ----------
    estimator
        The teacher's.
    student
        What the student is given.
    flips
        Over which is averaged.
    """

    def __init__(
        self,
        estimator: Estimator,
        student: InputPlanes,
        flips: Sequence[tuple[int, ...]] = FLIPS,
    ) -> None:
        self._estimator = estimator
        self._student = student
        self.flips = flips

    def chunk(self, chunk: ResidentChunk) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Return pictures of a chunk's frames (N, 2, Y, X), and of which there are any (N,)."""
        around = Surroundings(chunk, Reach.of(chunk.chunk.stack, self._student))
        maps = chunk.chunk.side_inputs.pixel_maps
        there = np.array([around.has_any(row) for row in range(len(chunk.pixels))], np.bool_)
        pictures = np.zeros((len(there), 2, *chunk.pixels.shape[1:]), np.float32)
        whole = (slice(None), slice(None))
        for row in np.flatnonzero(there):
            means = np.nan_to_num(around.planes(int(row), whole))
            frame = np.concatenate([np.zeros_like(means[:1]), means])
            pictures[row] = self.frame(frame, maps)
        return pictures, there

    def sample(self, sample: Sample, seen: Sample) -> Sample:
        """Return a held-out sample with its picture; `seen` holds what was around it.

        The pictures of the frames before are not needed where nothing is trained.
        """
        picture = self.frame(seen.observations, sample.pixel_maps)
        further = np.zeros((self._student.context_frames, *picture.shape[1:]), np.float32)
        return replace(sample, target=np.concatenate([picture, further]))

    @torch.no_grad()
    def frame(
        self, observations: NDArray[np.float32], maps: NDArray[np.float32] | None
    ) -> NDArray[np.float32]:
        """Return the picture (2, Y, X) of a frame, ADU.

        Parameters
        ----------
        observations
            (1 + A, Y, X) ADU; the first plane is not looked at, zeros are missing.
        maps
            (3, Y, X) of the camera's pixels there.
        """
        estimator = self._estimator
        given = [torch.from_numpy(observations[None])]
        if maps is not None:
            given.append(torch.from_numpy(np.ascontiguousarray(maps[None])))
        device = next(estimator.network.parameters()).device
        planes = estimator.to_network_units(*(part.to(device) for part in given))
        height = planes.shape[2]
        strips = []
        for top in range(0, height, STRIP):
            first, last = max(0, top - MARGIN), min(height, top + STRIP + MARGIN)
            painted = self._painted(planes[:, :, first:last], with_maps=maps is not None)
            strips.append(painted[:, top - first : top - first + STRIP])
        picture: NDArray[np.float32] = (
            (torch.cat(strips, dim=1) * estimator.scale_adu + estimator.centre_adu).cpu().numpy()
        )
        return picture

    def _painted(self, planes: Tensor, *, with_maps: bool) -> Tensor:
        """Return mean plus deviation, and mean, (2, y, x) in network units."""
        total = torch.zeros(2, *planes.shape[2:], device=planes.device)
        for flip in self.flips:
            turned = torch.flip(planes, flip)
            excess = turned[:, -1:] if with_maps else None
            answer = self._estimator.network(turned)
            mean, ratio, noise = self._estimator.posterior.prior(answer, excess)
            found = torch.flip(torch.cat([ratio * noise, mean], dim=1), flip)
            total += found[0] / len(self.flips)
        return torch.stack([total[1] + total[0].sqrt(), total[1]])


def painting_seconds(painter: Painter, recordings: Recordings) -> float:
    """Return about how long all pictures in memory take with one flip, measured on one piece.

    `recordings` are the teacher's.
    """
    piece = recordings.held_out[0]
    painter.frame(piece.observations, piece.pixel_maps)  # the first pass also sets up
    started = time.monotonic()
    painter.frame(piece.observations, piece.pixel_maps)
    per_pixel = (time.monotonic() - started) / piece.observations[0].size / len(painter.flips)
    pixels = sum(part.pixels.size for part in recordings.resident)
    pixels += sum(sample.observations[0].size for sample in recordings.held_out)
    return float(per_pixel * pixels)


def with_pictures(
    recordings: Recordings, seen: Recordings, estimator: Estimator, seconds: float | None
) -> Recordings:
    """Return the student's recordings with the pictures that the teacher makes of their frames.

    Parameters
    ----------
    recordings
        The student's.
    seen
        The same as the teacher sees them; its sampler lets go of the frames.
    estimator
        The teacher's, trained.
    seconds
        The budget of the whole run; None paints as well as can be.
    """
    seen.sampler.let_go()
    painter = Painter(estimator.to(join_workers().device), recordings.inputs)
    if seconds is not None:
        once = painting_seconds(painter, seen)
        affordable = int(PAINTING_SHARE * seconds / max(once, 1e-9))
        painter.flips = FLIPS[: max(1, min(affordable, len(FLIPS)))]
    for chunk in recordings.window.chunks:
        if isinstance(target := chunk.side_inputs.target, Pictures):
            target.paint = painter.chunk
    recordings.window.rewind()
    for part in recordings.resident:
        part.learn_pictures()
    if not any(part.learned_from for part in recordings.resident):
        raise single_frames(recordings.stacks[0])
    taught = replace(
        recordings,
        held_out=tuple(map(painter.sample, recordings.held_out, seen.held_out)),
    )
    return taught.with_patch(recordings.patch)
