"""Errors that a user can act on: each message names the key, column or shape and says what to do.

They derive from `ValueError`, so callers that catch the builtin keep working; the app prints them
as one line.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class GenoptError(ValueError):
    """An input that genopt cannot work with; the message says what to change."""


class UnknownNameError(GenoptError):
    """A name that is not among the known ones; the message offers the nearest valid name.

    Args:
        what: what kind of name it is, for example ``"column"``.
        name: the name that was given.
        known: the valid names.
    """

    def __init__(self, what: str, name: str, known: Iterable[str]) -> None:
        self.name = name
        self.known = [str(k) for k in known]
        close = difflib.get_close_matches(str(name), self.known, n=1, cutoff=0.5)
        hint = f"did you mean {close[0]!r}? " if close else ""
        listed = ", ".join(self.known) if self.known else "none"
        super().__init__(f"unknown {what} {name!r}: {hint}valid names are {listed}")
