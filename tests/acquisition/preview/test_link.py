"""The link: whatever happens to the window, the acquisition does not notice."""

import os
import signal
import subprocess
import sys
import textwrap
import time
import warnings
from pathlib import Path

import numpy as np
import psutil
import pytest

from quietscope.acquisition.preview import link as preview_link
from quietscope.acquisition.preview import mailbox as preview_mailbox
from quietscope.acquisition.preview import mailbox_file
from quietscope.acquisition.preview.link import PreviewLink, render_snapshot
from quietscope.acquisition.preview.mailbox import MailboxError, MailboxWriter

SHAPE = (96, 128)
RAW = np.random.default_rng(0).poisson(50, SHAPE).astype(np.uint16)
DENOISED = np.full(SHAPE, 50, np.float32)
FIGURES = {"frame_index": 1, "latency_ms": 12.0, "provider": "cpu", "simulated": True}


@pytest.fixture
def offscreen(monkeypatch, qt):
    monkeypatch.setenv("QT_QPA_PLATFORM", "offscreen")


@pytest.fixture
def mailboxes(tmp_path, monkeypatch):
    """A folder of our own for the mailboxes, so that leftovers are seen."""
    folder = tmp_path / "mail boxes"
    folder.mkdir()
    for module in (preview_mailbox, mailbox_file):
        monkeypatch.setattr(module, "places", lambda: iter([folder]))
    return folder


def opened():
    return PreviewLink.open(frame_shape=SHAPE, pixel_type="uint16", title="a run")


def eventually(condition, timeout_s=15.0):
    end = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def window_script(monkeypatch, body):
    """Start the real window in a process that does `body` once the window is open."""
    script = textwrap.dedent(
        """
        import sys
        from PySide6.QtCore import QTimer
        from PySide6.QtWidgets import QApplication
        from quietscope.acquisition.preview import process as preview_window
        from quietscope.acquisition.preview import window as preview_view
        class Window(preview_view.PreviewWindow):
            def showEvent(self, event):
                super().showEvent(event)
                {body}
        preview_view.PreviewWindow = Window
        sys.exit(preview_window.main(sys.argv[1:]))
        """
    ).format(body=body)
    monkeypatch.setattr(
        preview_link,
        "window_command",
        lambda mailbox: [sys.executable, "-c", script, "--mailbox", str(mailbox)],
    )


def pid_of(link):
    return link._window._process.pid


def test_without_a_screen_nothing_happens_and_the_reason_is_said(monkeypatch):
    if sys.platform != "linux":
        pytest.skip("Windows and macOS have a screen")
    for name in ("DISPLAY", "WAYLAND_DISPLAY", "QT_QPA_PLATFORM"):
        monkeypatch.delenv(name, raising=False)
    link = opened()
    assert not link.available
    assert "no screen" in link.reason
    assert not link.closed_by_user
    link.show(RAW, DENOISED, FIGURES)
    link.close()


def test_a_screen_that_cannot_be_reached_is_said_in_one_line(monkeypatch, qt, mailboxes):
    if sys.platform != "linux":
        pytest.skip("X11 only")
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.delenv("QT_QPA_PLATFORM", raising=False)
    monkeypatch.setenv("DISPLAY", ":4711")
    link = opened()
    assert eventually(lambda: not link.available)
    assert "cannot open" in link.reason or "missing" in link.reason
    assert "\n" not in link.reason
    assert "Traceback" not in link.reason
    link.show(RAW, DENOISED, FIGURES)
    link.close()
    assert not list(mailboxes.iterdir())


def test_pictures_reach_the_window_and_it_goes_when_it_is_asked_to(offscreen, mailboxes):
    link = opened()
    assert link.available
    assert link.wait_until_shown(), link.reason
    mailbox = link._mailbox
    assert eventually(lambda: link.show(RAW, DENOISED, FIGURES) or mailbox.generation >= 8)
    assert eventually(lambda: mailbox.taken)
    window = link._window
    link.close(keep_window=False, figures={"frames_recorded": 100})
    assert window.wait(10)
    assert window.returncode == 0
    assert not window._said, "the window has nothing to complain about"
    assert not link.closed_by_user
    assert not list(mailboxes.iterdir()), "whoever leaves last removes the file"


