"""What every denoiser has to do. A new one subclasses `DenoiserContract`."""

from __future__ import annotations

import importlib.util
import threading
from abc import ABC, abstractmethod

import numpy as np
import pytest

from quietscope.inference.classical.denoiser import ClassicalDenoiser
from quietscope.inference.denoiser import Denoiser
from quietscope.inference.errors import FrameMismatchError, InferenceError
from quietscope.inference.runtime.onnx_denoiser import OnnxDenoiser
from quietscope.inference.runtime.tiling import TiledDenoiser


class DenoiserContract(ABC):
    """Shape, type, odd sizes, strides, read-only input, extreme values, threads, closing."""

    context_frames = 0
    pixel_type = np.uint16
    rounding = 0.0
    """Relative difference between two runs; 0 where sums are always taken in one order."""

    @abstractmethod
    def build(self, shape):
        """Return a denoiser for this frame shape."""

    @pytest.fixture(autouse=True)
    def _bundles(self, make_bundle, tmp_path):
        path = tmp_path / "model"
        self.bundle = lambda: (
            path
            if path.exists()
            else make_bundle(
                context_frames=self.context_frames, pixel_type=np.dtype(self.pixel_type).name
            )
        )

    def observations(self, shape, seed=0):
        random = np.random.default_rng(seed)
        return random.poisson(200, (1 + self.context_frames, *shape)).astype(self.pixel_type)

    def denoised(self, denoiser, observations):
        out = np.full((2, *denoiser.frame_shape), np.nan, np.float32)
        denoiser.denoise(observations, out)
        return out

    def assert_same(self, found, expected):
        np.testing.assert_allclose(found, expected, rtol=self.rounding)

    def test_it_is_a_denoiser(self):
        denoiser = self.build((32, 48))
        assert isinstance(denoiser, Denoiser)
        assert denoiser.frame_shape == (32, 48)
        assert denoiser.context_frames == self.context_frames
        denoiser.close()

    @pytest.mark.parametrize("shape", [(32, 48), (33, 47), (31, 64), (128, 17)])
    def test_every_shape_is_filled(self, shape):
        denoiser = self.build(shape)
        seen = self.observations(shape)
        out = self.denoised(denoiser, seen)
        assert np.isfinite(out).all()
        assert (out[1] >= 0).all()
        assert out[0].mean() == pytest.approx(seen.mean(), rel=0.05)
        denoiser.close()

    def test_it_changes_nothing_it_reads(self):
        denoiser = self.build((32, 48))
        seen = self.observations((32, 48))
        before = seen.copy()
        seen.flags.writeable = False
        self.denoised(denoiser, seen)
        np.testing.assert_array_equal(seen, before)
        denoiser.close()

    def test_strides_do_not_matter(self):
        denoiser = self.build((32, 48))
        wide = self.observations((64, 96))
        view = wide[:, ::2, 95::-2]
        assert not view.flags.c_contiguous
        expected = self.denoised(denoiser, np.ascontiguousarray(view))
        self.assert_same(self.denoised(denoiser, view), expected)
        larger = np.zeros((2, 32, 96), np.float32)
        denoiser.denoise(view, larger[:, :, ::2])
        self.assert_same(larger[:, :, ::2], expected)
        assert not larger[:, :, 1::2].any()
        denoiser.close()

    def test_the_same_frame_gives_the_same_answer(self):
        denoiser = self.build((32, 48))
        first = self.denoised(denoiser, self.observations((32, 48)))
        self.denoised(denoiser, self.observations((32, 48), seed=1))
        self.assert_same(self.denoised(denoiser, self.observations((32, 48))), first)
        denoiser.close()

    @pytest.mark.parametrize("value", ["dark", "saturated", "both"])
    def test_extreme_values(self, value):
        denoiser = self.build((32, 48))
        seen = np.zeros((1 + self.context_frames, 32, 48), self.pixel_type)
        top = np.iinfo(self.pixel_type).max
        if value == "saturated":
            seen[:] = top
        elif value == "both":
            seen[:, ::2] = top
        out = self.denoised(denoiser, seen)
        assert np.isfinite(out).all()
        margin = 0.2 * top if value == "both" else 1e-3 * top
        assert out[0].min() >= seen.min() - margin
        assert out[0].max() <= seen.max() + margin
        denoiser.close()

    def test_it_runs_in_another_thread_than_it_was_built_in(self):
        denoiser = self.build((32, 48))
        expected = self.denoised(denoiser, self.observations((32, 48)))
        found = []
        worker = threading.Thread(
            target=lambda: found.append(self.denoised(denoiser, self.observations((32, 48))))
        )
        worker.start()
        worker.join()
        self.assert_same(found[0], expected)
        denoiser.close()

    def test_frames_that_do_not_fit(self):
        denoiser = self.build((32, 48))
        good = np.zeros((2, 32, 48), np.float32)
        with pytest.raises(FrameMismatchError):
            denoiser.denoise(self.observations((32, 47)), good)
        with pytest.raises(FrameMismatchError):
            denoiser.denoise(self.observations((32, 48)), good[:, :, :-1])
        denoiser.close()

    def test_closing_twice(self):
        denoiser = self.build((32, 48))
        denoiser.close()
        denoiser.close()
        with pytest.raises(InferenceError, match="closed"):
            self.denoised(denoiser, self.observations((32, 48)))


class TestOnnxOnCpu(DenoiserContract):
    def build(self, shape):
        return OnnxDenoiser(self.bundle(), shape, provider="cpu", threads=1)


class TestOnnxOfEightBitsWithContext(TestOnnxOnCpu):
    context_frames = 2
    pixel_type = np.uint8


@pytest.mark.gpu
class TestOnnxOnCuda(DenoiserContract):
    def build(self, shape):
        return OnnxDenoiser(self.bundle(), shape, provider="cuda")


@pytest.mark.gpu
class TestOnnxOnTensorRT(DenoiserContract):
    def build(self, shape):
        pytest.importorskip("tensorrt_libs", reason="TensorRT is not installed")
        return OnnxDenoiser(self.bundle(), shape, provider="tensorrt")


class TestTiles(DenoiserContract):
    def build(self, shape):
        return TiledDenoiser(self.bundle(), shape, tile=24, provider="cpu", threads=1)


class TestTilesWithContext(TestTiles):
    context_frames = 1


class _Classical(DenoiserContract):
    method = "identity"

    def build(self, shape):
        return ClassicalDenoiser(self.method, shape)


class TestIdentity(_Classical):
    method = "identity"


class TestGaussian(_Classical):
    method = "gaussian"


class TestMedian(_Classical):
    method = "median"


class TestBilateral(_Classical):
    method = "bilateral"


@pytest.mark.skipif(importlib.util.find_spec("pywt") is None, reason="needs PyWavelets")
class TestWavelet(_Classical):
    method = "wavelet"


class TestNonLocalMeans(_Classical):
    method = "non-local-means"


class TestMean(_Classical):
    method = "mean"


class TestWiener(_Classical):
    method = "wiener"


class TestLee(_Classical):
    method = "lee"


class TestLeeSigma(_Classical):
    method = "lee-sigma"


class TestMeanOfFrames(_Classical):
    context_frames = 2

    def build(self, shape):
        return ClassicalDenoiser("gaussian", shape, frames=3)


class TestTotalVariation(_Classical):
    method = "total-variation"


@pytest.mark.skipif(importlib.util.find_spec("bm3d") is None, reason="needs bm3d")
@pytest.mark.long
class TestBM3D(_Classical):
    method = "bm3d"
    rounding = 1e-4  # its threads add in any order
