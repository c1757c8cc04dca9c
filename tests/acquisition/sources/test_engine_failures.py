"""pycro-manager is as it was after a run, and a failed hook is heard in every run."""

from __future__ import annotations

import threading

import pytest
from pycromanager.acquisition import acquisition_superclass
from pycromanager.acquisition.acq_eng_py.main.acq_eng_metadata import AcqEngMetadata

from quietscope.acquisition import LiveDenoiser


class Engine:
    """As much of an acquisition as its abort touches."""

    _event_queue = None
    _exception = None
    aborted = 0

    def __init__(self):
        self._acq = self
        self.finished = 0

    def abort(self):
        self.aborted += 1

    def mark_finished(self):
        self.finished += 1


def test_runs_one_after_the_other_leave_pycro_manager_as_it_was(tmp_path):
    def used():
        return (
            acquisition_superclass.Acquisition.abort,
            acquisition_superclass.threading,
            AcqEngMetadata.add_image_metadata,
        )

    before = used()
    assert before[1] is threading
    for name in ("a", "b"):
        engine = Engine()
        live = LiveDenoiser(output=tmp_path / name)

        def fail(live=live, engine=engine):
            with live:
                assert used()[0] is not before[0]
                try:
                    raise ZeroDivisionError("my own mistake")
                except ZeroDivisionError as error:
                    wrapped = Exception(f"exception in image processor: {error}")
                    acquisition_superclass.Acquisition.abort(engine, wrapped)

        with pytest.raises(ZeroDivisionError, match="my own mistake"):
            fail()
        assert (engine.aborted, engine.finished) == (1, 1)
        assert used() == before


def test_two_runs_at_the_same_time(tmp_path):
    before = acquisition_superclass.Acquisition.abort
    with LiveDenoiser(output=tmp_path / "a"):
        with LiveDenoiser(output=tmp_path / "b"):
            pass
        assert acquisition_superclass.Acquisition.abort is not before
    assert acquisition_superclass.Acquisition.abort is before
