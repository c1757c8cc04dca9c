"""A bundle as a BioImage Model Zoo package, for deepImageJ, ilastik and CAREamics.

Owns the description of a bundle in the zoo's words (`bioimageio.spec` 0.5). The graph is the same
file: camera pixels in, estimate and uncertainty out.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import require_extra
from ...inference.bundle import Bundle, Manifest
from ...inference.graph.inspection import INPUT, OUTPUTS, read_pixel_maps
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


def _description(bundle: Bundle, folder: Path, author: str) -> Any:
    import onnx
    from bioimageio.spec.model import v0_5 as zoo

    golden = GoldenOutput(bundle)
    manifest = bundle.manifest
    graph = onnx.load(str(bundle.model_path), load_external_data=False)
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
        inputs=[_input(zoo, golden.observations, manifest, folder)],
        outputs=[
            _output(zoo, name, image, folder)
            for name, image in zip(OUTPUTS, golden.expected, strict=True)
        ],
        weights=zoo.WeightsDescr(
            onnx=zoo.OnnxWeightsDescr(
                source=bundle.model_path, opset_version=graph.opset_import[0].version
            )
        ),
    )


def _input(zoo: Any, observations: NDArray[Any], manifest: Manifest, folder: Path) -> Any:
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
            *(
                zoo.SpaceInputAxis(
                    id=zoo.AxisId(axis), size=zoo.ParameterizedSize(min=SMALLEST_EDGE, step=1)
                )
                for axis in "yx"
            ),
        ],
        data=zoo.IntervalOrRatioDataDescr(type=manifest.pixel_type),
        test_tensor=_tensor(zoo, folder / f"{INPUT}.npy", observations[np.newaxis]),
    )


def _output(zoo: Any, name: str, image: NDArray[np.float32], folder: Path) -> Any:
    return zoo.OutputTensorDescr(
        id=zoo.TensorId(name),
        axes=[
            zoo.BatchAxis(),
            zoo.ChannelAxis(channel_names=[zoo.Identifier(name)]),
            *(
                zoo.SpaceOutputAxis(
                    id=zoo.AxisId(axis),
                    size=zoo.SizeReference(
                        tensor_id=zoo.TensorId(INPUT), axis_id=zoo.AxisId(axis)
                    ),
                )
                for axis in "yx"
            ),
        ],
        data=zoo.IntervalOrRatioDataDescr(type="float32"),
        test_tensor=_tensor(zoo, folder / f"{name}.npy", image[np.newaxis, np.newaxis]),
    )


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
