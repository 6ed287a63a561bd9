"""A finding: what is wrong with a study, the figure that shows it, and what to change."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Finding:
    """One fault that was recognised.

    Args:
        fault: a short name of it.
        what: what is seen, in one sentence with its figures.
        advice: what to change, with the keys of the configuration.
        numbers: the figures by name.
        picture: the picture of the study's ``figures/`` that shows it, if there is one.
    """

    fault: str
    what: str
    advice: str
    numbers: dict[str, float]
    picture: str = ""

    def __str__(self) -> str:
        return f"{self.what}. Change: {self.advice}"

    def to_dict(self) -> dict[str, Any]:
        """The finding as plain data."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Finding:
        """The inverse of `to_dict`.

        Args:
            data: plain data.

        Returns:
            The finding.
        """
        return cls(**data)


def in_words(names: Sequence[str], most: int = 4) -> str:
    """A few of many names.

    Args:
        names: the names.
        most: how many are told.

    Returns:
        Such as ``a, b and 3 more``.
    """
    told = ", ".join(names[:most])
    return told if len(names) <= most else f"{told} and {len(names) - most} more"


def findings_in_words(findings: Sequence[Finding], most: int = 4) -> list[str]:
    """A diagnosis as lines.

    Args:
        findings: what was found.
        most: how many are told.

    Returns:
        One line a finding, and one that counts the others.
    """
    lines = [str(finding) for finding in findings[:most]]
    more = len(findings) - most
    return [*lines, f"and {more} more: genopt diagnose"] if more > 0 else lines