def test_the_last_counts_may_come_after_the_last_picture(link):
    reader = preview_mailbox.MailboxReader(link._mailbox.path)
    link.show(RAW, DENOISED, {"frames_denoised": 90})
    link.finish()
    assert reader.ended
    assert reader.take().figures == {"frames_denoised": 90}
    link.close(figures={"frames_denoised": 100})
    assert reader.take().figures == {"frames_denoised": 100}
    link.finish()
    link.close()
    reader.close(remove=True)


def test_without_a_screen_to_close_it_on_the_window_ends_with_the_run(offscreen, mailboxes):
    link = opened()
    assert link.wait_until_shown(), link.reason
    window = link._window
    link.close()
    assert window.wait(10)
    assert not list(mailboxes.iterdir())


def test_closing_the_window_in_mid_run_is_the_users_right(offscreen, mailboxes, monkeypatch):
    window_script(monkeypatch, "QTimer.singleShot(400, self.close)")
    link = opened()
    window = link._window
    assert eventually(lambda: link.show(RAW, DENOISED, FIGURES) or not link.available)
    assert link.closed_by_user
    assert link.reason == "the preview window was closed"
    assert window.returncode == 0
    assert not window._said
    link.show(RAW, DENOISED, FIGURES)
    link.close()
    assert link.closed_by_user
    assert not list(mailboxes.iterdir())


def test_a_killed_window_costs_nothing(offscreen, mailboxes):
    link = opened()
    assert link.wait_until_shown(), link.reason
    psutil.Process(pid_of(link)).kill()
    assert eventually(lambda: link.show(RAW, DENOISED, FIGURES) or not link.available)
    assert not link.closed_by_user
    assert "ended unexpectedly" in link.reason
    link.close()
    assert not list(mailboxes.iterdir())


def test_a_missing_system_library_is_named_without_a_traceback(
    tmp_path, mailboxes, monkeypatch, capfd
):
    broken = tmp_path / "site" / "PySide6"
    broken.mkdir(parents=True)
    words = "libEGL.so.1: cannot open shared object file: No such file or directory"
    (broken / "__init__.py").write_text(f"raise ImportError({words!r})", encoding="utf-8")
    monkeypatch.setenv("PYTHONPATH", str(broken.parent))
    monkeypatch.setenv("QT_QPA_PLATFORM", "offscreen")
    link = opened()
    assert eventually(lambda: not link.available)
    snapshot = render_snapshot(RAW, DENOISED, FIGURES, tmp_path / "never.png")
    assert snapshot.path is None
    for reason in (link.reason, snapshot.reason):
        assert reason.startswith("the preview window needs system libraries that are missing: ")
        assert "libEGL.so.1" in reason
        assert "apt-get install libegl1" in reason
        assert "\n" not in reason
    assert capfd.readouterr() == ("", "")
    link.close()
    assert not list(mailboxes.iterdir())


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGSTOP on Windows")
def test_a_blocked_window_blocks_nobody(offscreen, mailboxes):
    link = opened()
    assert link.wait_until_shown(), link.reason
    pid = pid_of(link)
    os.kill(pid, signal.SIGSTOP)
    try:
        mailbox = link._mailbox
        before = mailbox.generation
        end = time.monotonic() + 1.5
        calls = 0
        while time.monotonic() < end:
            link.show(RAW, DENOISED, FIGURES)
            calls += 1
        assert link.available
        assert calls > 100
        put = (mailbox.generation - before) // 2
        assert 1 <= put <= 8, "a window that takes nothing is fed at a trickle, newest first"
        started = time.monotonic()
        link.close()
        assert time.monotonic() - started < 1
    finally:
        os.kill(pid, signal.SIGCONT)
        psutil.Process(pid).kill()


class Clock:
    """Time that passes only when it is told to, so that a busy machine changes no test."""

    def __init__(self, monkeypatch):
        self.now_s = 100.0
        monkeypatch.setattr(preview_link.time, "perf_counter", lambda: self.now_s)


