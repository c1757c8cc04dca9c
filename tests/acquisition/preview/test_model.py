"""What the preview says, tested without Qt: lights, sentences, state, contrast, greys."""

import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from quietscope.acquisition.preview.display_levels import (
    CONTRAST_RULES,
    GREYS,
    SATURATED,
    Limits,
    SharedContrast,
    histogram,
    histogram_edges,
    nice_scale_bar,
    percentile_limits,
    saturation,
    screen_greys,
    symmetric_limits,
    telling_row,
    visible_part,
)
from quietscope.acquisition.preview.model import (
    FigureAverage,
    Grade,
    device_words,
    run_lines,
    speed_readings,
    trust_readings,
    verdict,
)
from quietscope.acquisition.preview.stream_watch import STALL_PATIENCE_S, StreamState, StreamWatch
from quietscope.acquisition.preview.wording import duration, percent, shortened

GOOD = {
    "findings": [],
    "training_record": False,
    "residual_explained": 0.98,
    "residual_correlation": 0.01,
    "uncertainty_adu_median": 2.0,
    "saturated_share": 0.0,
}


FIGURES = {
    "residual_explained": "What was removed",
    "residual_correlation": "Pattern in it",
    "uncertainty_adu_median": "Uncertainty",
    "saturated_share": "Saturation",
}


def lights(**changes):
    readings = trust_readings({**GOOD, **changes}, 100.0)
    return {reading.name: reading.grade for reading in readings}


