"""Several channels in one picture: colours, their sum, which take part. Knows no window."""

import itertools

import numpy as np
import pytest
from skimage.color import deltaE_ciede2000, rgb2lab

from quietscope.acquisition.preview.display_levels import Limits, VisiblePart
from quietscope.acquisition.preview.mailbox import Picture
from quietscope.acquisition.preview.merge import MERGE_COLOURS, Channels, Layer, added_up
from quietscope.acquisition.preview.model import Grade, Reading, merged_verdict
from quietscope.acquisition.preview.style import BLACK, SATURATED_COLOUR, coloured_table

WHOLE = VisiblePart(slice(0, 4, 1), slice(0, 6, 1))
DEFICIENCIES = {
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
}
"""Machado et al. 2009, severity 1.0; of linear RGB. One man in twelve is near one of the two."""


def picture(channel, value=100.0, shape=(4, 6), **figures):
    raw = np.full(shape, value, np.uint16)
    return Picture(raw, raw.astype(np.float32), None, {"channel": channel, **figures})


def layer(values, colour, limits=(0.0, 254.0), **more):
    return Layer(values, Limits(*limits), coloured_table(BLACK, colour), **more)


def least_difference(colours, matrix=None):
    """Return the smallest CIEDE2000 difference of any two colours, as such an eye sees them."""
    rgb = np.asarray(colours, float) / 255
    if matrix is not None:
        linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
        seen = np.clip(linear @ np.array(matrix).T, 0, 1)
        rgb = np.where(seen <= 0.0031308, seen * 12.92, 1.055 * seen ** (1 / 2.4) - 0.055)
    lab = rgb2lab(rgb)
    return min(deltaE_ciede2000(a, b) for a, b in itertools.combinations(lab, 2))


@pytest.mark.parametrize("name", DEFICIENCIES)
def test_colour_blind_eyes_tell_the_channels_apart(name):
    matrix = DEFICIENCIES[name]
    first_two = [*MERGE_COLOURS[:2], (255, 255, 255)]  # and where both are
    assert least_difference(first_two, matrix) > 25
    assert least_difference(MERGE_COLOURS, matrix) > 15
    red_and_green = [(255, 0, 0), (0, 255, 0), (255, 255, 0)]
    assert least_difference(red_and_green, matrix) < 10, "the usual choice fails here"


def test_light_adds_up_and_is_cut_off_at_white():
    ramp = np.tile(np.arange(6, dtype=np.uint16) * 50, (4, 1))
    magenta, green = MERGE_COLOURS[:2]
    both = added_up([layer(ramp, magenta), layer(ramp, green)], WHOLE)
    assert both.shape == (4, 6, 3)
    assert both.dtype == np.uint8
    np.testing.assert_array_equal(both[..., 0], both[..., 1])  # equal light is grey
    np.testing.assert_allclose(both[0, :, 0], [0, 50, 100, 150, 200, 250], atol=1)
    twice = added_up([layer(ramp, green), layer(ramp, green)], WHOLE)
    np.testing.assert_allclose(twice[0, :, 1], [0, 100, 200, 255, 255, 255], atol=2)


def test_each_channel_has_its_own_contrast():
    values = np.full((4, 6), 150, np.uint16)
    dim = layer(values, (255, 0, 255), limits=(100.0, 1100.0))
    bright = layer(values, (0, 255, 0), limits=(100.0, 150.0))
    red, green, _ = added_up([dim, bright], WHOLE)[0, 0].tolist()
    assert red == pytest.approx(13, abs=1)
    assert green == 255


def test_a_pixel_that_is_saturated_in_one_channel_is_marked():
    values = np.full((4, 6), 100, np.uint16)
    raw = values.copy()
    raw[1, 2] = 4095
    marked = layer(values, MERGE_COLOURS[0], raw=raw, saturation_adu=4095)
    shown = added_up([marked, layer(values, MERGE_COLOURS[1])], WHOLE)
    assert tuple(shown[1, 2]) == SATURATED_COLOUR
    assert np.count_nonzero((shown == SATURATED_COLOUR).all(axis=-1)) == 1


def merging(*pictures):
    channels = Channels()
    channels.note(str(shown.figures["channel"]) for shown in pictures)
    channels.merging = True
    for shown in pictures:
        channels.of(shown.figures["channel"]).take(shown, 0.0)
    channels.turn_to(pictures[0].figures["channel"])
    return channels


def names(channels):
    return [view.name for view, _ in channels.merged()]


def test_all_channels_are_seen_until_one_is_left_out():
    channels = merging(picture("GFP"), picture("RFP"), picture("DAPI"))
    assert names(channels) == ["GFP", "RFP", "DAPI"]
    channels.toggle("RFP")
    assert names(channels) == ["GFP", "DAPI"]
    channels.toggle("GFP")  # the one that is looked at stays
    assert names(channels) == ["GFP", "DAPI"]
    colours = {view.name: tuple(table[254]) for view, table in channels.merged()}
    assert colours == {"GFP": MERGE_COLOURS[0], "DAPI": MERGE_COLOURS[2]}, "its own all the time"
    channels.merging = False
    assert names(channels) == ["GFP"]


def test_a_colour_that_was_chosen_is_kept_in_the_sum_and_grey_is_none():
    channels = merging(picture("GFP"), picture("RFP"))
    channels.of("RFP").table = "Orange"
    channels.of("GFP").table = "Grey, inverted"
    (_, first), (_, second) = channels.merged()
    assert tuple(first[254]) == MERGE_COLOURS[0]
    assert second[200, 0] > second[200, 2]  # orange


@pytest.mark.parametrize(
    "other",
    [picture("RFP", shape=(8, 6)), picture("RFP", position=1)],
    ids=["another size", "another stage position"],
)
def test_a_channel_of_another_place_is_not_laid_over(other):
    assert names(merging(picture("GFP", position=0), other)) == ["GFP"]


def test_the_past_is_merged_without_losing_the_present():
    channels = merging(picture("GFP", 1), picture("RFP", 2), picture("DAPI", 3))
    before = channels.with_pictures([picture("GFP", 7), picture("RFP", 8)])
    assert [view.picture.raw[0, 0] for view, _ in before.merged()] == [7, 8]
    assert [view.picture.raw[0, 0] for view, _ in channels.merged()] == [1, 2, 3]


def test_the_verdict_of_a_sum_is_that_of_its_worst_channel_by_name():
    good = Reading("Verdict", "", "Noise.", Grade.GOOD, "You can trust this picture")
    bad = Reading("Verdict", "", "Detail.", Grade.BAD, "Do not rely on detail")
    assert merged_verdict({"GFP": good, "RFP": good}) == good
    assert merged_verdict({"": bad}).headline == "Do not rely on detail"
    assert merged_verdict({"GFP": good, "RFP": bad}).headline == "RFP: Do not rely on detail"
