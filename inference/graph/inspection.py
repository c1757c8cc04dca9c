"""What an ONNX graph says about itself, without running it.

Owns the check of the contract between training and inference: names, types and shapes of inputs
and outputs. Does not open sessions.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import BundleError

INPUT = "observations"
OUTPUTS = ("denoised", "uncertainty")
PIXEL_MAPS = "pixel_maps"
"""Of a camera whose pixels differ: (1, 3, Y, X), as `PixelMaps.correction` makes them. The graph
holds those of the whole calibrated region as the default of an input of this name, so that it
takes camera pixels alone; for a part of the region that part is fed instead."""


@dataclass(frozen=True, slots=True)
class GraphContract:
    """The interface of a model graph that was found to honour the contract.

    Attributes
    ----------
    pixel_type
        Name of the input's element type: the camera's own.
    observations
        1 + T, the frames that go in.
    free_dimensions
        Names of the symbolic dimensions N, Y, X; None where the size is fixed.
    fixed_dimensions
        Sizes where they are fixed, None where they are free; same order.
    """

    pixel_type: str
    observations: int
    free_dimensions: tuple[str | None, str | None, str | None]
    fixed_dimensions: tuple[int | None, int | None, int | None]

    def overrides(self, batch: int, frame_shape: tuple[int, int]) -> dict[str, int]:
        """Return the symbolic dimensions with the sizes that a session will see.

        Raises
        ------
        BundleError
            If the graph was exported for another fixed size.
        """
        wanted = (batch, *frame_shape)
        for fixed, size, what in zip(self.fixed_dimensions, wanted, "NYX", strict=True):
            if fixed is not None and fixed != size:
                raise BundleError(
                    f"the model was exported for {what} = {fixed} and cannot take {size}; "
                    "export it anew with free dimensions"
                )
        named = zip(self.free_dimensions, wanted, strict=True)
        return {name: size for name, size in named if name is not None}


def read_contract(model: Path) -> GraphContract:
    """Read the interface of the graph at `model`.

    Raises
    ------
    BundleError
        If it is no ONNX file or does not honour the contract.
    """
    graph = load_model(model).graph
    weights = {initializer.name for initializer in graph.initializer}
    inputs = [value for value in graph.input if value.name not in weights]
    outputs = tuple(value.name for value in graph.output)
    if [value.name for value in inputs] != [INPUT] or outputs != OUTPUTS:
        raise BundleError(
            f"{model}: takes {', '.join(v.name for v in inputs) or 'nothing'} and gives "
            f"{', '.join(outputs) or 'nothing'}, expected {INPUT} in and {', '.join(OUTPUTS)} "
            "out; train the model anew"
        )
    return _contract(model, inputs[0].type.tensor_type)


def _contract(model: Path, tensor: Any) -> GraphContract:
    from onnx import helper

    dimensions = list(tensor.shape.dim)
    if len(dimensions) != 4 or not dimensions[1].dim_value:
        raise BundleError(
            f"{model}: its input is not of shape (N, 1 + T, Y, X) with a fixed number of frames; "
            "train the model anew"
        )
    free = [dimensions[i].dim_param or None for i in (0, 2, 3)]
    fixed = [dimensions[i].dim_value or None for i in (0, 2, 3)]
    return GraphContract(
        pixel_type=np.dtype(helper.tensor_dtype_to_np_dtype(tensor.elem_type)).name,
        observations=dimensions[1].dim_value,
        free_dimensions=(free[0], free[1], free[2]),
        fixed_dimensions=(fixed[0], fixed[1], fixed[2]),
    )


def read_pixel_maps(model: Path) -> NDArray[np.float32] | None:
    """Return the pixel maps that the graph at `model` holds, (1, 3, Y, X); None if it has none."""
    from onnx import numpy_helper

    weights = load_model(model).graph.initializer
    held = next((weight for weight in weights if weight.name == PIXEL_MAPS), None)
    return None if held is None else np.asarray(numpy_helper.to_array(held), np.float32)


def load_model(model: Path) -> Any:
    """Read an ONNX file.

    Raises
    ------
    BundleError
        If it cannot be read.
    """
    import onnx

    try:
        return onnx.load(str(model))
    except Exception as error:  # protobuf and onnx raise types of their own
        raise BundleError(
            f"{model}: is no readable ONNX file ({type(error).__name__}); restore the bundle or "
            "train the model anew"
        ) from error


def without_default_maps(model: Path) -> bytes:
    """Return the model with its pixel maps, if it has any, as an input that has to be fed."""
    opened = load_model(model)
    weights = opened.graph.initializer
    for held in [weight for weight in weights if weight.name == PIXEL_MAPS]:
        weights.remove(held)
    return bytes(opened.SerializeToString())