def test_the_logic_needs_no_qt():
    code = (
        "import sys; sys.modules['PySide6'] = None; sys.modules['pyqtgraph'] = None\n"
        "import quietscope.acquisition.preview.model\n"
        "import quietscope.acquisition.preview.display_levels\n"
        "import quietscope.acquisition.preview.link, quietscope.acquisition.preview.process\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_a_picture_is_not_trusted_where_the_cameras_noise_is_not_known():
    """As of a model that was imported without a noise model."""
    said = verdict(trust_readings({**GOOD, "residual_explained": None}, 100.0))
    assert said.grade is Grade.UNKNOWN
    assert said.headline == "Not judged: noise not known"
    bad = {**GOOD, "residual_explained": None, "saturated_share": 0.5}
    assert verdict(trust_readings(bad, 100.0)).grade is Grade.BAD


def test_a_good_picture_is_trusted():
    readings = trust_readings({**GOOD, "training_record": True}, 100.0)
    assert {reading.grade for reading in readings} == {Grade.GOOD}
    judged = verdict(readings)
    assert judged.grade is Grade.GOOD
    assert judged.headline == "You can trust this picture"


@pytest.mark.parametrize(
    ("figure", "values", "expected"),
    [
        ("residual_explained", (1.0, 0.91), Grade.GOOD),
        ("residual_explained", (0.85, 1.6), Grade.CARE),
        ("residual_explained", (0.5, 0.01), Grade.BAD),
        ("residual_explained", (None, math.nan, 0.0), Grade.UNKNOWN),
        # Whatever smooths makes neighbours differ: that alone is no loss.
        ("residual_correlation", (0.0, -0.17, 0.05), Grade.GOOD),
        ("residual_correlation", (-0.3, 0.1), Grade.CARE),
        ("residual_correlation", (0.3, 1.0), Grade.BAD),
        ("uncertainty_adu_median", (0.1, 7.9), Grade.GOOD),
        ("uncertainty_adu_median", (12.0,), Grade.CARE),
        ("uncertainty_adu_median", (40.0, 1e9), Grade.BAD),
        ("uncertainty_adu_median", (None, 0.0), Grade.UNKNOWN),
        ("saturated_share", (0, 1e-6), Grade.GOOD),
        ("saturated_share", (1e-3,), Grade.CARE),
        ("saturated_share", (0.02, 1.0), Grade.BAD),
    ],
)
def test_each_figure_has_its_light(figure, values, expected):
    for value in values:
        found = lights(**{figure: value})
        assert found[FIGURES[figure]] is expected, (figure, value)
        if expected is not Grade.UNKNOWN:
            judged = verdict(trust_readings({**GOOD, figure: value}, 100.0))
            assert judged.grade is expected, "the worst figure decides"
            assert judged.headline
            assert judged.sentence


@given(
    st.dictionaries(
        st.sampled_from(
            [*GOOD, "frames_recorded", "frames_skipped_live", "latency_ms", "provider"]
        ),
        st.one_of(st.none(), st.floats(), st.integers(), st.text(), st.booleans()),
    ),
    st.floats(1e-3, 1e9),
)
def test_whatever_comes_in_words_come_out(figures, span):
    readings = trust_readings(figures, span)
    for reading in [*readings, verdict(readings), *speed_readings(figures)]:
        assert "nan" not in reading.value
        assert "inf" not in reading.value
        assert "None" not in reading.value
    run_lines(figures)


def test_nothing_known_is_not_called_good():
    assert verdict(trust_readings({}, 0.0)).grade is Grade.UNKNOWN


def test_skips_are_told_with_what_becomes_of_them():
    skipped = speed_readings({"frames_recorded": 1000, "frames_skipped_live": 25})[-1]
    assert skipped.value == "25 (2.5 %)"
    assert "denoised afterwards" in skipped.sentence
    assert speed_readings({"frames_recorded": 9, "frames_skipped_live": 0})[-1].value == "none"


def test_images_that_never_came_are_an_alarm():
    recorded = speed_readings({"frames_recorded": 1000, "frames_missing": 12})[2]
    assert (recorded.value, recorded.grade) == ("1,000, 12 lost", Grade.BAD)
    assert "never came" in recorded.sentence
    for missing in (None, 0):
        recorded = speed_readings({"frames_recorded": 1000, "frames_missing": missing})[2]
        assert (recorded.value, recorded.grade) == ("1,000", Grade.UNKNOWN)


def test_the_run_is_named_as_a_person_would():
    lines = dict(
        run_lines(
            {
                "model": "C:\\models\\gfp-lattice\\",
                "provider": "CUDAExecutionProvider",
                "elapsed_s": 125.2,
                "channel": None,
            }
        )
    )
    assert lines == {
        "Model": "gfp-lattice",
        "Runs on": "NVIDIA graphics card",
        "Running for": "2 min 05 s",
    }
    assert device_words("cpu") == device_words("CPUExecutionProvider")
    assert device_words("SomethingNew") == "SomethingNew"
    assert len(shortened("x" * 100, 30)) == 30


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.0034, "3.4 ms"),
        (0.0964, "96 ms"),
        (0.99999, "1.0 s"),
        (3.44, "3.4 s"),
        (59.7, "60 s"),
        (61, "1 min 01 s"),
        (3599.9, "1 h 00 min"),
        (3 * 3600 + 125, "3 h 02 min"),
    ],
)
def test_durations_are_readable(seconds, words):
    assert duration(seconds) == words


@pytest.mark.parametrize(
    ("share", "words"),
    [(0, "0 %"), (5e-5, "under 0.01 %"), (0.0012, "0.12 %"), (0.025, "2.5 %"), (0.5, "50 %")],
)
def test_shares_are_readable(share, words):
    assert percent(share) == words


def test_averages_follow_and_do_not_jump():
    average = FigureAverage()
    average.add({"latency_ms": 10.0, "frames_recorded": 1}, 0.04)
    average.add({"latency_ms": 110.0, "frames_recorded": 2}, 0.04)
    assert 10 < average.figures["latency_ms"] < 15
    assert average.figures["frames_recorded"] == 2
    for _ in range(400):
        average.add({"latency_ms": 110.0}, 0.04)
    assert average.figures["latency_ms"] == pytest.approx(110, abs=0.1)
    average.add({"latency_ms": None}, 0.04)
    assert average.figures["latency_ms"] is None


