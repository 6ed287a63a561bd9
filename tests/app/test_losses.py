"""Warnings of a study become one line each; those of other packages stay as they are."""

from __future__ import annotations

import warnings

import genopt
from genopt.app.losses import losses_said
from genopt.problems import SimulationWarning


def test_warnings_of_genopt_are_notes_and_lost_designs_are_kept():
    notes: list[str] = []
    kept: list[str] = []
    inside = f"{genopt.__path__[0]}/routines/sample.py"
    with warnings.catch_warnings(record=True) as others, losses_said(notes.append, kept):
        warnings.simplefilter("always")
        warnings.warn_explicit("outside the data", UserWarning, inside, 1)
        warnings.warn_explicit("by torch", UserWarning, "/elsewhere/torch/nn.py", 1)
        for _ in range(2):
            warnings.warn("failed for 1 of 2 designs", SimulationWarning, stacklevel=1)
    assert notes == ["outside the data", "failed for 1 of 2 designs"]
    assert kept == ["failed for 1 of 2 designs"]
    assert [str(warning.message) for warning in others] == ["by torch"]


def test_a_warning_that_nobody_is_shown_is_logged_as_one_once_a_process(caplog):
    inside = f"{genopt.__path__[0]}/routines/sample.py"
    for _ in range(2):
        with losses_said(lambda _: None, [], noted=False):
            warnings.warn_explicit("only heard in this test", UserWarning, inside, 1)
    heard = [r.levelname for r in caplog.records if r.message == "only heard in this test"]
    assert heard[:1] == ["WARNING"]
    assert "WARNING" not in heard[1:]
