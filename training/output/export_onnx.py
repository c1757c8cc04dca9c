"""From a trained estimator to one ONNX graph that is known to run.

Owns the export, the structural check, and the comparison of ONNX Runtime with PyTorch on real
frames of several sizes. A graph that fails any of them never reaches a bundle.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ...inference.graph.inspection import DRAW, DRAWN, INPUT, OUTPUTS, PERIOD, PIXEL_MAPS
from ...inference.graph.rewriting import drop_exporter_traces, rewrite_for_speed
from ...inference.runtime.golden_output import write_golden_output
from ..data.side_inputs import Sample
from ..errors import ExportError
from ..model.estimator import Estimator, SampleEstimator

LARGEST_RELATIVE_ERROR = 1e-3
CROPS = ((1.0, 1.0), (0.61, 0.37), (0.5, 0.83))
"""Shares of the frame, in y and x, on which the graph is compared; made odd."""


def load_exporter() -> None:
    """Import what the export needs: before training, so that it is not missed after it."""
    for name in ("onnx", "onnxruntime", "onnxscript", "matplotlib.figure"):
        import_module(name)


def export_graph(
    estimator: Estimator,
    path: Path,
    samples: Sequence[Sample],
    pixel_maps: NDArray[np.float32] | None = None,
) -> float:
    """Write `path` and return the largest relative error against PyTorch.

    Parameters
    ----------
    estimator
        Trained; put into evaluation mode.
    path
        The ONNX file; a golden output is written beside it.
    samples
        Real frames; the first gives type and T.
    pixel_maps
        (3, Y, X) of the whole calibrated region, which the graph then holds.

    Raises
    ------
    ExportError
        If the graph is invalid, does not run under ONNX Runtime, or differs from PyTorch.
    """
    estimator.cpu().eval()
    estimator.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    try:
        _write(estimator, path, samples[0], pixel_maps)
        parity = _parity(estimator, path, samples)
        whole = samples[0].crop(*samples[0].observations.shape[1:])
        write_golden_output(path.parent, whole[0][0], *whole[1:])
        return parity
    except ExportError:
        raise
    except Exception as error:  # the exporter, the checker and the runtime have no common base
        raise ExportError(
            f"the trained model cannot be exported ({type(error).__name__}: "
            f"{str(error).splitlines()[0] if str(error) else 'no message'}); report this as a "
            "defect of quietscope (the checkpoint is kept, continue with --resume)"
        ) from error


def export_sampler(estimator: Estimator, path: Path, sample: Sample) -> None:
    """Write the graph that draws one sample, of an estimator whose network can.

    Raises
    ------
    ExportError
        If it does not do what PyTorch does.
    """
    import onnx
    import onnxruntime

    module = SampleEstimator(estimator).eval()
    (first,), shapes = example_of(sample, with_maps=False)
    draw = torch.tensor([1, 2, 3])
    graph = traced(
        module,
        (first, draw),
        input_names=[INPUT, DRAW],
        output_names=[DRAWN],
        dynamic_shapes={**shapes, DRAW: {}},
    )
    drop_exporter_traces(graph)
    onnx.save(graph, str(path))
    with torch.no_grad():
        expected = module(first, 3 * draw).numpy()
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {INPUT: first.numpy(), DRAW: 3 * draw.numpy()})
    if not (error := _relative_error(found, expected)) < LARGEST_RELATIVE_ERROR:
        raise ExportError(
            f"the graph of samples differs from PyTorch by {error:.1e}, expected less than "
            f"{LARGEST_RELATIVE_ERROR:.0e}; train again (the checkpoint is kept)"
        )


def _write(
    estimator: Estimator, path: Path, sample: Sample, pixel_maps: NDArray[np.float32] | None
) -> None:
    import onnx

    example, shapes = example_of(sample, with_maps=pixel_maps is not None)
    graph = traced(
        estimator,
        example,
        input_names=list(shapes),
        output_names=list(OUTPUTS),
        dynamic_shapes=shapes,
    )
    rewrite_for_speed(graph)
    drop_exporter_traces(graph)
    # What no operation of the graph tells: a tile has to begin at a multiple of it.
    onnx.helper.set_model_props(graph, {PERIOD: str(estimator.network.period)})
    if pixel_maps is not None:
        held = np.ascontiguousarray(pixel_maps[np.newaxis])
        graph.graph.initializer.append(onnx.numpy_helper.from_array(held, PIXEL_MAPS))
    onnx.save(graph, str(path))
    onnx.checker.check_model(str(path), full_check=True)


def example_of(
    sample: Sample, *, with_maps: bool
) -> tuple[tuple[torch.Tensor, ...], dict[str, dict[int, Any]]]:
    """Return arguments with which the estimator is traced, and which of their axes are free."""
    # Two frames of odd, unequal edges: no size is taken for a constant.
    first, *maps = (torch.from_numpy(planes) for planes in sample.crop(75, 91))
    dynamic = torch.export.Dim.DYNAMIC
    shapes: dict[str, dict[int, Any]] = {INPUT: {0: dynamic, 2: dynamic, 3: dynamic}}
    if with_maps:
        shapes[PIXEL_MAPS] = {2: dynamic, 3: dynamic}
    return (first.repeat(2, 1, 1, 1), *maps), shapes


def traced(module: torch.nn.Module, example: tuple[torch.Tensor, ...], **named: Any) -> Any:
    """Return the graph of a module, an onnx.ModelProto; `named` goes to `torch.onnx.export`.

    Raises
    ------
    ExportError
        If there is none.
    """
    with quiet_exporter(), torch.no_grad():
        program = torch.onnx.export(module, example, dynamo=True, verbose=False, **named)
    if program is None:
        raise ExportError(
            "PyTorch exported nothing; report this as a defect of quietscope, with its version"
        )
    return program.model_proto


@contextmanager
def quiet_exporter() -> Iterator[None]:
    """Silence what the exporter says of its own."""
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


def _parity(estimator: Estimator, path: Path, samples: Sequence[Sample]) -> float:
    import onnxruntime

    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), settings, providers=["CPUExecutionProvider"])
    worst = 0.0
    for sample in samples:
        for share_y, share_x in CROPS:
            crop = sample.crop(*_odd_shape(sample, share_y, share_x))
            with torch.no_grad():
                expected = [out.numpy() for out in estimator(*map(torch.from_numpy, crop))]
            feeds = dict(zip((INPUT, PIXEL_MAPS), crop, strict=False))
            for ours, theirs in zip(session.run(None, feeds), expected, strict=True):
                worst = max(worst, _relative_error(ours, theirs))
    if not worst < LARGEST_RELATIVE_ERROR:
        raise ExportError(
            f"the exported graph differs from PyTorch by {worst:.1e}, expected less than "
            f"{LARGEST_RELATIVE_ERROR:.0e}; train again (the checkpoint is kept)"
        )
    return worst


def _odd_shape(sample: Sample, share_y: float, share_x: float) -> tuple[int, int]:
    height, width = sample.observations.shape[1:]
    if share_y == share_x == 1.0:
        return height, width
    return max(1, int(share_y * height)) | 1, max(1, int(share_x * width)) | 1


def _relative_error(ours: NDArray[Any], theirs: NDArray[Any]) -> float:
    if not np.isfinite(ours).all():
        return float("inf")
    span = float(np.abs(theirs).max())
    return float(np.abs(ours - theirs).max()) / max(span, 1e-12)
