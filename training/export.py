"""From a trained estimator to one ONNX graph that is known to run.

Owns the export, the structural check, and the comparison of ONNX Runtime with PyTorch on real
frames of several sizes. A graph that fails any of them never reaches a bundle.
"""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ..inference.golden import write_golden
from ..inference.graph_rewriting import rewrite_for_speed
from .errors import ExportError
from .estimator import Estimator

INPUT = "observations"
OUTPUTS = ("denoised", "uncertainty")
LARGEST_RELATIVE_ERROR = 1e-3
CROPS = ((1.0, 1.0), (0.61, 0.37), (0.5, 0.83))
"""Shares of the frame, in y and x, on which the graph is compared; made odd."""


def load_exporter() -> float:
    """Import what the export needs; return how many seconds that took.

    Done before training, it tells how busy the computer is, and so how long the export will take.
    """
    started = time.monotonic()
    for name in ("onnx", "onnxruntime", "onnxscript", "matplotlib.figure"):
        import_module(name)
    return time.monotonic() - started


def export_graph(estimator: Estimator, path: Path, observations: Sequence[NDArray[Any]]) -> float:
    """Write `path` and return the largest relative error against PyTorch.

    Parameters
    ----------
    estimator
        Trained; put into evaluation mode.
    path
        The ONNX file; a golden answer is written beside it.
    observations
        Real frames (1 + T, Y, X) in the camera's pixel type; the first gives type and T.

    Raises
    ------
    ExportError
        If the graph is invalid, does not run under ONNX Runtime, or differs from PyTorch.
    """
    estimator.cpu().eval()
    estimator.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    try:
        _write(estimator, path, observations[0])
        parity = _parity(estimator, path, observations)
        write_golden(path.parent, observations[0])
        return parity
    except ExportError:
        raise
    except Exception as error:  # the exporter, the checker and the runtime have no common base
        raise ExportError(
            f"the trained model cannot be exported ({type(error).__name__}: "
            f"{str(error).splitlines()[0] if str(error) else 'no message'}); report this as a "
            "defect of quietscope (the checkpoint is kept, continue with --resume)"
        ) from error


def _write(estimator: Estimator, path: Path, observation: NDArray[Any]) -> None:
    import onnx

    # Two frames of odd, unequal edges: no size is taken for a constant.
    example = torch.from_numpy(np.stack([observation[:, :75, :91]] * 2))
    dynamic = torch.export.Dim.DYNAMIC
    with _quiet_exporter(), torch.no_grad():
        program = torch.onnx.export(
            estimator,
            (example,),
            dynamo=True,
            input_names=[INPUT],
            output_names=list(OUTPUTS),
            dynamic_shapes={INPUT: {0: dynamic, 2: dynamic, 3: dynamic}},
            verbose=False,
        )
        if program is None:
            raise ExportError("the exporter returned no graph; report this as a defect")
        program.save(str(path), external_data=False)
    graph = onnx.load(str(path))
    rewrite_for_speed(graph)
    onnx.save(graph, str(path))
    onnx.checker.check_model(str(path), full_check=True)


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    # It announces that torchvision, which nothing here needs, is absent, and uses torch's own
    # deprecated calls.
    logger = logging.getLogger("torch.onnx._internal.exporter._registration")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _parity(estimator: Estimator, path: Path, observations: Sequence[NDArray[Any]]) -> float:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    worst = 0.0
    for observation in observations:
        for share_y, share_x in CROPS:
            crop = _odd_crop(observation, share_y, share_x)[None]
            with torch.no_grad():
                expected = [output.numpy() for output in estimator(torch.from_numpy(crop))]
            for ours, theirs in zip(session.run(None, {INPUT: crop}), expected, strict=True):
                worst = max(worst, _relative_error(ours, theirs))
    if not worst < LARGEST_RELATIVE_ERROR:
        raise ExportError(
            f"the exported graph differs from PyTorch by {worst:.1e}, expected less than "
            f"{LARGEST_RELATIVE_ERROR:.0e}; train again (the checkpoint is kept)"
        )
    return worst


def _odd_crop(observation: NDArray[Any], share_y: float, share_x: float) -> NDArray[Any]:
    if share_y == share_x == 1.0:
        return observation
    height, width = (
        max(1, int(share * edge)) | 1
        for share, edge in zip((share_y, share_x), observation.shape[1:], strict=True)
    )
    return np.ascontiguousarray(observation[:, :height, :width])


def _relative_error(ours: NDArray[Any], theirs: NDArray[Any]) -> float:
    if not np.isfinite(ours).all():
        return float("inf")
    span = float(np.abs(theirs).max())
    return float(np.abs(ours - theirs).max()) / max(span, 1e-12)
