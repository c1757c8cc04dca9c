"""A trained bundle says what its held-out frames looked like, and is judged by it."""

from __future__ import annotations

import numpy as np

from quietscope.acquisition.microscope.specimen import CameraLaw, Specimen
from quietscope.calibration.noise_files import load_noise_model
from quietscope.inference.bundle import open_bundle
from quietscope.inference.runtime.onnx_denoiser import OnnxDenoiser
from quietscope.inference.trust.judge import FrameJudge
from quietscope.inference.trust.noise_variance import NoiseVariance
from quietscope.inference.trust.null import read_reference


def test_frames_like_those_of_the_training_are_as_recorded(trained_bundle):
    bundle = open_bundle(trained_bundle)
    record = read_reference(bundle.trust_reference_path)
    assert record.frames >= 2
    assert {"noise_bright", "removed", "lag_x", "softness"} <= set(record.figures)
    assert {"brightness", "detail", "threads"} <= set(record.domain)

    noise = NoiseVariance(load_noise_model(bundle.noise_model_path))
    judge = FrameJudge.of_bundle(bundle, noise, saturation_adu=65535.0)
    specimen = Specimen((96, 96), CameraLaw(0.5, 100.0, 2.0))
    out = np.empty((2, 96, 96), np.float32)
    with OnnxDenoiser(bundle, (96, 96), provider="cpu") as denoiser:
        for index in range(30, 33):
            raw = specimen.observe(index)
            denoiser.denoise(raw[None], out)
            judged = judge.add(raw, out[0], out[1])
            assert judged.known
            assert judged.good, judged.findings
