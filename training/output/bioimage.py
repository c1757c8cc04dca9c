"""A bundle as a BioImage Model Zoo package, for deepImageJ, ilastik and CAREamics.

Owns the description of a bundle in the zoo's words (`bioimageio.spec` 0.5). The graph is that of
the bundle, estimate and uncertainty out, but takes its camera pixels as float32: ONNX Runtime for
Java, which runs it in Fiji, has no 16-bit tensors. How far a pixel sees is given as the halo of
the outputs, so that who divides an image into tiles sees no seams.
"""

from __future__ import annotations

import gc
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import require_extra
from ...inference.bundle import MODEL, Bundle, Manifest
from ...inference.errors import BundleError
from ...inference.graph.inspection import INPUT, OUTPUTS, load_model, read_pixel_maps
from ...inference.graph.receptive_field import ReceptiveField, receptive_field
from ...inference.runtime.golden_output import GoldenOutput
from ...storage.atomic_output import new_file, require_absent, require_apart
from ...storage.output_kinds import Kind
from ..errors import TrainingError

SMALLEST_EDGE = 8
PAPERS = (
    ("Krull et al. 2019, Noise2Void", "10.1109/CVPR.2019.00223"),
    ("Krull et al. 2020, Probabilistic Noise2Void", "10.3389/fcomp.2020.00005"),
    ("Batson & Royer 2019, Noise2Self", "10.48550/arXiv.1901.11365"),
    ("Laine et al. 2019, self-supervised denoising", "10.48550/arXiv.1901.10277"),
)


def write_bioimage_package(
    bundle: Bundle, out: Path, *, author: str, overwrite: bool = False
) -> Path:
    """Write the bundle as a package (one ZIP file) at `out`; return its path.

    Parameters
    ----------
    bundle
        The model. Its golden output becomes the package's test tensors.
    out
        The ZIP file.
    author
        Who trained it.
    overwrite
        Replace what stands at `out`.

    Raises
    ------
    MissingExtraError
        If `bioimageio.spec` is not installed.
    TrainingError
        If it finds the description wanting, or the model belongs to the pixels of one sensor.
    OutputError
        If `out` exists or cannot be written.
    """
    require_apart(out, [bundle.path])
    require_absent(out, overwrite=overwrite, kind=Kind.PACKAGE)
    if read_pixel_maps(bundle.model_path) is not None:
        raise TrainingError(
            f"{bundle.path}: knows every pixel of one camera, and the zoo's programs cannot say "
            "which of them an image shows; train a model for it with --no-pixel-maps"
        )
    require_extra("bioimage", "a BioImage Model Zoo package")
    from bioimageio.spec import save_bioimageio_package

    package = new_file(out, overwrite=overwrite, kind=Kind.PACKAGE)
    with tempfile.TemporaryDirectory() as folder, package as staging:
        written = Path(folder) / "package.zip"
        try:
            with _files_closed():
                save_bioimageio_package(
                    _description(bundle, Path(folder), author), output_path=written
                )
        except ValueError as error:
            raise TrainingError(
                f"{bundle.path}: cannot be described for the BioImage Model Zoo "
                f"({str(error).splitlines()[0]}); report this as a defect of quietscope"
            ) from error
        staging.write_bytes(written.read_bytes())
    return out


@contextmanager
def _files_closed() -> Iterator[None]:
    """Close what bioimageio.spec leaves open: on Windows an open file cannot be deleted."""
    try:
        yield
    finally:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", ResourceWarning)
            gc.collect()


def _description(bundle: Bundle, folder: Path, author: str) -> Any:
    from bioimageio.spec.model import v0_5 as zoo

    manifest = bundle.manifest
    sees = _receptive_field(bundle.model_path)
    weights = folder / MODEL
    graph = _of_floats(load_model(bundle.model_path))
    weights.write_bytes(graph.SerializeToString())
    observations, answer = _example(bundle, weights, _least_edge(sees))
    readme = folder / "README.md"
    readme.write_text(_readme(bundle), encoding="utf-8")
    return zoo.ModelDescr(
        name=f"quietscope {manifest.algorithm} denoiser",
        description="Denoises microscope camera frames; gives the estimate and its uncertainty.",
        authors=[zoo.Author(name=author)],
        cite=[zoo.CiteEntry(text=text, doi=zoo.Doi(doi)) for text, doi in PAPERS],
        license=zoo.LicenseId("BSD-3-Clause"),
        documentation=zoo.FileDescr(source=readme),
        tags=["denoising", "self-supervised", "fluorescence", manifest.algorithm],
        inputs=[_input(zoo, observations, manifest, folder, sees)],
        outputs=[
            _output(zoo, name, image, folder, sees)
            for name, image in zip(OUTPUTS, answer, strict=True)
            if name == OUTPUTS[0] or manifest.states_uncertainty
        ],
        weights=zoo.WeightsDescr(
            onnx=zoo.OnnxWeightsDescr(source=weights, opset_version=graph.opset_import[0].version)
        ),
        config={
            # Read by deepImageJ: nothing is done to the image before and after.
            "deepimagej": {
                "allow_tiling": True,
                "pyramidal_model": False,
                "prediction": {"preprocess": [{"spec": None}], "postprocess": [{"spec": None}]},
            },
            "quietscope": {"model_sha256": bundle.model_sha256},
        },
    )