class TestStreamWatch:
    def state(self, watch, now, ended=False, alive=True):
        return watch.state(now, ended=ended, writer_alive=alive)

    def test_waits_lives_stalls_and_recovers(self):
        watch = StreamWatch()
        assert self.state(watch, 100.0) is StreamState.WAITING
        for frame in range(50):
            watch.arrived(frame * 0.04)
        assert self.state(watch, 2.5) is StreamState.LIVE
        assert self.state(watch, 2.0 + STALL_PATIENCE_S + 0.5) is StreamState.STALLED
        words, grade = watch.words(StreamState.STALLED, 14.2)
        assert words == "No new image for 12 s"
        assert grade is Grade.CARE
        watch.arrived(20.0)
        assert self.state(watch, 20.1) is StreamState.LIVE

    def test_a_slow_time_lapse_is_not_stalled(self):
        watch = StreamWatch()
        for minute in range(5):
            watch.arrived(60.0 * minute)
        assert self.state(watch, 240 + 59) is StreamState.LIVE
        assert self.state(watch, 240 + 200) is StreamState.STALLED

    def test_the_end_and_a_crash_are_told_apart(self):
        watch = StreamWatch()
        watch.arrived(0.0)
        assert self.state(watch, 1.0, ended=True) is StreamState.ENDED
        assert self.state(watch, 1.0, ended=True, alive=False) is StreamState.ENDED
        assert self.state(watch, 1.0, alive=False) is StreamState.LOST
        assert watch.words(StreamState.LOST, 1.0)[1] is Grade.BAD


class TestContrast:
    def test_limits_come_from_the_denoised_range_and_are_shared(self):
        random = np.random.default_rng(0)
        signal = np.linspace(100, 300, 256 * 256).reshape(256, 256).astype(np.float32)
        contrast = SharedContrast()
        low, high = contrast.follow(signal, 0.04)
        assert 100 <= low < 102
        assert 298 < high <= 300
        noisy = signal + random.normal(0, 50, signal.shape)
        assert percentile_limits(noisy, CONTRAST_RULES[0]).span > 1.5 * (high - low)

    def test_they_follow_small_changes_slowly_and_large_ones_at_once(self):
        image = np.linspace(0, 100, 10_000).reshape(100, 100)
        contrast = SharedContrast()
        before = contrast.follow(image, 0.04)
        after = contrast.follow(image * 1.2, 0.04)
        assert before.high < after.high < before.high + 2
        for _ in range(200):
            after = contrast.follow(image * 1.2, 0.04)
        assert after.high == pytest.approx(1.2 * before.high, rel=0.01)
        assert contrast.follow(image * 10, 0.04).high == pytest.approx(10 * before.high, rel=0.01)

    def test_limits_set_by_hand_stay(self):
        contrast = SharedContrast()
        contrast.set_by_hand(10, 20)
        assert contrast.follow(np.full((9, 9), 1000.0), 1.0) == Limits(10, 20)
        contrast.set_by_hand(20, 10)
        assert contrast.limits.span > 0
        contrast.set_automatic(CONTRAST_RULES[2])
        assert contrast.follow(np.array([[0.0, 7.0]]), 0.04) == Limits(0, 7)

    @pytest.mark.parametrize(
        "image",
        [
            np.zeros((4, 4), np.uint8),
            np.full((4, 4), 65535, np.uint16),
            np.full((4, 4), np.nan, np.float32),
            np.array([[np.inf, -np.inf, np.nan, 3.0]], np.float32),
        ],
    )
    def test_flat_and_broken_images_have_limits(self, image):
        for contrast_rule in CONTRAST_RULES:
            limits = percentile_limits(image, contrast_rule)
            assert limits.span > 0
            assert screen_greys(image, limits).shape == image.shape
        assert symmetric_limits(image).span > 0
        edges = histogram_edges(image, None)
        assert (histogram(image, edges) >= 0).all()


