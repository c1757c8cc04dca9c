"""Live sessions are seen by every other program of this computer, and by none when they end."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

from quietscope.storage.live_sessions import live_session, state_folder, who_is_live


@pytest.fixture(autouse=True)
def own_state(tmp_path, monkeypatch):
    monkeypatch.setenv("QUIETSCOPE_STATE", str(tmp_path / "state of this computer"))


SESSION = """
import sys, time
from quietscope.storage.live_sessions import live_session
with live_session():
    print("live", flush=True)
    time.sleep(60)
"""


def test_nobody_is_live_where_nobody_has_ever_been():
    assert who_is_live() is None


def test_each_of_several_sessions_is_seen_until_the_last_has_ended():
    with live_session():
        with live_session():
            assert "process" in who_is_live()
        assert "process" in who_is_live()
    assert who_is_live() is None
    assert list((state_folder() / "live sessions").iterdir()) == []


def test_a_session_of_another_process_is_seen_and_dies_with_it():
    session = subprocess.Popen([sys.executable, "-c", SESSION], stdout=subprocess.PIPE, text=True)
    try:
        assert session.stdout.readline() == "live\n"
        assert f"process {session.pid}" in who_is_live()
    finally:
        session.kill()
        session.wait()
        session.stdout.close()
    assert who_is_live() is None
    assert list((state_folder() / "live sessions").iterdir()) == []


def test_asking_costs_nothing_between_two_training_steps():
    began = time.perf_counter()
    for _ in range(100):
        who_is_live()
    assert (time.perf_counter() - began) / 100 < 1e-3


def test_a_session_runs_where_the_signal_cannot_be_given(tmp_path, monkeypatch, caplog):
    (tmp_path / "file").write_text("no folder", encoding="utf-8")
    monkeypatch.setenv("QUIETSCOPE_STATE", str(tmp_path / "file"))
    with live_session():
        pass
    assert "will not give way" in caplog.text
