"""What another program writes beside a live session's lock hurts neither the session nor files."""

from __future__ import annotations

import json
import os
import sys

import pytest

from quietscope.storage.live_sessions import live_session, sessions_folder
from quietscope.storage.session_requests import (
    ANSWER,
    LARGEST_BYTES,
    REQUEST,
    SESSION,
    Answer,
    ModelRequest,
    SessionAbout,
    announce,
    answer,
    requests_to,
    running_sessions,
)


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.setenv("QUIETSCOPE_STATE", str(tmp_path / "state"))
    with live_session() as place:
        yield place


def test_a_request_is_taken_once_and_nonsense_is_taken_away(place):
    def asked(name: str, content: bytes) -> None:
        place.with_name(f"{place.name}.{name}{REQUEST}").write_bytes(content)

    asked("good", b'{"model": "models/b", "of a later version": [1]}')
    asked("type", b'{"model": 7}')
    asked("half", b'{"model": "mod')
    asked("deep", b"[" * 10_000)
    asked("bytes", b"\xff\xfe\x00")
    asked("large", json.dumps({"model": "m" * LARGEST_BYTES}).encode())
    (found,) = requests_to(place)
    assert found == (f"{place.name}.good", ModelRequest(model="models/b"))
    assert requests_to(place) == []
    assert not list(place.parent.glob("*.json"))


def test_a_request_that_cannot_be_taken_away_is_not_granted_again_and_again(place, monkeypatch):
    file = place.with_name(f"{place.name}.x{REQUEST}")
    file.write_text('{"model": "models/b"}')

    def held(*_: object, **__: object) -> None:
        raise PermissionError(13, "is held open by another program")

    with monkeypatch.context() as windows:
        windows.setattr("pathlib.Path.unlink", held)
        assert requests_to(place) == []
    assert len(requests_to(place)) == 1
    assert requests_to(place) == []


@pytest.mark.skipif(sys.platform == "win32", reason="links need a right there")
def test_what_links_and_pipes_lead_to_stays_as_it_is(place, tmp_path):
    precious = tmp_path / "zarr.json"
    precious.write_text("precious")
    for name in (f"{place.name}.x{ANSWER}", f"{place.name}{SESSION}", f"{place.name}.y{REQUEST}"):
        place.with_name(name).symlink_to(precious)
    os.mkfifo(place.with_name(f"{place.name}.z{REQUEST}"))
    answer(place, f"{place.name}.x", Answer(granted=False, words="no"))
    announce(place, SessionAbout(run="runs/monday"))
    assert requests_to(place) == []
    assert precious.read_text() == "precious"
    assert [one.about.run for one in running_sessions()] == ["runs/monday"]


def test_files_that_name_no_session_are_passed_over(place):
    announce(place, SessionAbout(run="runs/monday"))
    (sessions_folder() / SESSION).write_text("{}")
    assert len(running_sessions()) == 1