def puts_at(link, clock, monkeypatch, copy_s, seconds=2.0, frame_s=0.005):
    """Offer a frame every 5 ms to a window that takes all; return when one was copied."""
    puts = []

    def put(*_):
        puts.append(clock.now_s)
        clock.now_s += copy_s(len(puts))

    monkeypatch.setattr(MailboxWriter, "taken", property(lambda self: True))
    monkeypatch.setattr(MailboxWriter, "put", put)
    end = clock.now_s + seconds
    while clock.now_s < end:
        link.show(RAW, DENOISED, FIGURES)
        clock.now_s += frame_s
    return np.array(puts)


@pytest.fixture
def link(mailboxes):
    made = PreviewLink(MailboxWriter.create(SHAPE, "uint16", {}))
    yield made
    made.close()


def test_at_most_25_pictures_a_second(link, monkeypatch):
    puts = puts_at(link, Clock(monkeypatch), monkeypatch, lambda _: 0.0001)
    assert 45 <= len(puts) <= 51
    assert np.diff(puts).min() >= 0.0299


def test_a_camera_of_that_very_rate_is_seen_at_its_rate(link, monkeypatch):
    """Every second frame comes a moment early: waiting from the last copy would skip those."""
    clock = Clock(monkeypatch)
    puts = []
    monkeypatch.setattr(MailboxWriter, "taken", property(lambda self: True))
    monkeypatch.setattr(MailboxWriter, "put", lambda *_: puts.append(clock.now_s))
    for frame in range(50):
        clock.now_s = 100 + 0.04 * frame + (0.002 if frame % 2 else 0.0)
        link.show(RAW, DENOISED, FIGURES)
    assert len(puts) >= 49


def test_copying_takes_at_most_its_share_of_the_callers_time(link, monkeypatch):
    puts = puts_at(link, Clock(monkeypatch), monkeypatch, lambda _: 0.02, seconds=8)
    assert len(puts) * 0.02 <= 0.06 * 8
    assert np.diff(puts).max() < 0.5, "and no less than that"


def test_one_slow_copy_does_not_freeze_the_view(link, monkeypatch):
    puts = puts_at(
        link, Clock(monkeypatch), monkeypatch, lambda count: 0.5 if count == 10 else 0.001
    )
    assert np.diff(puts).max() < 0.6, "the view goes on as soon as the slow copy is over"


def test_channels_in_turns_do_not_flicker_and_none_is_overlooked(link, monkeypatch):
    clock = Clock(monkeypatch)
    reader = preview_mailbox.MailboxReader(link._mailbox.path)

    def shown(seconds):
        channels = []
        for frame in range(round(seconds / 0.01)):
            # In step with the throttle: every fourth frame is of the same channel.
            link.show(RAW, DENOISED, {"channel": ("GFP", "DAPI")[frame % 2]})
            picture = reader.take()
            if picture is not None:
                channels.append(picture.figures["channel"])
                assert set(picture.channels) <= {"GFP", "DAPI"}
            clock.now_s += 0.01
        return channels

    first = shown(1.0)
    assert len(first) > 10
    assert set(first) == {"GFP"}
    assert link._channels == ["GFP", "DAPI"]
    reader.want_channel("DAPI")
    second = shown(1.0)
    assert len(second) > 10
    assert set(second) == {"DAPI"}
    reader.close()


def test_the_uncertainty_is_copied_only_while_somebody_looks(mailboxes):
    link = PreviewLink(MailboxWriter.create(SHAPE, "uint16", {}))
    reader = preview_mailbox.MailboxReader(link._mailbox.path)
    link.show(RAW, DENOISED, FIGURES, DENOISED)
    assert reader.take().uncertainty is None
    reader.want_uncertainty(True)
    time.sleep(0.1)
    link.show(RAW, DENOISED, FIGURES, DENOISED)
    assert np.array_equal(reader.take().uncertainty, DENOISED)
    link.close()
    reader.close(remove=True)


@pytest.mark.parametrize(
    ("raw", "denoised", "figures"),
    [
        (RAW, DENOISED[1:], FIGURES),
        (None, None, FIGURES),
        (RAW, DENOISED, None),
        (RAW, DENOISED, {"x": "y" * 100_000}),
        (RAW[0], DENOISED[0], FIGURES),
    ],
)
def test_show_never_raises_and_goes_on_afterwards(mailboxes, raw, denoised, figures, caplog):
    link = PreviewLink(MailboxWriter.create(SHAPE, "uint16", {}))
    link.show(raw, denoised, figures)
    assert link.available
    assert link.reason
    assert [record.exc_info for record in caplog.records] == [None]
    time.sleep(0.3)
    link.show(RAW, DENOISED, FIGURES)
    assert link._mailbox.generation > 0
    assert link._mailbox.generation % 2 == 0
    link._mailbox.close(remove=True)
    link._mailbox = None