def _of_floats(model: Any) -> Any:
    """Return a graph that takes the same numbers as float32."""
    from onnx import TensorProto, helper

    (given,) = [value for value in model.graph.input if value.name == INPUT]
    camera = given.type.tensor_type.elem_type
    if camera != TensorProto.FLOAT:
        pixels = f"{INPUT}.pixels"
        for node in model.graph.node:
            for place, name in enumerate(node.input):
                node.input[place] = pixels if name == INPUT else name
        whole = helper.make_node("Round", [INPUT], [f"{INPUT}.whole"])
        model.graph.node.insert(0, whole)
        cast = helper.make_node("Cast", [f"{INPUT}.whole"], [pixels], to=camera)
        model.graph.node.insert(1, cast)
        given.type.tensor_type.elem_type = TensorProto.FLOAT
    return model


def _example(
    bundle: Bundle, weights: Path, edge: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return frames and their answer: the golden output, continued to the smallest size."""
    import onnxruntime

    golden = GoldenOutput(bundle)
    missing = [(0, max(0, edge - size)) for size in golden.frame_shape]
    if not np.any(missing):
        return golden.observations.astype(np.float32), golden.expected
    frames = np.pad(golden.observations, [(0, 0), *missing], mode="symmetric").astype(np.float32)
    session = onnxruntime.InferenceSession(str(weights), providers=["CPUExecutionProvider"])
    return frames, np.stack(session.run(list(OUTPUTS), {INPUT: frames[np.newaxis]}))[:, 0, 0]


def _receptive_field(model: Path) -> ReceptiveField | None:
    """Return how far a pixel sees; None where that may be the whole frame."""
    try:
        return receptive_field(model)
    except BundleError:
        return None


def _sizes(zoo: Any, sees: ReceptiveField | None) -> Any:
    """Return which heights and widths may be given."""
    step = 1 if sees is None else sees.stride_px
    return zoo.ParameterizedSize(min=_least_edge(sees), step=step)


def _least_edge(sees: ReceptiveField | None) -> int:
    """Return the edge of the smallest tile: more than both its margins."""
    if sees is None:
        return SMALLEST_EDGE
    return sees.stride_px * ceil((2 * _halo(sees) + 1) / sees.stride_px)


def _halo(sees: ReceptiveField | None) -> int:
    return 0 if sees is None else sees.stride_px * ceil(sees.reach_px / sees.stride_px)


def _input(
    zoo: Any,
    observations: NDArray[Any],
    manifest: Manifest,
    folder: Path,
    sees: ReceptiveField | None,
) -> Any:
    before = [f"before{back}" for back in range(1, 1 + manifest.context_frames)]
    steps = [n for back in range(1, 1 + manifest.planes) for n in (f"below{back}", f"above{back}")]
    beside = [f"other_channel{number}" for number in range(1, 1 + len(manifest.other_channels))]
    names = ["newest", *before, *steps, *beside]
    return zoo.InputTensorDescr(
        id=zoo.TensorId(INPUT),
        description="Camera pixels (ADU), the newest frame first; a missing frame is all zeros.",
        axes=[
            zoo.BatchAxis(),
            zoo.ChannelAxis(channel_names=[zoo.Identifier(name) for name in names]),
            *(zoo.SpaceInputAxis(id=zoo.AxisId(axis), size=_sizes(zoo, sees)) for axis in "yx"),
        ],
        data=zoo.IntervalOrRatioDataDescr(type="float32"),
        test_tensor=_tensor(zoo, folder / f"{INPUT}.npy", observations[np.newaxis]),
    )


def _output(
    zoo: Any, name: str, image: NDArray[np.float32], folder: Path, sees: ReceptiveField | None
) -> Any:
    return zoo.OutputTensorDescr(
        id=zoo.TensorId(name),
        axes=[
            zoo.BatchAxis(),
            zoo.ChannelAxis(channel_names=[zoo.Identifier(name)]),
            *(_output_axis(zoo, axis, _halo(sees)) for axis in "yx"),
        ],
        data=zoo.IntervalOrRatioDataDescr(type="float32"),
        test_tensor=_tensor(zoo, folder / f"{name}.npy", image[np.newaxis, np.newaxis]),
    )


def _output_axis(zoo: Any, axis: str, halo: int) -> Any:
    size = zoo.SizeReference(tensor_id=zoo.TensorId(INPUT), axis_id=zoo.AxisId(axis))
    if not halo:
        return zoo.SpaceOutputAxis(id=zoo.AxisId(axis), size=size)
    return zoo.SpaceOutputAxisWithHalo(id=zoo.AxisId(axis), size=size, halo=halo)


def _tensor(zoo: Any, path: Path, array: NDArray[Any]) -> Any:
    np.save(path, array, allow_pickle=False)
    return zoo.FileDescr(source=path)


def _readme(bundle: Bundle) -> str:
    manifest = bundle.manifest
    camera = manifest.camera.model_dump(exclude_none=True) or "not known"
    return (
        f"# {manifest.algorithm} denoiser\n\n"
        f"Trained by quietscope {manifest.quietscope_version} without clean images on "
        f"{sum(stack.frames for stack in manifest.training.stacks)} frames of one camera setting "
        f"({camera}). It holds for that setting only.\n\n"
        f"Input: {manifest.pixel_type} camera pixels, the newest frame and "
        f"{manifest.context_frames} frames before it, {manifest.planes} planes on either side"
        + "".join(f", then the newest frame of channel {name}" for name in manifest.other_channels)
        + ". Outputs: the estimated signal and its standard deviation, both in the camera's "
        "units.\n\n"
        "## Validation\n\n"
        f"Loss on held-out frames: {manifest.training.validation_loss}. Compare "
        "the standard deviation of residuals on your own frames with the noise model before use.\n"
    )
