"""CAREamics' checkpoints, and the weights in its BioImage.IO exports, as models to import.

Owns the reading. Both are files of `torch.save`, which hold a pickle; only tensors and plain
Python values are taken from it (`weights_only=True`), so that no code of the file is run. What
else it holds is refused.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, ValidationError

from ...errors import one_line
from ...inference.bundle import LARGEST_FILE_BYTES, file_sha256
from ..errors import TrainingError
from .careamics_unet import CAREamicsUNet, UNetPlan
from .foreign_network import LOWEST_OPSET, ForeignNetwork
from .imported_bundle import Example, Import
from .scaling import Linear, Step

MEAN_STD_EPS, RANGE_EPS = 1e-6, 1e-8
"""What CAREamics adds to what it divides by."""
OF_ONE_IMAGE = ("n2v",)
"""What learns from the frames alone, so that their normalisation is that of the estimate."""
_EDGE = 96


class _Normalisation(BaseModel):
    """How CAREamics scales the frames, as far as it is needed."""

    model_config = ConfigDict(extra="ignore")

    name: str
    input_means: list[float] | None = None
    input_stds: list[float] | None = None
    input_mins: list[float] | None = None
    input_maxes: list[float] | None = None
    input_lower_quantile_values: list[float] | None = None
    input_upper_quantile_values: list[float] | None = None

    def linear(self, path: Path) -> Linear | None:
        """Return it as (x − shift) / scale; None for none.

        Raises
        ------
        TrainingError
            If it is another one, or its numbers are not in the file.
        """
        pairs = {
            "mean_std": (self.input_means, self.input_stds),
            "min_max": (self.input_mins, self.input_maxes),
            "quantile": (self.input_lower_quantile_values, self.input_upper_quantile_values),
        }
        if self.name == "none":
            return None
        first, second = pairs.get(self.name, (None, None))
        if not first or not second or len(first) != 1 or len(second) != 1:
            raise TrainingError(
                f"{path}: its normalisation {self.name} cannot be used here, expected one of "
                f"{', '.join(pairs)} with one number each; train with mean_std"
            )
        if self.name == "mean_std":
            return Linear((first[0],), (second[0] + MEAN_STD_EPS,))
        return Linear((first[0],), (second[0] - first[0] + RANGE_EPS,))


def read_checkpoint(path: Path) -> Import:
    """Read a checkpoint of CAREamics' N2V or N2V2.

    Parameters
    ----------
    path
        The `.ckpt` file.

    Raises
    ------
    TrainingError
        If it is none, or holds more than numbers and plain values.
    """
    saved = _numbers_of(path)
    try:
        algorithm = saved["hyper_parameters"]["algorithm_config"]
        said = saved["datamodule_hyper_parameters"]["data_config"]["normalization"]
        state = {
            name.removeprefix("model."): weights
            for name, weights in saved["state_dict"].items()
            if name.startswith("model.")
        }
        normalisation = _Normalisation.model_validate(said)
        kind, plan = str(algorithm["algorithm"]), _plan(path, algorithm["model"])
    except (KeyError, TypeError, AttributeError, ValidationError) as error:
        raise TrainingError(
            f"{path}: no checkpoint of CAREamics 0.3 (it lacks {one_line(error)[:120]}); give a "
            ".ckpt that CAREamics wrote while it trained"
        ) from error
    if kind not in OF_ONE_IMAGE:
        raise TrainingError(
            f"{path}: was trained by {kind}, whose estimate is in the units of its own targets; "
            f"expected {' or '.join(OF_ONE_IMAGE)}: import the package that CAREamics exports"
        )
    scaling = normalisation.linear(path)
    network = ForeignNetwork(
        _exported(path, state, plan),
        least=(2**plan.depth, 2**plan.depth),
        step=(2**plan.depth, 2**plan.depth),
        before=() if scaling is None else (scaling,),
        after=() if scaling is None else (_back(scaling),),
    )
    facts: dict[str, str | int | float | bool | None] = {
        "imported_from": path.name,
        "format": "CAREamics checkpoint",
        "name": f"{kind}{'2' if plan.n2v2 else ''}",
        "checkpoint_sha256": file_sha256(path),
        "steps_there": int(saved.get("global_step", 0)),
    }
    return Import(path, network, Example(_field(scaling), None), facts, in_camera_units=True)


def network_of_weights(path: Path, said: dict[str, Any]) -> Any:
    """Return the `onnx.ModelProto` of weights that CAREamics exported.

    Parameters
    ----------
    path
        The file of the state dictionary.
    said
        Of the architecture, by the package's description.

    Raises
    ------
    TrainingError
        If the weights do not fit.
    """
    return _exported(path, _numbers_of(path), _plan(path, said))


def _numbers_of(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > LARGEST_FILE_BYTES:
            raise ValueError("larger than a model is")
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch and zipfile raise types of their own
        raise TrainingError(
            f"{path}: cannot be read as numbers alone ({one_line(error)[:160]}); files that hold "
            "code are not opened: save it again with CAREamics 0.3"
        ) from error
    if not isinstance(found, dict):
        raise TrainingError(f"{path}: holds no weights by their names; give a CAREamics file")
    return found


def _plan(path: Path, said: dict[str, Any]) -> UNetPlan:
    try:
        return UNetPlan.model_validate(said)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise TrainingError(
            f"{path}: its network cannot be imported ({'.'.join(map(str, first['loc']))}: "
            f"{first['msg']}); expected a U-Net for images of one channel"
        ) from error


def _exported(path: Path, state: dict[str, Any], plan: UNetPlan) -> Any:
    network = CAREamicsUNet(plan)
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise TrainingError(
            f"{path}: its weights do not fit CAREamics' U-Net ({one_line(error)[:160]}); save it "
            "again with CAREamics 0.3"
        ) from error
    return _onnx(network.eval())


def _onnx(network: CAREamicsUNet) -> Any:
    from ..output.export_onnx import traced

    free = torch.export.Dim.DYNAMIC
    # One axis unlike the other and no size a power of two, so that none is taken for a constant.
    frames = torch.zeros(2, 1, 192, 320)
    return traced(
        network,
        (frames,),
        opset_version=LOWEST_OPSET,
        dynamic_shapes=({0: free, 2: free, 3: free},),
    )


def _back(scaling: Linear) -> Step:
    """Return the step that undoes a normalisation."""
    (shift,), (scale,) = scaling.shift, scaling.scale
    return Linear((-shift / scale,), (1 / scale,))


def _field(scaling: Linear | None) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Return a made-up frame of the brightness that the network knows, (1, Y, X)."""
    shift, scale = (0.0, 1.0) if scaling is None else (scaling.shift[0], scaling.scale[0])
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:_EDGE, :_EDGE] - _EDGE / 2
    spot = 3 * np.exp(-(y**2 + x**2) / 200) - 1
    frame = shift + scale * (spot + 0.5 * rng.normal(size=spot.shape))
    return np.asarray(np.maximum(np.rint(frame), 0), np.float32)[np.newaxis]
