"""Every method's graph does what its network does, and takes frames of any size."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest

from quietscope.inference.graph.receptive_field import receptive_field
from quietscope.training.data.side_inputs import Sample
from quietscope.training.model.estimator import Estimator
from quietscope.training.options import InputPlanes
from quietscope.training.output.export_onnx import LARGEST_RELATIVE_ERROR, export_graph

from .conftest import observed

pytestmark = pytest.mark.usefixtures("one_thread")

METHODS = {
    "n2n": {},
    "n2s": {},
    "student": {},
    "care": {},
    "care plain": {"loss": "plain"},
    "care squared": {"loss": "squared"},
    "dncnn": {},
    "divnoising": {"posterior_samples": 4},
    "tomogan": {},
    "hdn": {"posterior_samples": 4},
}


@pytest.mark.long
@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", METHODS)
def test_the_graph_does_what_the_network_does(truth, learner_of_noise, tmp_path, name):
    learner = learner_of_noise(name.split()[0], InputPlanes(context_frames=1), **METHODS[name])
    network = learner.exported(learner.network.eval())
    estimator = Estimator(network, learner.posterior, centre_adu=120.0, scale_adu=20.0)
    sample = Sample(observed(np.stack([truth, truth])))
    assert export_graph(estimator, tmp_path / "model.onnx", [sample]) < LARGEST_RELATIVE_ERROR
    assert receptive_field(tmp_path / "model.onnx").stride_px % network.period == 0
    session = onnxruntime.InferenceSession(
        str(tmp_path / "model.onnx"), providers=["CPUExecutionProvider"]
    )
    for shape in ((1, 2, 33, 47), (2, 2, 5, 6), (1, 2, 40, 1)):
        pixels = observed(np.full(shape, 130.0))
        for output in session.run(None, {"observations": pixels}):
            assert output.shape == (shape[0], 1, *shape[2:])
            assert np.isfinite(output).all()
