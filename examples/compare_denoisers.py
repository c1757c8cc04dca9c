"""A method developer's comparison: your own denoiser against a trained model, same frames.

    python examples/compare_denoisers.py repeats.tif models/gfp

`repeats.tif` holds repeats of one static scene. Anything with `frame_shape`, `context_frames`,
`denoise` and `close` is a denoiser.
"""

import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from quietscope.inference.evaluation.evaluate import evaluate
from quietscope.storage.open_stack import open_stack


class GaussianBlur:
    """The simplest denoiser: blur by one pixel."""

    context_frames = 0

    def __init__(self, frame_shape: tuple[int, int]) -> None:
        self.frame_shape = frame_shape

    def denoise(self, observations: NDArray[Any], out: NDArray[np.float32]) -> None:
        ndimage.gaussian_filter(observations[0].astype(np.float32), 1.0, output=out[0])
        out[1] = 0.0

    def close(self) -> None:
        pass


stack = open_stack(sys.argv[1])
for name, denoiser in (("blur", GaussianBlur(stack.frame_shape)), ("model", sys.argv[2])):
    scores = evaluate(stack, denoiser, static=True).result()
    print(f"{name:6} {scores['psnr_raw_db']:.2f} dB raw, {scores['psnr_db']:.2f} dB denoised")
