"""Bundles from elsewhere: whatever lies in them ends in one line, soon, and in little memory."""

from __future__ import annotations

import json
import os
import tracemalloc
import zipfile
from functools import partial

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from quietscope.errors import QuietscopeError
from quietscope.inference.bundle import file_sha256, open_bundle
from quietscope.inference.errors import BundleError
from quietscope.inference.library import CURRENT, Library
from quietscope.inference.offline.denoise_stack import denoise_stack
from quietscope.inference.runtime.onnx_denoiser import OnnxDenoiser
from quietscope.storage.axis_map import Place
from quietscope.storage.ome_zarr_writer import OmeZarrWriter
from quietscope.storage.open_stack import open_stack

SHAPE = (24, 32)
ZERO = numpy_helper.from_array(np.float32(0), "zero")

pytestmark = pytest.mark.timeout(60)


def one_line(error) -> str:
    text = str(error.value)
    assert "\n" not in text
    assert len(text) < 900
    return text


def put(bundle, name, content: bytes):
    """Replace a file of a bundle, with a manifest that vouches for it."""
    (bundle / name).write_bytes(content)
    manifest = json.loads((bundle / "manifest.json").read_text(encoding="utf-8"))
    manifest["sha256"][name] = file_sha256(bundle / name)
    (bundle / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    return bundle


# ------------------------------------------------------------------------------ manifests


@pytest.mark.parametrize(
    "content",
    [b"\xff\xfe{}", b"", b"[]", b"[" * 100_000, b"{" + b" " * 9_000_000 + b"}", b'{"a": 1e999}'],
    ids=["no UTF-8", "empty", "a list", "deep", "large", "infinite"],
)
def test_a_manifest_that_is_none(make_bundle, content):
    bundle = make_bundle()
    (bundle / "manifest.json").write_bytes(content)
    with pytest.raises(BundleError, match="manifest") as error:
        open_bundle(bundle)
    one_line(error)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes among the files here")
@pytest.mark.parametrize("name", ["manifest.json", "model.onnx"])
def test_a_pipe_or_a_device_is_not_read(make_bundle, name):
    for make in (os.mkfifo, lambda path: path.symlink_to("/dev/zero")):
        bundle = make_bundle(f"{name} {make.__name__}")
        (bundle / name).unlink()
        make(bundle / name)
        with pytest.raises(BundleError) as error:
            open_bundle(bundle)
        one_line(error)


@pytest.mark.parametrize("content", [b"\xff", b"[]", b"null"])
def test_a_pointer_that_is_none(tmp_path, content):
    (tmp_path / CURRENT).write_bytes(content)
    with pytest.raises(BundleError, match=CURRENT) as error:
        Library(tmp_path).current()
    one_line(error)


# ---------------------------------------------------------------------------------- graphs


def graph_with(*nodes, constants=()):
    """A graph that honours the contract, with further nodes before it."""
    frames = helper.make_tensor_value_info("observations", TensorProto.UINT16, ["n", 1, "y", "x"])
    outputs = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 1, "y", "x"])
        for name in ("denoised", "uncertainty")
    ]
    tail = [
        helper.make_node("Cast", ["observations"], ["seen"], to=TensorProto.FLOAT),
        helper.make_node("Add", ["seen", "extra"], ["denoised"]),
        helper.make_node("Abs", ["seen"], ["uncertainty"]),
    ]
    graph = helper.make_graph([*nodes, *tail], "g", [frames], outputs, list(constants))
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def endless():
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["go_on"], ["goes_on"]),
            helper.make_node("Add", ["carried", "one"], ["carried_on"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("turn", TensorProto.INT64, []),
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("carried", TensorProto.FLOAT, []),
        ],
        [
            helper.make_tensor_value_info("goes_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("carried_on", TensorProto.FLOAT, []),
        ],
        [numpy_helper.from_array(np.float32(1), "one")],
    )
    return graph_with(
        helper.make_node("Loop", ["turns", "", "zero"], ["extra"], body=body),
        constants=[
            numpy_helper.from_array(np.int64(2**62), "turns"),
            ZERO,
        ],
    )


def enormous():
    return graph_with(
        helper.make_node("ConstantOfShape", ["shape"], ["filled"]),
        helper.make_node("ReduceMax", ["filled"], ["extra"], keepdims=0),
        constants=[numpy_helper.from_array(np.array([2**20, 2**20]), "shape")],
    )


def calling(own: list[str]):
    """Forty functions, of which each has these operations; `next` is the function after it."""
    opset = [helper.make_opsetid("", 18), helper.make_opsetid("own", 1)]
    model = graph_with(helper.make_node("0", ["zero"], ["extra"], domain="own"), constants=[ZERO])
    model.opset_import.append(opset[1])
    for level in range(40):
        names = ["in", *(f"between {n}" for n in range(1, len(own))), "out"]
        nodes = [
            helper.make_node(str((level + 1) % 40), [one], [other], domain="own")
            if called == "next"
            else helper.make_node(called, [one], [other])
            for called, one, other in zip(own, names, names[1:], strict=False)
        ]
        model.functions.append(
            helper.make_function("own", str(level), ["in"], ["out"], nodes, opset_imports=opset)
        )
    return model


def doubling():
    model = calling(["next", "next"])
    for node in model.functions[-1].node:
        node.op_type, node.domain = "Abs", ""
    return model


@pytest.mark.parametrize(
    ("graph", "said"),
    [
        (endless, "Loop, which may run without end"),
        (enormous, "expected at most"),
        (doubling, "more than 100000 operations"),
        (partial(calling, ["Abs", "next"]), "functions that call themselves"),
    ],
)
def test_a_graph_without_end_or_measure_is_not_opened(make_bundle, graph, said):
    bundle = make_bundle(graph=graph())
    with pytest.raises(BundleError, match=said) as error:
        OnnxDenoiser(bundle, SHAPE, provider="cpu")
    one_line(error)


def test_weights_in_another_file_are_not_loaded(make_bundle):
    """No hash of the manifest covers what a graph names by a path."""
    bundle = make_bundle()
    elsewhere = bundle.parent / "weights.bin"
    model = onnx.load(str(bundle / "model.onnx"))
    for weight in model.graph.initializer:
        if weight.name == "kernel":
            elsewhere.write_bytes(weight.raw_data)
            weight.ClearField("raw_data")
            weight.data_location = TensorProto.EXTERNAL
            for key, value in (("location", "../weights.bin"), ("length", str(36))):
                entry = weight.external_data.add()
                entry.key, entry.value = key, value
    put(bundle, "model.onnx", model.SerializeToString())
    with pytest.raises(BundleError, match="weights lie in another file") as error:
        OnnxDenoiser(bundle, SHAPE, provider="cpu")
    one_line(error)


def test_a_graph_that_fails_while_it_is_warmed_up_is_told(make_bundle):
    bundle = make_bundle(
        graph=graph_with(
            helper.make_node("Reshape", ["observations", "shape"], ["flat"]),
            helper.make_node("Cast", ["flat"], ["floats"], to=TensorProto.FLOAT),
            helper.make_node("ReduceMax", ["floats"], ["extra"], keepdims=0),
            constants=[numpy_helper.from_array(np.array([7]), "shape")],
        )
    )
    with pytest.raises(BundleError, match="cannot be run by ONNX Runtime") as error:
        OnnxDenoiser(bundle, SHAPE, provider="cpu")
    one_line(error)


# ---------------------------------------------------------------------------------- arrays


def npz(**arrays) -> bytes:
    from io import BytesIO

    file = BytesIO()
    np.savez_compressed(file, **arrays)
    return file.getvalue()


def bomb() -> bytes:
    """Kilobytes that unpack to 64 MiB each, and claim a gigabyte."""
    from io import BytesIO

    file = BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name in ("observations", "denoised", "uncertainty"):
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array_header_1_0(
                    member, {"descr": "<u2", "fortran_order": False, "shape": (1, 2**14, 2**15)}
                )
                for _ in range(64):
                    member.write(bytes(2**20))
    return file.getvalue()


GOOD = {
    "observations": np.ones((1, 24, 32), np.uint16),
    "denoised": np.ones((24, 32), np.float32),
    "uncertainty": np.ones((24, 32), np.float32),
}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"PK\x03\x04 no archive",
        npz(**GOOD)[:-60],
        npz(**{**GOOD, "observations": np.ones((24, 32), np.uint16)}),
        npz(**{**GOOD, "denoised": np.ones((3, 3), np.float32)}),
        npz(**{**GOOD, "denoised": np.array([["a"]])}),
        bomb(),
    ],
    ids=["empty", "no archive", "half", "two axes", "another size", "text", "bomb"],
)
def test_a_golden_output_that_is_none(make_bundle, content):
    bundle = put(make_bundle(), "golden.npz", content)
    tracemalloc.start()
    with pytest.raises(BundleError, match=r"golden\.npz cannot be read") as error:
        OnnxDenoiser(bundle, SHAPE, provider="cpu")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 300e6
    one_line(error)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", npz(**GOOD), bomb()])
def test_a_noise_model_that_is_none(make_bundle, content):
    from quietscope.inference.evaluation.evaluate import evaluate
    from quietscope.storage.stack import stack_from_array

    bundle = put(make_bundle(), "noise_model.npz", content)
    stack = stack_from_array(np.random.default_rng(0).integers(0, 99, (6, *SHAPE), np.uint16))
    with pytest.raises(QuietscopeError, match=r"noise_model\.npz") as error:
        evaluate(stack, bundle, static=True, provider="cpu")
    one_line(error)


# ------------------------------------------------------------------------------- recordings


@pytest.mark.parametrize("said", ["a string", 7, ["a"], {"camera": "a string"}])
def test_a_recording_whose_attributes_are_anothers_is_denoised(make_bundle, tmp_path, said):
    path = tmp_path / "raw.ome.zarr"
    with OmeZarrWriter(
        path, frame_shape=SHAPE, dtype="uint16", attributes={"quietscope": said}
    ) as store:
        store.write(np.full(SHAPE, 9, np.uint16), Place(None, 0, 0, 0))
    result = denoise_stack(
        open_stack(path), make_bundle(), tmp_path / "out.ome.zarr", provider="cpu"
    )
    assert result["frames_denoised"] == 1
