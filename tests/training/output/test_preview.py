"""A run in a terminal: the tile shows what the model makes of a held-out frame, pixel by pixel."""

from __future__ import annotations

import io
import time

import numpy as np
import pytest
from rich.console import Console
from rich.text import Text

from quietscope.calibration.bootstrap import bootstrap_noise_model
from quietscope.storage.stack import stack_from_array
from quietscope.training import display
from quietscope.training.data.recordings import load_recordings
from quietscope.training.options import TrainingOptions
from quietscope.training.output.preview import TILE, Preview
from quietscope.training.output.report import write_report
from quietscope.training.output.usefulness import Usefulness
from quietscope.training.progress import TrainingProgress
from quietscope.training.train import fit

pytestmark = pytest.mark.usefixtures("one_thread")


def terminal(width=80, height=24, *, colours="truecolor", file=None):
    return Console(
        width=width,
        height=height,
        color_system=colours,
        force_terminal=True,
        file=file or io.TextIOWrapper(io.BytesIO(), encoding="utf-8"),
        legacy_windows=False,
    )


def scene(frames=10, shape=(160, 200)):
    """A bright square, of 40 pixels at (96, 128); the rest is empty."""
    signal = np.full(shape, 20.0)
    signal[96:136, 128:168] = 200
    return np.broadcast_to(signal, (frames, *shape))


@pytest.fixture(scope="module")
def progresses():
    pixels = np.random.default_rng(0).poisson(scene()).astype(np.uint16)
    stack, seen = stack_from_array(pixels), []
    options = TrainingOptions(preset="fast", steps=240, batch=4, patch=32)
    recordings = load_recordings([stack], context_frames=0, patch=32, memory_mib=64)
    fit(
        recordings,
        bootstrap_noise_model([stack]),
        options,
        started=time.monotonic(),
        on_progress=seen.append,
    )
    return seen, pixels


def test_the_tile_is_renewed_at_each_validation(progresses):
    seen, _ = progresses
    previews = [state.preview for state in seen if state.preview is not None]
    assert len({id(preview) for preview in previews}) == 12
    assert seen[-1].progress == 1.0
    assert seen[-1].preview is previews[-1]
    assert np.isfinite([state.loss for state in seen]).all()


def test_the_tile_lies_on_structure_of_a_held_out_frame_and_gets_clean(progresses):
    seen, pixels = progresses
    preview = seen[-1].preview
    assert preview.raw.shape == preview.denoised.shape == preview.uncertainty.shape == (TILE, TILE)
    windows = np.lib.stride_tricks.sliding_window_view(pixels[9], (TILE, TILE))
    (y, x), *_ = np.argwhere((windows == preview.raw).all(axis=(2, 3)))
    truth = scene()[9][y : y + TILE, x : x + TILE]
    assert truth.max() == 200
    first = next(state.preview for state in seen if state.preview is not None)

    def error(image):
        return np.mean((image - truth) ** 2)

    assert error(preview.denoised) < 0.5 * error(preview.raw)
    assert error(preview.denoised) < error(first.denoised)


def grid_of(table):
    """The pictures of the drawn table, as grey levels."""
    pictures = []
    for column in table.columns:
        _, picture = column._cells
        lines = picture.split("\n")
        upper = [[span.style.color.triplet.red for span in line.spans] for line in lines]
        lower = [[span.style.bgcolor.triplet.red for span in line.spans] for line in lines]
        pictures.append(np.stack([upper, lower], axis=1).reshape(2 * len(lines), -1))
    return pictures


def made(shape=(TILE, TILE)):
    rng = np.random.default_rng(0)
    signal = np.linspace(100, 300, shape[0] * shape[1]).reshape(shape)
    return Preview(
        raw=rng.poisson(signal).astype(np.uint16),
        denoised=signal.astype(np.float32),
        uncertainty=np.ones(shape, np.float32),
    )


def test_every_pixel_is_drawn_where_the_terminal_is_large():
    raw, denoised = grid_of(display.tile(made(), terminal(140, 45)))
    assert raw.shape == denoised.shape == (TILE, TILE)
    assert (np.diff(denoised.ravel()) >= 0).all()
    assert denoised.min() == 0
    assert denoised.max() == 255
    # Both in the same greys: what differs is noise.
    assert np.corrcoef(raw.ravel(), denoised.ravel())[0, 1] > 0.9


def test_the_middle_is_drawn_where_it_is_small_and_nothing_where_there_is_no_room():
    raw, _ = grid_of(display.tile(made(), terminal(80, 24)))
    assert raw.shape == (36, 39)
    assert display.tile(made(), terminal(30, 24)) == ""
    assert display.tile(made(), terminal(80, 10)) == ""


def test_nothing_is_drawn_without_greys_or_half_blocks():
    assert display.tile(made(), terminal(colours="standard")) == ""
    latin = io.TextIOWrapper(io.BytesIO(), encoding="latin-1")
    assert display.tile(made(), terminal(file=latin)) == ""


def state(preview=None):
    return TrainingProgress(40, 0.5, 12.0, 0.25, 0.125, preview)


def test_the_terminal_shows_losses_time_and_tile(monkeypatch):
    file = io.TextIOWrapper(io.BytesIO(), encoding="utf-8")
    console = terminal(100, 40, file=file)
    monkeypatch.setattr(display, "stderr", console)
    monkeypatch.setattr("quietscope.reporting.console.stderr", console)
    with display.shown("training") as show:
        show(state(made()))
    file.seek(0)
    text = Text.from_ansi(file.read()).plain
    assert "step 40, loss 0.2500, held out 0.1250" in text
    assert "50/100" in text
    assert "denoised" in text
    assert display.UPPER_HALF in text


@pytest.mark.parametrize("rank", ["0", "1"])
def test_a_log_file_and_a_helping_process_show_nothing(monkeypatch, capsys, rank):
    file = io.StringIO()
    monkeypatch.setattr(
        display, "stderr", Console(file=file, force_terminal=rank == "1", legacy_windows=False)
    )
    monkeypatch.setenv("RANK", rank)
    with display.shown("training") as show:
        show(state(made()))
    assert file.getvalue() == ""
    assert capsys.readouterr() == ("", "")


def test_the_report_holds_frame_tile_and_losses(tmp_path):
    losses = [
        {"step": 10 * n, "seconds": n, "loss": 9 / n, "validation_loss": 8 / n}
        for n in range(1, 6)
    ]
    write_report(
        tmp_path / "report.html",
        title="A model",
        facts={"trained on": "<my & stack>", "steps": 50, "seconds": "5.0"},
        checks=[("red", "worth using", "it is not")],
        usefulness=Usefulness(9.0, 8.0, 7.0, 1.25, None, 4),
        losses=losses,
        frame=made((300, 280)),
        tile=made(),
        coverage={"50": 0.45, "68": 0.61, "95": 0.91},
    )
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "&lt;my &amp; stack&gt;" in page
    assert "no better than the raw frames" in page
    assert "failed" in page
    assert "45 %, 61 %, 91 % lie within what is stated" in page
    assert page.count("data:image/png;base64,") == 4
