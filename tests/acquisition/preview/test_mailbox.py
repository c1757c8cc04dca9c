"""The mailbox: the newest picture, whole or not at all, between two real processes."""

import errno
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from quietscope.acquisition.preview import mailbox as preview_mailbox
from quietscope.acquisition.preview import mailbox_file
from quietscope.acquisition.preview.mailbox import (
    MAX_PIXELS,
    MailboxError,
    MailboxReader,
    MailboxWriter,
    ReaderState,
)

SHAPE = (700, 900)

HAMMER = """
import sys, time
import numpy as np
from quietscope.acquisition.preview.mailbox import MailboxWriter

shape = (700, 900)
writer = MailboxWriter.create(shape, "uint16", {"title": "hammer"})
print(writer.path, flush=True)
end = time.monotonic() + float(sys.argv[1])
pause = float(sys.argv[2])
count = 0
while time.monotonic() < end:
    count += 1
    value = count % 60000
    writer.put(
        np.full(shape, value, np.uint16),
        np.full(shape, value, np.float32),
        np.full(shape, value, np.float32),
        {"value": value, "padding": "x" * (count % 3000)},
    )
    time.sleep(pause)
writer.end()
print(count, flush=True)
writer.close(remove=True)
"""


@pytest.fixture
def writer(tmp_path):
    made = MailboxWriter.create(SHAPE, "uint16", {"title": "Ünïcode"}, directory=tmp_path)
    yield made
    made.close(remove=True)


def picture(value, shape=SHAPE, pixel_type=np.uint16):
    return np.full(shape, value, pixel_type), np.full(shape, value + 0.5, np.float32)


@pytest.mark.parametrize("pause_s", [0.0, 0.002])
def test_no_picture_is_torn_while_another_process_hammers(pause_s):
    process = subprocess.Popen(
        [sys.executable, "-c", HAMMER, "2.5", str(pause_s)], stdout=subprocess.PIPE, text=True
    )
    path = Path(process.stdout.readline().strip())
    reader = MailboxReader(path)
    seen = []
    while not reader.ended and process.poll() is None:
        taken = reader.take()
        if taken is None:
            time.sleep(0.0002)
            continue
        value = taken.figures["value"]
        for image in (taken.raw, taken.denoised, taken.uncertainty):
            assert image.shape == SHAPE
            assert (image == value).all()
        seen.append(value)
    reader.close()
    rest, _ = process.communicate(timeout=10)
    assert process.returncode == 0
    assert int(rest) > 20  # on a busy machine too
    assert len(seen) > 5, "a reader must get pictures however fast the writer is"
    assert seen == sorted(set(seen)), "never the same picture twice, never an older one"


def test_the_reader_gets_exactly_what_was_put(writer):
    random = np.random.default_rng(1)
    raw = random.integers(0, 4096, SHAPE, dtype=np.uint16)
    denoised = random.normal(100, 5, SHAPE).astype(np.float32)
    reader = MailboxReader(writer.path)
    assert reader.take() is None
    writer.put(raw, denoised, None, {"latency_ms": np.float32(3.5), "provider": "cpu"})
    taken = reader.take()
    assert np.array_equal(taken.raw, raw)
    assert taken.raw.dtype == np.uint16
    assert np.array_equal(taken.denoised, denoised)
    assert taken.uncertainty is None
    assert taken.figures == {"latency_ms": 3.5, "provider": "cpu"}
    assert reader.about["title"] == "Ünïcode"
    assert reader.take() is None
    reader.close()


def test_only_the_newest_picture_is_kept_and_the_writer_knows_when_it_was_taken(writer):
    reader = MailboxReader(writer.path)
    assert writer.taken
    for value in (1, 2, 3):
        writer.put(*picture(value), None, {})
    assert not writer.taken
    assert reader.take().raw[0, 0] == 3
    assert writer.taken
    reader.close()


def test_a_picture_left_half_written_by_a_killed_writer_is_not_shown(writer):
    reader = MailboxReader(writer.path)
    writer.put(*picture(1), None, {})
    assert reader.take() is not None
    writer._writer["generation"] = writer.generation + 1  # where a kill leaves it
    assert reader.take() is None
    writer.put(*picture(7), None, {})
    assert reader.take().raw[0, 0] == 7, "and the next whole picture is"
    reader.close()


def test_a_failed_put_leaves_the_mailbox_usable(writer):
    reader = MailboxReader(writer.path)
    raw, denoised = picture(5)
    with pytest.raises(ValueError, match="expected one"):
        writer.put(raw, denoised[1:], None, {})
    with pytest.raises(ValueError, match="figures take"):
        writer.put(raw, denoised, None, {"words": "x" * 20_000})
    writer.put(raw, denoised, None, {})
    assert reader.take().raw[0, 0] == 5
    reader.close()