class TestGreys:
    def test_black_white_and_what_lies_between(self):
        image = np.array([[5, 10, 15, 20, 30]], np.uint16)
        greys = screen_greys(image, Limits(10, 20))
        assert greys.tolist() == [[0, 0, GREYS // 2, GREYS - 1, GREYS - 1]]
        assert image.tolist() == [[5, 10, 15, 20, 30]], "the image is not changed"

    def test_saturated_pixels_stand_out_in_both_images(self):
        raw = np.array([[10, 255]], np.uint8)
        marked = raw >= saturation("uint8", None)
        assert screen_greys(raw, Limits(0, 255), marked)[0, 1] == SATURATED
        assert screen_greys(np.array([[9.5, 9.5]]), Limits(0, 1e4), marked)[0, 1] == SATURATED
        assert (screen_greys(np.array([[1e9]]), Limits(0, 1)) < SATURATED).all()

    def test_saturation_is_the_cameras_or_that_of_its_pixels(self):
        assert saturation("uint16", 4095) == 4095
        assert saturation("uint16", None) == 65535
        assert saturation("float32", None) == math.inf


class TestVisiblePart:
    def test_a_large_image_is_thinned_to_the_screen(self):
        part = visible_part((2048, 2048), (0, 2048), (0, 2048), (500, 500))
        assert part.rows.step == part.columns.step == 4
        assert part.rectangle == (0, 0, 2048, 2048)

    def test_zoomed_in_nothing_is_left_out(self):
        part = visible_part((2048, 2048), (100.5, 200.5), (300, 400), (500, 500))
        assert part.columns == slice(100, 201, 1)
        assert part.rectangle == (100, 300, 101, 100)

    @given(
        st.tuples(st.integers(1, 300), st.integers(1, 300)),
        st.floats(-1000, 1000),
        st.floats(0.1, 3000),
        st.tuples(st.integers(0, 100), st.integers(0, 100)),
    )
    def test_there_is_always_something_to_draw_where_it_belongs(self, shape, left, width, screen):
        part = visible_part(shape, (left, left + width), (left, left + width), screen)
        image = np.arange(shape[0] * shape[1]).reshape(shape)
        drawn = image[part.rows, part.columns]
        assert drawn.size
        x, y, wide, high = part.rectangle
        assert (wide, high) == (
            drawn.shape[1] * part.columns.step,
            drawn.shape[0] * part.rows.step,
        )
        assert drawn[0, 0] == image[int(y), int(x)]


def test_the_histogram_counts_the_same_values_for_both_images():
    raw = np.array([[0, 0, 1, 5]], np.uint8)
    edges = histogram_edges(raw, raw.astype(np.float32))
    assert np.array_equal(histogram(raw, edges), histogram(raw.astype(np.float32), edges))
    assert histogram(raw, edges)[0] == pytest.approx(np.log10(3))


def test_the_first_profile_goes_through_the_cell():
    image = np.zeros((100, 100), np.float32)
    image[40:44, 30:60] = 10
    assert 40 <= telling_row(image) < 44
    assert telling_row(np.zeros((1, 1), np.float32)) == 0


@given(st.floats(1e-3, 1e6))
def test_scale_bars_are_round_and_fit(view_width_um):
    length = nice_scale_bar(view_width_um)
    assert 0.05 * view_width_um < length < 0.21 * view_width_um
    digit = length / 10.0 ** math.floor(math.log10(length * 1.0001))
    assert any(digit == pytest.approx(nice) for nice in (1, 2, 5))


def test_the_first_cause_gives_the_sentence_and_the_worst_the_colour():
    gain = {"cause": "gain", "subject": "What was removed", "grade": "care", "headline": "Gain"}
    lost = {"cause": "lost", "subject": "Lost or invented", "grade": "bad", "headline": "Lost"}
    readings = trust_readings({**GOOD, "training_record": True, "findings": [gain, lost]}, 100.0)
    judged = verdict(readings)
    assert (judged.headline, judged.grade, judged.cause) == ("Gain", Grade.BAD, "gain")


def test_a_figure_that_is_normal_for_its_model_is_no_reason_to_doubt():
    figures = {**GOOD, "training_record": True, "residual_correlation": -0.3}
    assert verdict(trust_readings(figures, 100.0)).grade is Grade.GOOD
    assert (
        verdict(trust_readings({**figures, "training_record": False}, 100.0)).grade is Grade.CARE
    )