def test_no_room_for_the_mailbox_is_a_reason_not_an_error(monkeypatch):
    def full(*_, **__):
        raise MailboxError("no room for the preview's 10 MB")

    monkeypatch.setenv("QT_QPA_PLATFORM", "offscreen")
    monkeypatch.setattr(MailboxWriter, "create", full)
    link = opened()
    assert not link.available
    assert "no room" in link.reason
    link.show(RAW, DENOISED, FIGURES)
    link.close()


def test_a_python_that_cannot_be_started_is_a_reason(monkeypatch, mailboxes):
    monkeypatch.setenv("QT_QPA_PLATFORM", "offscreen")
    monkeypatch.setattr(preview_link, "window_command", lambda _: ["/no such/python"])
    link = opened()
    assert not link.available
    assert "could not be started" in link.reason
    assert not list(mailboxes.iterdir())


def test_a_script_without_a_main_guard_can_open_it(offscreen, tmp_path):
    # And a numpy.py that lies beside the script must not be imported by the window.
    (tmp_path / "numpy.py").write_text("raise SystemExit('wrong numpy')", encoding="utf-8")
    script = tmp_path / "my script.py"
    script.write_text(
        textwrap.dedent(
            """
            import sys
            sys.path.pop(0)
            import numpy as np
            from quietscope.acquisition.preview.link import PreviewLink
            link = PreviewLink.open(frame_shape=(64, 64), pixel_type="uint8", title="script")
            shown = link.wait_until_shown()
            link.show(np.zeros((64, 64), np.uint8), np.zeros((64, 64), np.float32), {})
            link.close()
            print(shown, link.reason)
            """
        ),
        encoding="utf-8",
    )
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", str(script)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        timeout=60,
    )
    assert done.stdout.strip() == "True", done.stdout + done.stderr
    assert done.stderr == ""


def test_the_window_notices_that_the_acquisition_was_killed(offscreen, mailboxes):
    script = textwrap.dedent(
        """
        import sys, time
        from quietscope.acquisition.preview.link import PreviewLink
        link = PreviewLink.open(frame_shape=(64, 64), pixel_type="uint8", title="script")
        print(link.wait_until_shown(), link._window._process.pid, link._mailbox.path, flush=True)
        time.sleep(60)
        """
    )
    program = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    shown, window_pid, path = program.stdout.readline().split(maxsplit=2)
    assert shown == "True"
    window = psutil.Process(int(window_pid))
    program.kill()
    program.wait()
    program.stdout.close()
    # Offscreen it ends, because nobody could close it; on a screen it says so and stays.
    assert eventually(lambda: not window.is_running() or window.status() == psutil.STATUS_ZOMBIE)
    assert not Path(path.strip()).exists()


def test_a_window_left_open_warns_of_nothing(offscreen, mailboxes):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        link = opened()
        link.wait_until_shown()
        link.close()
        del link


@pytest.mark.parametrize("step", [1, 2, 3, 4, 5])
def test_where_all_channels_are_shown_each_has_its_turn(link, monkeypatch, step):
    """Frames come in step with the throttle, and one channel has come once and never again."""
    names = ("GFP", "RFP", "DAPI", "Cy5")
    clock = Clock(monkeypatch)
    reader = preview_mailbox.MailboxReader(link._mailbox.path)
    reader.want_all_channels(True)
    link.show(RAW, DENOISED, {"channel": "once"})
    shown = []
    for frame in range(400):
        clock.now_s += 0.0401 / step
        link.show(RAW, DENOISED, {"channel": names[frame % len(names)]})
        picture = reader.take()
        if picture is not None:
            shown.append(picture.figures["channel"])
    times = [shown.count(name) for name in names]
    assert min(times) > 10
    assert max(times) < 1.6 * min(times)
    reader.close()
