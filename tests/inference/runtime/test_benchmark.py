"""The benchmark: operations counted right, times that are times, keys that others rely on."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from quietscope.inference.errors import BundleError
from quietscope.inference.graph.operations import count_gflop
from quietscope.inference.runtime import machine_limit
from quietscope.inference.runtime.benchmark import bench
from quietscope.inference.runtime.machine_limit import convolution, matrix_product


@pytest.fixture(autouse=True)
def small_workloads(monkeypatch):
    monkeypatch.setattr(machine_limit, "PRODUCT_EDGES", (128, 256))
    monkeypatch.setattr(machine_limit, "CONVOLUTIONS", ((16, 128), (32, 64)))


def test_operations_of_one_convolution(make_bundle):
    model = make_bundle(radius=2) / "model.onnx"
    # One channel in, one out, 5×5 kernel: 2·25 operations per pixel.
    assert count_gflop(model, (100, 200)) == pytest.approx(50 * 100 * 200 / 1e9)


def test_operations_of_strided_grouped_and_transposed_convolutions(tmp_path):
    def weight(name, *shape):
        return numpy_helper.from_array(np.ones(shape, np.float32), name)

    nodes = [
        helper.make_node("Cast", ["observations"], ["x"], to=TensorProto.FLOAT),
        helper.make_node("Conv", ["x", "w1"], ["a"], strides=[2, 2]),  # 1 → 8, 2×2
        helper.make_node("Conv", ["a", "w2"], ["b"], group=4, pads=[1, 1, 1, 1]),  # 8 → 8, 3×3
        helper.make_node("ConvTranspose", ["b", "w3"], ["denoised"], strides=[2, 2]),  # 8 → 1
        helper.make_node("Abs", ["denoised"], ["uncertainty"]),
    ]
    element = TensorProto.UINT16
    graph = helper.make_graph(
        nodes,
        "convolutions",
        [helper.make_tensor_value_info("observations", element, ["n", 1, "y", "x"])],
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 1, "y2", "x2"])
            for name in ("denoised", "uncertainty")
        ],
        [weight("w1", 8, 1, 2, 2), weight("w2", 8, 2, 3, 3), weight("w3", 8, 1, 2, 2)],
    )
    opset = helper.make_opsetid("", 18)
    onnx.save(
        helper.make_model(graph, opset_imports=[opset], ir_version=9), tmp_path / "model.onnx"
    )
    half = 32 * 48 / 4
    expected = 2 * half * (8 * 4 + 8 * 2 * 9 + 8 * 4)
    assert count_gflop(tmp_path / "model.onnx", (32, 48)) == pytest.approx(expected / 1e9)


def test_a_graph_of_fixed_size_says_which(make_bundle, tmp_path):
    model = onnx.load(str(make_bundle() / "model.onnx"))
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_value = 64
    onnx.save(model, tmp_path / "fixed.onnx")
    with pytest.raises(BundleError, match="exported for Y = 64 and cannot take 32"):
        count_gflop(tmp_path / "fixed.onnx", (32, 32))


def test_the_keys_that_others_rely_on(make_bundle):
    steps = []
    result = bench(
        make_bundle(),
        (64, 80),
        frames=5,
        provider="cpu",
        threads=1,
        on_progress=lambda *step: steps.append(step),
    ).result()
    assert {
        "provider",
        "device",
        "shape",
        "precision",
        "frames",
        "latency_ms",
        "throughput_fps",
        "session_run_ms_p50",
        "gflop_per_frame",
        "achieved_gflops",
        "gemm_gflops",
        "peak_rss_mb",
    } <= set(result)
    latency = result["latency_ms"]
    assert 0 < latency["p50"] <= latency["p95"] <= latency["p99"] <= latency["max"]
    assert result["frames"] == 5
    assert steps[-1] == (5, 5)
    assert result["achieved_gflops"] == pytest.approx(
        result["gflop_per_frame"] / (latency["p50"] / 1e3)
    )


def test_the_product_is_computed():
    product = matrix_product("cpu", 1, "fp32", edge=64)
    a, b, c = (value.numpy() for value in product.values)
    product.run()
    np.testing.assert_allclose(c, a @ b, rtol=1e-3, atol=1e-3)
    assert product.gflop == pytest.approx(2 * 64**3 / 1e9)


def test_the_convolutions_count_their_own_operations():
    work = convolution("cpu", 1, "fp32", channels=8, edge=32)
    work.run()
    result = work.values[-1].numpy()
    assert result.shape == (1, 8, 32, 32)
    assert 0.1 < result.std() < 10  # of unit gain
    assert work.gflop == pytest.approx(4 * 2 * 9 * 8 * 8 * 32 * 32 / 1e9)


def convolutions(channels, count):
    """A graph that is convolutions and hardly anything else: as near to the limit as any."""
    random = np.random.default_rng(0)
    shapes = [(channels, 1, 3, 3), *[(channels, channels, 3, 3)] * count, (1, channels, 3, 3)]
    kernels = [
        numpy_helper.from_array((0.1 * random.standard_normal(s)).astype(np.float32), f"k{i}")
        for i, s in enumerate(shapes)
    ]
    nodes = [helper.make_node("Cast", ["observations"], ["x0"], to=TensorProto.FLOAT)]
    nodes += [
        helper.make_node(
            "Conv",
            [f"x{i}", f"k{i}"],
            [f"x{i + 1}" if i < count + 1 else "denoised"],
            pads=[1, 1, 1, 1],
        )
        for i in range(count + 2)
    ]
    nodes.append(helper.make_node("Abs", ["denoised"], ["uncertainty"]))
    names = [("observations", TensorProto.UINT16)]
    names += [(name, TensorProto.FLOAT) for name in ("denoised", "uncertainty")]
    values = [helper.make_tensor_value_info(n, t, ["n", 1, "y", "x"]) for n, t in names]
    graph = helper.make_graph(nodes, "convolutions", values[:1], values[1:], kernels)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)


def test_no_model_is_faster_than_the_machine(make_bundle):
    """On some processors convolutions run at 1.7 times the rate of a large matrix product."""
    bundle = make_bundle(graph=convolutions(32, 4))
    result = bench(bundle, (96, 96), frames=12, provider="cpu", threads=1).result()
    assert 0.2 < result["share_of_limit"] <= 1
    assert result["limit_gflops"] >= result["gemm_gflops"]
    assert result["limit_reached_by"]


def test_peak_memory_never_falls():
    # In a process of its own: the peak of this one may lie anywhere above.
    program = (
        "import numpy as np\n"
        "from quietscope.inference.runtime.benchmark import peak_rss_mb\n"
        "before = peak_rss_mb()\n"
        "block = np.ones(20_000_000)\n"
        "with_block = peak_rss_mb()\n"
        "assert with_block >= before + 0.5 * block.nbytes / 1e6, (before, with_block)\n"
        "del block\n"
        # The kernel counts pages in batches per processor: exact to some hundred kB.
        "assert peak_rss_mb() >= 0.99 * with_block\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
