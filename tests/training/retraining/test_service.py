"""A night from its first check to the notice: once, alone, within its window, and on record."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
import sys
import time as clock
from datetime import datetime, time, timedelta
from types import SimpleNamespace

import psutil
import pytest

from quietscope.inference.errors import InferenceError
from quietscope.storage.atomic_output import OutputError
from quietscope.storage.live_sessions import live_session
from quietscope.training.errors import TrainingError
from quietscope.training.retraining import night_record, service
from quietscope.training.retraining.night_record import (
    NightRecord,
    last_night,
    log_kept,
    nights,
    nights_folder,
    write_record,
)
from quietscope.training.retraining.service import Night, run_night, serving
from quietscope.training.retraining.supervision import Ended
from quietscope.training.retraining.window import Window

ALWAYS = Window(time(22), time(6))
AT_ELEVEN = datetime(2026, 3, 1, 23).astimezone()
DECISION = {"decision": "kept", "reason": "no better", "candidate": None, "current": None}


@pytest.fixture(autouse=True)
def own_state(tmp_path, monkeypatch):
    monkeypatch.setenv("QUIETSCOPE_STATE", str(tmp_path / "state"))


@pytest.fixture
def library(tmp_path):
    place = tmp_path / "a lab's library"
    place.mkdir()
    return place


def child(*lines, status=0, stderr="", busy_s=0.0):
    code = (
        f"import sys, time\nfor line in {lines!r}: print(line, flush=True)\n"
        f"print({stderr!r}, file=sys.stderr)\ntime.sleep({busy_s})\nsys.exit({status})"
    )
    return [sys.executable, "-c", code]


def made(library, *, now=AT_ELEVEN, notify=None, **how):
    with serving(library):
        return run_night(
            Night(library, ALWAYS, notify),
            now=now,
            command=child(json.dumps(DECISION), **how),
        )


def test_a_night_is_on_record_and_made_once(library):
    record = made(library, stderr="looked at a run")
    assert (record.state, record.night.isoformat()) == ("done", "2026-03-01")
    assert [one.decision for one in record.decisions] == ["kept"]
    assert last_night(library) == record
    assert "looked at a run" in (nights_folder(library) / "overnight.log").read_text("utf-8")
    # Started again, after midnight: by a clock that was set back, or a computer that was off.
    assert made(library, now=AT_ELEVEN + timedelta(hours=3)) is None
    assert nights(library) == (record,)
    assert made(library, now=AT_ELEVEN + timedelta(hours=24)).night.isoformat() == "2026-03-02"


@pytest.mark.skipif(sys.platform == "win32", reason="Windows keeps its own time zone")
def test_a_night_on_which_the_clocks_change_ends_by_the_clock(library, monkeypatch):
    class Evening(datetime):
        @classmethod
        def now(cls, tz=None):
            return datetime(2026, 3, 28, 23).astimezone(tz) if tz else datetime(2026, 3, 28, 23)

    given = []

    def supervised(command, *, until, **_):
        given.append(until - clock.time())
        return Ended(status=0)

    monkeypatch.setenv("TZ", "Europe/Berlin")
    clock.tzset()
    try:
        monkeypatch.setattr(service, "datetime", Evening)
        monkeypatch.setattr(service, "supervise", supervised)
        with serving(library):
            record = run_night(Night(library, Window(time(22), time(6))))
    finally:
        monkeypatch.undo()
        clock.tzset()
    # From 23:00 to 06:00, without the hour from 02:00 to 03:00.
    assert given == [pytest.approx(6 * 3600, abs=60)]
    assert record.started.utcoffset() == timedelta(hours=1)


def test_outside_of_the_window_nothing_is_begun(library):
    assert made(library, now=datetime(2026, 3, 1, 9).astimezone()) is None
    assert nights(library) == ()


def test_a_night_that_was_cut_short_goes_on_in_the_same_night(library):
    first = made(library, status=service.UNFINISHED)
    assert first.state == "unfinished"
    second = made(library, now=AT_ELEVEN + timedelta(hours=2))
    assert second.state == "done"
    assert len(second.decisions) == 2
    assert len(nights(library)) == 1


def test_a_process_that_breaks_is_a_failed_night_with_its_last_words(library):
    record = made(library, status=9, stderr="MemoryError: 3 GiB")
    assert record.state == "failed"
    assert "MemoryError: 3 GiB" in record.failure
    assert "failed" in record.headline()


def test_a_full_disk_is_said_before_anything_is_written(library, monkeypatch):
    monkeypatch.setattr(service, "NIGHT_BYTES", 2**60)
    record = made(library)
    assert record.state == "failed"
    assert "disk space" in record.failure
    assert "--out" not in record.failure
    assert record.decisions == ()


def test_the_second_service_leaves_with_a_sentence(library):
    with serving(library):
        with pytest.raises(TrainingError, match="served by another service already") as caught:
            made(library)
        assert "process" in str(caught.value)
        assert "--out" not in str(caught.value)
    assert made(library).state == "done"


def test_what_is_no_library_is_refused_and_nothing_is_left_there(tmp_path):
    with pytest.raises(InferenceError, match="no such folder"), serving(tmp_path / "nowhere"):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_live_session_is_waited_for(library, monkeypatch):
    monkeypatch.setattr(service, "LOOK_EVERY_S", 0.05)
    said = []
    with serving(library), live_session():
        monkeypatch.setattr(
            ALWAYS.__class__, "left", lambda window, now: 60.5 if not said else 0.0
        )
        # The service's clock alone: others, as those of log lines, are none of its business.
        ticks = iter(range(0, 10_000, 30)).__next__
        own = SimpleNamespace(time=ticks, sleep=clock.sleep)
        monkeypatch.setattr(service, "time", own)
        record = run_night(Night(library, ALWAYS), now=AT_ELEVEN, say=said.append)
    assert record.state == "unfinished"
    assert any("training begins when it has ended" in line for line in said)


@pytest.mark.skipif(sys.platform == "win32", reason="quotes are the shell's of POSIX")
def test_the_notice_gets_the_night_as_json(library, tmp_path):
    script = tmp_path / "tell me.py"
    script.write_text(
        f"import sys; open({str(tmp_path / 'told.json')!r}, 'w').write(sys.stdin.read())",
        encoding="utf-8",
    )
    record = made(library, notify=f"'{sys.executable}' '{script}'", status=3)
    told = NightRecord.model_validate_json((tmp_path / "told.json").read_text("utf-8"))
    assert (told.state, record.remarks) == ("unfinished", ())


def test_the_notice_is_given_where_no_record_can_be_written(library, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    told = tmp_path / "told.json"
    program = tmp_path / "tell.py"
    program.write_text(
        "import pathlib, sys\n"
        f"pathlib.Path({str(told)!r}).write_text(sys.stdin.read(), 'utf-8')\n",
        encoding="utf-8",
    )
    monkeypatch.setattr(night_record, "write_json", full)
    notify = shlex.join([sys.executable, str(program)])
    with pytest.raises(OutputError, match="No space left"):
        made(library, notify=notify)
    assert "No space left" in json.loads(told.read_text("utf-8"))["failure"]


def test_a_notice_that_fails_is_on_record_and_the_night_is_done(library):
    record = made(library, notify="no-such-program-anywhere")
    assert record.state == "done"
    assert "the notice could not be given" in record.remarks[0]


def test_what_a_killed_service_left_is_ended(library):
    """Halted for a session, it would hold the library's models for ever."""
    left = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        nights_folder(library).mkdir()
        service._note_process(library, left.pid)
        psutil.Process(left.pid).suspend()
        assert made(library).state == "done"
        assert not psutil.pid_exists(left.pid)
    finally:
        left.kill()
        left.wait()


def test_a_process_of_the_same_number_that_is_not_ours_lives_on(library):
    other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    try:
        nights_folder(library).mkdir()
        noted = {"pid": other.pid, "began": clock.time() - 86_400}
        (nights_folder(library) / "process.json").write_text(json.dumps(noted), "utf-8")
        assert made(library).state == "done"
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


def test_the_log_is_of_bounded_size(library):
    with log_kept(library) as log:
        for _ in range(30):
            log.info("x" * 900_000)
    assert sum(file.stat().st_size for file in nights_folder(library).iterdir()) < 8e6


def test_a_record_that_cannot_be_read_hides_no_other(library):
    write_record(library, NightRecord(night=AT_ELEVEN.date(), started=AT_ELEVEN))
    shutil.copy(
        nights_folder(library) / "2026-03-01.json", nights_folder(library) / "2026-02-01.json"
    )
    (nights_folder(library) / "2026-02-28.json").write_text("{", encoding="utf-8")
    assert len(nights(library)) == 2
