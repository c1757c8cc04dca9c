"""A TorchScript archive as ONNX.

Owns the conversion. The archive is a program: `torch.jit.load` reads it without Python's pickle,
yet running it may do what TorchScript can, reading and writing files included. So nobody comes
here unless the user has said that the archive is to be run.
"""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path
from typing import Any

import torch

from ...errors import one_line
from ..errors import ExportError
from .foreign_network import LOWEST_OPSET
from .imported_bundle import Example


def onnx_of_torchscript(archive: Path, axes: str, example: Example) -> Any:
    """Return the `onnx.ModelProto` of an archive, its height, width and number of frames free.

    Raises
    ------
    ExportError
        If it cannot be read or converted.
    """
    import onnx

    shape = dict(zip("cyx", example.observations.shape, strict=True)) | {"n": 1, "z": 1}
    traced = torch.zeros([shape[letter] for letter in axes], dtype=torch.float32)
    free = {place: letter for place, letter in enumerate(axes) if letter in "nyx"}
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = Path(folder) / "model.onnx"
        try:
            # torch's own class, from a file that the user trusts.
            program = torch.jit.load(  # type: ignore[no-untyped-call]
                str(archive), map_location="cpu"
            ).eval()
            # The exporter by graph capture takes no TorchScript.
            torch.onnx.export(
                program,
                (traced,),
                str(path),
                dynamo=False,
                opset_version=LOWEST_OPSET,
                input_names=["frames"],
                output_names=["estimate"],
                dynamic_axes={"frames": free, "estimate": free},
            )
            return onnx.load(str(path))
        except Exception as error:  # torch has no common base either
            raise ExportError(
                f"{archive.name}: cannot be turned into ONNX ({one_line(error)[:200]}); ask its "
                "authors for ONNX weights"
            ) from error
