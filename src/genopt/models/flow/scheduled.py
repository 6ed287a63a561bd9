"""A path of one's own: a function of time, named by its import path and checked when it is built.

A wrong derivative gives no error later, only wrong samples; so it is compared with differences of
the value itself before anything is trained.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from genopt.errors import GenoptError
from genopt.models.flow.paths import ScheduleValue

_NAMES = ("alpha", "sigma", "d_alpha", "d_sigma")
_AT_DATA = 1e-6
_AT_NOISE = 1e-2
_STEP = 1e-5
_SLOPE = 1e-3


class ScheduledPath:
    """A path whose alpha and sigma come from a function of one's own.

    The function takes times (...) and returns alpha, sigma and their time derivatives, each (...),
    as four tensors in this order or as a `ScheduleValue`. It is named by import path, so that a
    checkpoint stays plain data.

    Args:
        schedule: import path of the function, such as ``my_module.my_schedule``.

    Raises:
        GenoptError: if the function cannot be imported, does not return four finite tensors of the
            times' shape, does not run from (0, 1) to (1, 0), gives a derivative that is not that of
            its value, or stands still between noise and data.
    """

    def __init__(self, schedule: str | None = None) -> None:
        self.name = schedule
        self._call = _imported(schedule)
        self._check()

    def __repr__(self) -> str:
        return f"ScheduledPath(schedule={self.name!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ScheduledPath) and other.name == self.name

    def __hash__(self) -> int:
        return hash(self.name)

    def schedule(self, t: Tensor) -> ScheduleValue:
        """The schedule.

        Args:
            t: times (...).

        Returns:
            alpha, sigma and their derivatives (...).

        Raises:
            GenoptError: if the function does not return four tensors.
        """
        found = self._call(t)
        if isinstance(found, ScheduleValue):
            return found
        try:
            return ScheduleValue(*found)
        except TypeError as error:
            raise GenoptError(
                f"path.schedule: {self.name} returned {type(found).__name__}; expected four "
                f"tensors: {', '.join(_NAMES)}"
            ) from error

    def _check(self) -> None:
        t = torch.linspace(0.0, 1.0, 101, dtype=torch.float64)
        at = self.schedule(t)
        for name in _NAMES:
            value = getattr(at, name)
            if not isinstance(value, Tensor) or value.shape != t.shape:
                shape = tuple(getattr(value, "shape", ()))
                raise GenoptError(
                    f"path.schedule: {name} of {self.name} is {type(value).__name__} of shape "
                    f"{shape} for times of shape {tuple(t.shape)}; expected a tensor of their shape"
                )
            if not bool(torch.isfinite(value).all()):
                where = float(t[~torch.isfinite(value)][0])
                raise GenoptError(
                    f"path.schedule: {name} of {self.name} is not finite at t = {where:.3g}: where "
                    "only the derivative is infinite, let time run slower there"
                )
        for name, end, wanted, allowed in (
            ("alpha", -1, 1.0, _AT_DATA),
            ("sigma", -1, 0.0, _AT_DATA),
            ("alpha", 0, 0.0, _AT_NOISE),
            ("sigma", 0, 1.0, _AT_NOISE),
        ):
            found = float(getattr(at, name)[end])
            if abs(found - wanted) > allowed:
                raise GenoptError(
                    f"path.schedule: {name} of {self.name} is {found:.6g} at t = {-end:d}, not "
                    f"{wanted:g}: t = 0 is noise (alpha 0, sigma 1), t = 1 is data (alpha 1, "
                    "sigma 0)"
                )
        inner = t[1:-1]
        after, before = self.schedule(inner + _STEP), self.schedule(inner - _STEP)
        for name in ("alpha", "sigma"):
            slope = (getattr(after, name) - getattr(before, name)) / (2.0 * _STEP)
            stated = getattr(at, f"d_{name}")[1:-1]
            off = (stated - slope).abs() - _SLOPE * slope.abs().clamp_min(1.0)
            if bool((off > 0).any()):
                worst = int(off.argmax())
                raise GenoptError(
                    f"path.schedule: d_{name} of {self.name} is {float(stated[worst]):.6g} at "
                    f"t = {float(inner[worst]):.3g}, but {name} changes at the rate "
                    f"{float(slope[worst]):.6g} there: return the derivative of {name}"
                )
        turning = (at.d_alpha * at.sigma - at.alpha * at.d_sigma)[1:-1]
        if bool((turning <= 0).any()):
            where = float(inner[turning <= 0][0])
            raise GenoptError(
                f"path.schedule: {self.name} stands still or turns back at t = {where:.3g}; "
                "alpha / sigma must grow all the way from noise to data"
            )


def _imported(name: str | None) -> Callable[[Tensor], Any]:
    if name is None:
        raise GenoptError(
            "path.schedule is missing: give the import path of a function of t, such as "
            f"my_module.my_schedule, that returns {', '.join(_NAMES)}"
        )
    if not isinstance(name, str):
        raise GenoptError(
            f"path.schedule: give the function's import path as text, such as my_module."
            f"{getattr(name, '__name__', 'my_schedule')}, so that checkpoints can name it; got "
            f"{type(name).__name__}"
        )
    module, _, attribute = name.rpartition(".")
    try:
        function: Callable[[Tensor], Any] = getattr(import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise GenoptError(
            f"path.schedule: cannot import {name!r}: {error}; give an import path such as "
            "my_module.my_schedule"
        ) from error
    if not callable(function):
        raise GenoptError(f"path.schedule: {name} is {type(function).__name__}, not a function")
    return function
