"""A real bundle that needs no training: its network is a box filter, ready at once.

Owns that one graph and bundle, for benchmarks and tests that ask about everything around a model.
Right to the last digit; its noise model is photon noise of 1 ADU per electron without an offset.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from quietscope.calibration.fingerprint import CameraFingerprint
from quietscope.inference.bundle import Manifest, TrainingRecord, new_bundle, seal

LEAST_SPREAD = 1e-3


def box_graph(
    *,
    frames: int = 1,
    radius: int = 1,
    pixel_type: str = "uint16",
    added: NDArray[Any] | float = 0.0,
    spread: float | None = None,
) -> onnx.ModelProto:
    """Build a graph that honours the contract.

    Parameters
    ----------
    frames
        That it is given: the newest one and its context.
    radius
        Of the box, which is 2 · radius + 1 pixels wide.
    pixel_type
        Of the camera.
    added
        What it adds to its estimate, ADU: a number, or a picture (Y, X) for frames of that shape.
    spread
        The uncertainty that it states, ADU; None states the scatter of the mean of the box.
    """
    edge = 2 * radius + 1
    constants: dict[str, NDArray[Any]] = {
        "kernel": np.full((1, frames, edge, edge), 1 / (frames * edge**2), np.float32),
        "margins": np.array([0, 0, radius, radius, 0, 0, radius, radius], np.int64),
        "added": np.asarray(added, np.float32),
        "floor": np.array(LEAST_SPREAD, np.float32),
        "share": np.array(1 / (frames * edge**2), np.float32),
        "none": np.array(0.0, np.float32),
        "spread": np.array(spread or 0.0, np.float32),
    }
    scatter = [
        helper.make_node("Mul", ["smooth", "share"], ["scaled"]),
        helper.make_node("Max", ["scaled", "floor"], ["variance"]),
        helper.make_node("Sqrt", ["variance"], ["uncertainty"]),
    ]
    stated = [
        helper.make_node("Mul", ["smooth", "none"], ["nothing"]),
        helper.make_node("Add", ["nothing", "spread"], ["uncertainty"]),
    ]
    nodes = [
        helper.make_node("Cast", ["observations"], ["x"], to=TensorProto.FLOAT),
        helper.make_node("Pad", ["x", "margins"], ["padded"], mode="edge"),
        helper.make_node("Conv", ["padded", "kernel"], ["smooth"]),
        helper.make_node("Add", ["smooth", "added"], ["denoised"]),
        *(scatter if spread is None else stated),
    ]
    used = {name for node in nodes for name in node.input}
    element = helper.np_dtype_to_tensor_dtype(np.dtype(pixel_type))
    graph = helper.make_graph(
        nodes,
        "box",
        [helper.make_tensor_value_info("observations", element, ["n", frames, "y", "x"])],
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 1, "y", "x"])
            for name in ("denoised", "uncertainty")
        ],
        [
            numpy_helper.from_array(value, name)
            for name, value in constants.items()
            if name in used
        ],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def write_box_model(
    path: Path,
    *,
    graph: onnx.ModelProto | None = None,
    radius: int = 1,
    pixel_type: str = "uint16",
    context_frames: int = 0,
    other_channels: tuple[str, ...] = (),
    channel: str | None = None,
    **camera: Any,
) -> Path:
    """Write the bundle, of the camera that is described; return its path.

    `graph` takes the place of the box filter.
    """
    frames = 1 + context_frames + len(other_channels)
    made = graph or box_graph(frames=frames, radius=radius, pixel_type=pixel_type)
    with new_bundle(path) as staging:
        onnx.save(made, str(staging / "model.onnx"))
        np.savez(
            staging / "noise_model.npz",
            # Rows as juglab's PN2V writes them: mean, log of the coefficients of σ², weight.
            trained_weight=np.array([[0, 0], [np.log(0.25), np.log(65535)], [0, 0]]),
            min_signal=np.array([0.0]),
            max_signal=np.array([65535.0]),
            min_sigma=np.array([0.5]),
        )
        nothing = TrainingRecord(
            stacks=(), steps=0, seconds=0.0, seed=0, parameters=9, validation_loss=None
        )
        manifest = Manifest(
            algorithm="lattice",
            preset="fast",
            context_frames=context_frames,
            other_channels=other_channels,
            channel=channel,
            pixel_type=pixel_type,
            camera=CameraFingerprint(**camera),
            noise_model="bootstrapped",
            training=nothing,
        )
        seal(staging, manifest)
    return path
