"""Packages as others write them: a small network, its scaling, and what it gave there."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper
from scipy.ndimage import uniform_filter

KERNEL = np.full((1, 1, 3, 3), 1 / 9, np.float32)
ORDERS = {"bcyx": (0, 1, 2, 3), "byxc": (0, 2, 3, 1)}


def box_network(axes: str = "bcyx", opset: int = 13) -> Any:
    """A mean of 3 × 3 pixels, zeros around: as ONNX of the days of these packages."""
    shape = {"b": "b", "c": 1, "y": "h", "x": "w"}
    sizes = [shape[letter] for letter in axes]
    convolution = helper.make_node("Conv", ["frames", "kernel"], ["estimate"], pads=[1] * 4)
    nodes = [convolution]
    if axes != "bcyx":
        there = np.argsort(ORDERS[axes]).tolist()
        convolution.input[0], convolution.output[0] = "turned", "turned estimate"
        nodes = [
            helper.make_node("Transpose", ["frames"], ["turned"], perm=there),
            convolution,
            helper.make_node("Transpose", ["turned estimate"], ["estimate"], perm=ORDERS[axes]),
        ]
    graph = helper.make_graph(
        nodes,
        "box",
        [helper.make_tensor_value_info("frames", TensorProto.FLOAT, sizes)],
        [helper.make_tensor_value_info("estimate", TensorProto.FLOAT, sizes)],
        [numpy_helper.from_array(KERNEL, "kernel")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=7)


def box(image: np.ndarray) -> np.ndarray:
    return uniform_filter(np.pad(image.astype(float), 1), 3)[1:-1, 1:-1]


def scene(shape: tuple[int, int] = (64, 80)) -> np.ndarray:
    y, x = np.mgrid[: shape[0], : shape[1]]
    light = 100 + 200 * np.exp(-((y % 24 - 12) ** 2 + (x % 32 - 16) ** 2) / 40)
    return np.random.default_rng(0).poisson(light).astype(np.float32)


@pytest.fixture(autouse=True, scope="module")
def _files_closed() -> Iterator[None]:
    """Close what `bioimageio.spec` leaves open, before another test is blamed for it."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


@pytest.fixture
def make_package(tmp_path: Path) -> Callable[..., Path]:
    """Write a package by `bioimageio.spec`, from an image and what the network made of it."""
    zoo = pytest.importorskip("bioimageio.spec.model.v0_5")

    def axis(letter: str, size: Any, space: Any) -> Any:
        if letter == "b":
            return zoo.BatchAxis()
        if letter == "c":
            return zoo.ChannelAxis(channel_names=[zoo.Identifier("gray")])
        return space(id=zoo.AxisId(letter), size=size)

    def tensor(name: str, image: np.ndarray, axes: str) -> Any:
        path = tmp_path / f"{name}.npy"
        np.save(path, image[None, None].transpose(ORDERS[axes]).astype(np.float32))
        return zoo.FileDescr(source=path)

    def make(
        frame: np.ndarray,
        estimate: np.ndarray,
        *,
        axes: str = "bcyx",
        before: tuple[Any, ...] = (),
        after: tuple[Any, ...] = (),
        step: int = 8,
        weights: Any = None,
        name: str = "package",
    ) -> Path:
        import onnx
        from bioimageio.spec import save_bioimageio_package

        network, readme = tmp_path / "network.onnx", tmp_path / "README.md"
        onnx.save(box_network(axes), str(network))
        readme.write_text("# Denoiser\n\n## Validation\n\nNone.\n", encoding="utf-8")
        sizes = zoo.ParameterizedSize(min=16, step=step)
        same = {
            letter: zoo.SizeReference(tensor_id=zoo.TensorId("raw"), axis_id=zoo.AxisId(letter))
            for letter in "yx"
        }
        description = zoo.ModelDescr(
            name="A denoiser of others",
            description="A mean.",
            authors=[zoo.Author(name="A. Lab")],
            cite=[zoo.CiteEntry(text="A paper", doi=zoo.Doi("10.1109/CVPR.2019.00223"))],
            license=zoo.LicenseId("MIT"),
            documentation=zoo.FileDescr(source=readme),
            inputs=[
                zoo.InputTensorDescr(
                    id=zoo.TensorId("raw"),
                    axes=[axis(letter, sizes, zoo.SpaceInputAxis) for letter in axes],
                    test_tensor=tensor("raw", frame, axes),
                    preprocessing=list(before),
                )
            ],
            outputs=[
                zoo.OutputTensorDescr(
                    id=zoo.TensorId("clean"),
                    axes=[axis(letter, same.get(letter), zoo.SpaceOutputAxis) for letter in axes],
                    test_tensor=tensor("clean", estimate, axes),
                    postprocessing=list(after),
                )
            ],
            weights=weights
            or zoo.WeightsDescr(onnx=zoo.OnnxWeightsDescr(source=network, opset_version=13)),
        )
        path = tmp_path / f"{name}.zip"
        save_bioimageio_package(description, output_path=path)
        return path

    return make
