"""One key that a search varies, and what it may be."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from hydra.core.override_parser.types import Transformer


@dataclass(frozen=True)
class Dimension:
    """One key and what it may be; either choices or a range of numbers.

    Args:
        key: as on the command line, with its sign.
        name: what tells it from the same key under another condition.
        choices: values as text; empty for a range of numbers.
        low: least number.
        high: largest number.
        step: distance of neighbours; None for any number between.
        log: whether factors count, not differences.
        whole: whether the numbers are integers.
    """

    key: str
    name: str
    choices: tuple[str, ...] = ()
    low: float = 0.0
    high: float = 0.0
    step: float | None = None
    log: bool = False
    whole: bool = False

    @property
    def plain(self) -> str:
        """The key without its sign."""
        return self.key.lstrip("+~")

    @property
    def fixed(self) -> bool:
        """Whether there is nothing to choose."""
        return len(self.choices) == 1

    def suggest(self, trial: Any) -> str:
        """Ask a trial of Optuna for a value.

        Args:
            trial: the trial.

        Returns:
            The value as on the command line; four digits of a number are enough to repeat it.
        """
        if self.choices:
            return str(trial.suggest_categorical(self.name, list(self.choices)))
        if self.whole:
            step = 1 if self.log else int(self.step or 1)
            low, high = int(self.low), int(self.high)
            return str(trial.suggest_int(self.name, low, high, step=step, log=self.log))
        value = trial.suggest_float(self.name, self.low, self.high, step=self.step, log=self.log)
        return self.text(value)

    def text(self, value: float) -> str:
        """A number of the range as on the command line.

        Args:
            value: the number.

        Returns:
            Its text, inside the range.
        """
        if self.whole:
            return str(int(value))
        short = f"{value:.10g}" if self.step else f"{value:.4g}"
        return repr(min(max(float(short), self.low), self.high))

    def probes(self) -> list[str]:
        """Values to try on a configuration: all choices, or the ends and a number between."""
        if self.choices:
            return list(self.choices)
        middle = self.low + (self.step or (self.high - self.low) / 2.0 ** (1.0 + self.log))
        return [self.text(value) for value in (self.low, middle, self.high)]

    def values(self) -> list[Any] | None:
        """All values, as Optuna calls them; None where there is no end to them."""
        if self.choices:
            return list(self.choices)
        if not self.whole and self.step is None:
            return None
        step = self.step or 1
        count = round((self.high - self.low) / step) + 1
        return [self.low + i * step for i in range(count)]

    def holds(self, value: Any) -> Any:
        """What Optuna calls a value of the configuration.

        Args:
            value: the value.

        Returns:
            The choice or the number; None where the value is outside.
        """
        if self.choices:
            text = value if isinstance(value, str) else Transformer.str(value)
            return next((c for c in self.choices if bare(c) == bare(text)), None)
        if isinstance(value, bool) or not isinstance(value, int | float):
            return None
        steps = (value - self.low) / self.step if self.step else 0.0
        inside = self.low <= value <= self.high and abs(steps - round(steps)) < 1e-9
        return (int(value) if self.whole else float(value)) if inside else None


def bare(text: Any) -> str:
    """A value as YAML writes it, without quotes, which do not change what a text means.

    Args:
        text: the value.

    Returns:
        Its text.
    """
    if not isinstance(text, str):
        return bare(Transformer.str(text))
    inner = text.strip()
    quoted = len(inner) > 1 and inner[0] == inner[-1] and inner[0] in "'\""
    return inner[1:-1] if quoted else {"True": "true", "False": "false"}.get(inner, inner)