def test_final_figures_are_put_beside_the_last_picture(writer):
    reader = MailboxReader(writer.path)
    writer.correct({"frames_recorded": 1})
    assert reader.take() is None, "without a picture there is nothing to correct"
    writer.put(*picture(5), None, {"frames_recorded": 97, "provider": "cpu"})
    assert reader.take() is not None
    writer.correct({"frames_recorded": np.int64(100)})
    taken = reader.take()
    assert taken.figures == {"frames_recorded": 100, "provider": "cpu"}
    assert (taken.raw == 5).all()
    reader.close()


@pytest.mark.parametrize("shape", [(60, 2000), (1, 1), (1001, 999), (1024, 1024)])
@pytest.mark.parametrize("pixel_type", [np.uint8, np.uint16, np.float32])
def test_the_frame_may_change_shape_and_type_during_a_run(writer, shape, pixel_type):
    reader = MailboxReader(writer.path)
    writer.put(*picture(3, shape, pixel_type), None, {})
    taken = reader.take()
    assert taken.raw.dtype == pixel_type
    assert taken.raw.shape == tuple(-(-size // taken.step) for size in shape)
    assert (taken.denoised == 3.5).all()
    reader.close()


def test_a_frame_too_large_for_any_screen_is_thinned_not_refused(tmp_path):
    shape = (4096, 4096)
    writer = MailboxWriter.create(shape, "uint16", {}, directory=tmp_path)
    assert writer.path.stat().st_size < 11 * MAX_PIXELS
    raw = np.arange(shape[0] * shape[1], dtype=np.uint32).reshape(shape).astype(np.uint16)
    writer.put(raw, raw, None, {})
    reader = MailboxReader(writer.path)
    taken = reader.take()
    assert taken.step == 2
    assert np.array_equal(taken.raw, raw[::2, ::2])
    reader.close()
    writer.close(remove=True)


def test_the_reader_tells_the_writer_how_it_is(writer):
    reader = MailboxReader(writer.path)
    assert writer.reader_state is ReaderState.ABSENT
    reader.want_uncertainty(True)
    reader.report(ReaderState.FAILED, "libEGL.so.1 fehlt – größer" + "ß" * 400)
    assert writer.wants_uncertainty
    assert writer.reader_state is ReaderState.FAILED
    assert writer.reader_reason.startswith("libEGL.so.1 fehlt – größer")
    reader.close()


def test_a_state_that_no_reader_says_is_a_failure_and_no_error_of_the_run(writer):
    writer._reader["state"] = 4711
    assert writer.reader_state is ReaderState.FAILED


def test_the_file_is_whole_before_it_is_mapped(writer):
    # A hole in the file could find the disk full when it is touched, and kill the acquisition.
    if sys.platform == "win32":
        pytest.skip("Windows reports no allocated blocks")
    status = writer.path.stat()
    assert status.st_blocks * 512 >= status.st_size
    assert status.st_mode & 0o077 == 0, "nobody else may look at the images"


def test_a_full_disk_is_one_line_and_leaves_nothing_behind(tmp_path, monkeypatch):
    def full(path, size):
        path.write_bytes(b"the part that fitted")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(preview_mailbox, "allocate", full)
    with pytest.raises(MailboxError, match="no room for the preview") as caught:
        MailboxWriter.create(SHAPE, "uint16", {}, directory=tmp_path)
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_a_mailbox_of_a_killed_program_is_swept(tmp_path, monkeypatch):
    for module in (preview_mailbox, mailbox_file):
        monkeypatch.setattr(module, "places", lambda: iter([tmp_path]))
    child = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, text=True
    )
    orphan = tmp_path / f"quietscope-preview-{int(child.stdout)}-0badcafe.mailbox"
    orphan.write_bytes(b"")
    mine = tmp_path / f"quietscope-preview-{os.getpid()}-0badcafe.mailbox"
    mine.write_bytes(b"")
    MailboxWriter.create(SHAPE, "uint8", {}).close(remove=True)
    assert [path.name for path in tmp_path.iterdir()] == [mine.name]


@pytest.mark.parametrize("content", [None, b"", b"short", b"\0" * 40_000])
def test_anything_else_is_no_mailbox(tmp_path, content):
    path = tmp_path / "with space.mailbox"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(MailboxError, match="mailbox") as caught:
        MailboxReader(path)
    assert "\n" not in str(caught.value)
