"""Whatever was changed goes back, in order, whatever happens on the way."""

from __future__ import annotations

import pytest

from quietscope.acquisition.microscope.changes import Changes


def test_the_last_change_goes_back_first_and_the_first_value_counts():
    went_back, changes = [], Changes()
    changes.remember("exposure", lambda: went_back.append("exposure of before"))
    changes.remember("roi", lambda: went_back.append("roi"))
    changes.remember("exposure", lambda: went_back.append("exposure in between"))
    changes.undo()
    changes.undo()
    assert went_back == ["roi", "exposure of before"]


def test_a_stuck_device_does_not_keep_the_others():
    went_back, changes = [], Changes()
    changes.remember("focus", lambda: went_back.append("focus"))
    changes.remember("stage", lambda: 1 / 0)
    changes.undo()
    assert went_back == ["focus"]


def test_an_impatient_person_is_heard_at_the_end():
    went_back, changes = [], Changes()
    patience = iter([KeyboardInterrupt, None])

    def stage():
        if (raised := next(patience)) is not None:
            raise raised
        went_back.append("stage")

    changes.remember("focus", lambda: went_back.append("focus"))
    changes.remember("stage", stage)
    with pytest.raises(KeyboardInterrupt):
        changes.undo()
    assert went_back == ["stage", "focus"]


def test_a_block_undoes_its_own():
    went_back, changes = [], Changes()
    changes.remember("exposure", lambda: went_back.append("outer"))

    def work():
        with changes.within():
            changes.remember("exposure", lambda: went_back.append("inner"))
            raise RuntimeError("half-way")

    with pytest.raises(RuntimeError, match="half-way"):
        work()
    assert went_back == ["inner"]
    changes.undo()
    assert went_back == ["inner", "outer"]
