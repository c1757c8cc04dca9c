"""A BioImage.IO package as a model to import.

Owns the choice among the package's weights. ONNX is taken where there is any: it is a description
of arithmetic. A TorchScript archive is a program, which is run only if the user says so, and
turned into ONNX. Weights for the U-Net of CAREamics are read as numbers alone.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import require_extra
from ...inference.bundle import file_sha256
from ...inference.graph.inspection import load_model, require_few_nodes
from ..errors import TrainingError
from .foreign_network import OURS, ForeignNetwork
from .imported_bundle import Example, Import
from .package import Package, axes_of, opened, planes_of, sizes_of, steps_of

PLAIN_WEIGHTS = "pytorch_state_dict"
"""BioImage.IO's name for weights without a network."""


def read_package(source: Path, *, run_torchscript: bool = False) -> Import:
    """Read a package: its network, its scaling and its test tensors.

    Parameters
    ----------
    source
        A ZIP file, or a folder with a description.
    run_torchscript
        Run the program in a TorchScript archive, to turn it into ONNX, where there is no ONNX.

    Raises
    ------
    TrainingError
        If it is no denoiser of images, or not to be trusted.
    """
    with opened(source) as package:
        given, estimate = package.input, package.outputs[0]
        axes, output_axes = axes_of(package, given), axes_of(package, estimate)
        planes, (least, step) = planes_of(package), sizes_of(package)
        if planes > 1 and "c" not in axes:
            raise TrainingError(f"{source}: has several channels and no axis of them")
        example = Example(
            _frames(package.tensor(given), axes)[0], _image(package, estimate, output_axes)
        )
        model, kind = _network(package, example, run_torchscript)
        network = ForeignNetwork(
            model,
            axes,
            output_axes,
            planes,
            least,
            step if kind != PLAIN_WEIGHTS else _unet_step(package),
            steps_of(package, given, given.preprocessing),
            steps_of(package, estimate, estimate.postprocessing),
            package.states_uncertainty,
        )
        # CAREamics undoes its normalisation in the package.
        return Import(
            source, network, example, _facts(package, kind), in_camera_units=kind == PLAIN_WEIGHTS
        )


def _network(package: Package, example: Example, run_torchscript: bool) -> tuple[Any, str]:
    weights = package.description.weights
    if weights.onnx is not None:
        file = package.file(weights.onnx)
        model = load_model(file)
        require_few_nodes(model, file)  # before its functions are written out
        return model, "onnx"
    if (plain := weights.pytorch_state_dict) is not None and _is_careamics(plain):
        require_extra("train", "import of CAREamics' weights")
        from .from_careamics import network_of_weights

        weights_file = package.file(plain)
        return network_of_weights(weights_file, plain.architecture.kwargs), PLAIN_WEIGHTS
    if weights.torchscript is not None and run_torchscript:
        from .torchscript import onnx_of_torchscript

        axes = axes_of(package, package.input)
        return onnx_of_torchscript(package.file(weights.torchscript), axes, example), "torchscript"
    there = [name for name, entry in weights if entry is not None]
    raise TrainingError(
        f"{package.source}: holds {', '.join(there) or 'no weights'}, expected onnx"
        + (
            "; TorchScript is a program: if you trust who made it, pass --run-torchscript"
            if weights.torchscript is not None
            else "; ask its authors for ONNX weights, or convert it with bioimageio.core"
        )
    )


def _is_careamics(weights: Any) -> bool:
    from bioimageio.spec.model.v0_5 import ArchitectureFromLibraryDescr

    architecture = weights.architecture
    return isinstance(
        architecture, ArchitectureFromLibraryDescr
    ) and architecture.import_from.startswith("careamics.models.unet")


def _unet_step(package: Package) -> tuple[int, int]:
    """Return by what the sizes of a fully convolutional U-Net grow."""
    from .careamics_unet import UNetPlan

    said = package.description.weights.pytorch_state_dict.architecture.kwargs
    depth = UNetPlan.model_validate(said).depth
    return (2**depth, 2**depth)


def _frames(tensor: NDArray[Any], axes: str) -> NDArray[Any]:
    """Return a tensor as (N, C, Y, X)."""
    present = [letter for letter in axes if letter in OURS]
    plain = tensor[tuple(slice(None) if letter in OURS else 0 for letter in axes)]
    order = [present.index(letter) for letter in OURS if letter in present]
    absent = tuple(place for place, letter in enumerate(OURS) if letter not in present)
    return np.ascontiguousarray(np.expand_dims(plain.transpose(order), absent))


def _image(package: Package, estimate: Any, axes: str) -> NDArray[np.float32]:
    images = _frames(package.tensor(estimate), axes)[0]
    if len(images) > 1:
        raise TrainingError(
            f"{package.source}: gives {len(images)} channels, expected one; import a model of one "
            "channel"
        )
    return np.asarray(images[0], np.float32)


def _facts(package: Package, kind: str) -> dict[str, str | int | float | bool | None]:
    said = package.description
    papers = [str(entry.doi or entry.url or entry.text) for entry in said.cite]
    facts: dict[str, str | int | float | bool | None] = {
        "imported_from": package.source.name,
        "format": f"BioImage.IO {said.format_version}",
        "weights": kind,
        "name": str(said.name),
        "authors": ", ".join(str(author.name) for author in said.authors) or None,
        "license": None if said.license is None else str(said.license),
        "cite": "; ".join(papers) or None,
    }
    if package.source.is_file():
        facts["package_sha256"] = file_sha256(package.source)
    return facts
