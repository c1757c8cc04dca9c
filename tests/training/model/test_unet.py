"""The U-Net: what is computed at a few places alone equals what is computed everywhere."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from quietscope.calibration.noise_model import MixtureTable
from quietscope.training.methods import learner_for
from quietscope.training.model.noise_likelihood import TabulatedNoise
from quietscope.training.model.unet import UNet
from quietscope.training.options import LATTICE_PLANS, InputPlanes, NetworkPlan, TrainingOptions

pytestmark = pytest.mark.usefixtures("one_thread")

SHAPE = (24, 16)


def network(*, inputs=1, depth=2, outer=1, artefact_free=False):
    """A network whose biases are not zero, so that pixels beyond the border would show."""
    torch.manual_seed(1)
    made = UNet(inputs, 2, NetworkPlan(16, depth, outer), artefact_free=artefact_free)
    for parameter in made.parameters():
        if parameter.ndim == 1:
            torch.nn.init.normal_(parameter, std=0.3)
    return made.to(memory_format=torch.channels_last)


def a_few_places(patches):
    """Corners and neighbours among them, in all too few for the whole image to be less work."""
    height, width = SHAPE
    last = patches * height * width - 1
    first = torch.arange(0, last, 127)
    place = torch.cat([first, first + 1, torch.tensor([last])])
    return place // (height * width), place // width % height, place % width


def gradients(made):
    return [parameter.grad.clone() for parameter in made.parameters()]


@pytest.mark.parametrize("preset", LATTICE_PLANS)
def test_every_convolution_but_the_outermost_has_whole_blocks_of_channels(preset):
    """ONNX Runtime takes 16 at a time, and fills up what is less."""
    plan = LATTICE_PLANS[preset]
    made = UNet(8, 2, plan)
    firsts = [block[0] for block in made.encoders]
    assert [c.out_channels for c in firsts] == [
        plan.width * plan.growth**level for level in range(1 + plan.depth)
    ]
    weights = [c for c in made.modules() if isinstance(c, torch.nn.Conv2d)]
    assert all(c.out_channels % 16 == 0 for c in weights if c is not made.head)
    assert made(torch.zeros(1, 8, *SHAPE)).shape == (1, 2, *SHAPE)


@pytest.mark.parametrize("artefact_free", [False, True])
@pytest.mark.parametrize("depth", [1, 2])
@pytest.mark.parametrize("outer", [1, 2])
@pytest.mark.parametrize("inputs", [1, 3])
def test_outputs_and_gradients_at_places_are_those_of_the_whole_image(
    artefact_free, depth, outer, inputs
):
    made = network(inputs=inputs, depth=depth, outer=outer, artefact_free=artefact_free)
    frames = torch.randn(4, inputs, *SHAPE)
    places = patch, y, x = a_few_places(4)
    found = {}
    for name, outputs in {
        "everywhere": made(frames)[patch, :, y, x],
        "there": made.at(frames, places),
    }.items():
        made.zero_grad()
        (outputs**2).mean().backward()
        found[name] = outputs.detach(), gradients(made)
    torch.testing.assert_close(found["there"], found["everywhere"], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("place", [(0, 0), (0, 15), (23, 0), (23, 15), (11, 0), (12, 7)])
@pytest.mark.parametrize("outer", [1, 2])
def test_a_single_place_at_any_border_is_enough(place, outer):
    made = network(outer=outer)
    frames = torch.randn(1, 1, *SHAPE)
    y, x = place
    found = made.at(frames, (torch.tensor([0]), torch.tensor([y]), torch.tensor([x])))
    torch.testing.assert_close(found, made(frames)[:, :, y, x], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("artefact_free", [False, True])
def test_outputs_are_in_full_precision_where_the_network_is_not(artefact_free):
    made = network(outer=2, artefact_free=artefact_free)
    frames = torch.randn(2, 1, *SHAPE)
    places = patch, y, x = a_few_places(2)
    exact = made(frames)[patch, :, y, x]
    with torch.autocast("cpu", torch.bfloat16):
        found, everywhere = made.at(frames, places), made(frames)[patch, :, y, x]
    assert found.dtype == torch.float32
    assert (found != found.bfloat16()).any()  # the head itself did not run in bfloat16
    rounding = (everywhere - exact).abs().max()
    assert (found - everywhere).abs().max() < rounding


@pytest.mark.gpu
def test_a_gpu_computes_the_same_at_places():
    made, frames = network(outer=2), torch.randn(2, 1, *SHAPE)
    places = a_few_places(2)
    expected = made.at(frames, places)
    found = made.cuda().at(frames.cuda(), tuple(place.cuda() for place in places))
    torch.testing.assert_close(found.cpu(), expected, rtol=1e-2, atol=1e-3)


class Photons:
    """Unit gain, no offset, variance 4 ADU² in the dark."""

    signal_range_adu = (0.0, 200.0)
    least_variance_adu2 = 4.0

    def variance(self, signal):
        return signal + 4.0

    def mixture(self, signal):
        return MixtureTable(
            signal=signal,
            weights=np.ones((1, len(signal))),
            offsets=np.zeros((1, len(signal))),
            variances=self.variance(signal)[None],
        )


@pytest.mark.parametrize(
    "choices",
    [
        {"algorithm": "n2v"},
        {"algorithm": "n2v2"},
        {"algorithm": "structn2v", "mask_axis": "x", "mask_span": 2},
        {"algorithm": "pn2v", "samples_from": "n2v", "samples": 4},
        {"algorithm": "pn2v", "samples_from": "n2v2", "samples": 4},
    ],
    ids=lambda choices: "-".join(map(str, choices.values())),
)
def test_a_masked_method_learns_from_the_hidden_pixels_what_the_whole_image_would_teach(choices):
    torch.manual_seed(2)
    noise = TabulatedNoise(
        Photons(),
        low_adu=0.0,
        high_adu=200.0,
        centre_adu=50.0,
        scale_adu=20.0,
        dark_variance_adu2=4.0,
    )
    inputs = InputPlanes(context_frames=1, pixel_maps=True)
    learner = learner_for(TrainingOptions(**choices), noise, inputs)
    frames = torch.randn(2, 3, 32, 32)

    def hidden():
        return learner.hidden(frames, torch.Generator().manual_seed(3))

    with torch.no_grad():
        expected = hidden()
    found = hidden()
    assert found[1].requires_grad
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
