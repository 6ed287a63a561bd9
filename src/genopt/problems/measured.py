"""Measured tables that come with genopt: three experiments from the literature.

Each is a `TableProblem`. The files and their provenance lie in the folder ``tables`` beside this
module.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from importlib.resources import as_file, files
from pathlib import Path

from genopt.problems.table import TableProblem

_OLYMPUS = "Olympus (Haese et al., Mach. Learn.: Sci. Technol. 2 (2021) 035021, MIT licence)"
_SUMMIT = "Summit (Felton et al., Chemistry-Methods 1 (2021) 116, MIT licence)"
_CASES = (1, 2, 3, 4)
_TURNOVERS = (85.0, 21.0, 86.0, 130.0)


def _shipped(name: str) -> AbstractContextManager[Path]:
    """A file of the folder ``tables``, also where the package is not a plain folder."""
    return as_file(files("genopt.problems") / "tables" / name)


class Photostability(TableProblem):
    """Blends of four organic solar-cell materials: 1040 films, 20 compositions measured twice.

    The four fractions form a simplex. They were recorded with four decimals that sum to one; every
    row is scaled so that its floats do so as well. Repeated films stay, each with its own
    measurement. The degradation under light was measured in two series that differ in the second
    material (the polymers PCE10 and WF3); lower is better in both.
    """

    def __init__(self) -> None:
        fractions = ("mat_1", "mat_2", "mat_3", "mat_4")
        with _shipped("photostability.csv") as path:
            super().__init__(
                path,
                x=fractions,
                y=("degradation_pce10", "degradation_wf3"),
                goal={"degradation_pce10": "min", "degradation_wf3": "min"},
                bounds={"degradation_pce10": (0.0, 0.75), "degradation_wf3": (0.0, 0.75)},
                simplexes=[fractions],
                description="Four-component polymer blends that degrade little under light.",
                citation=(
                    "Langner et al., Advanced Materials 32 (2020) 1907801; tables photo_pce10 and "
                    f"photo_wf3 of {_OLYMPUS}"
                ),
            )


class SuzukiCoupling(TableProblem):
    """Flow experiments of a Suzuki-Miyaura coupling: 385 rows.

    Each row measures one of four substrate pairs. Turnover and yield of the four pairs (cases 1 to
    4) are eight properties, six of which are missing in every row.
    """

    def __init__(self) -> None:
        turnovers = [f"turnover_case_{case}" for case in _CASES]
        yields = [f"yield_pct_case_{case}" for case in _CASES]
        with _shipped("suzuki_coupling.csv") as path:
            super().__init__(
                path,
                x=("catalyst", "residence_time_s", "temperature_C", "catalyst_loading_pct"),
                y=[name for pair in zip(turnovers, yields, strict=True) for name in pair],
                goal={"turnover_case_1": "max", "yield_pct_case_1": "max"},
                bounds={name: (0.0, top) for name, top in zip(turnovers, _TURNOVERS, strict=True)}
                | dict.fromkeys(yields, (0.0, 100.0)),
                units={
                    "residence_time_s": "s",
                    "temperature_C": "°C",
                    "catalyst_loading_pct": "mol%",
                }
                | dict.fromkeys(yields, "%"),
                description="Catalyst and conditions of a Suzuki-Miyaura coupling.",
                citation=f"Reizman et al., React. Chem. Eng. 1 (2016) 658; tables of {_SUMMIT}",
            )


class Hplc(TableProblem):
    """Settings of an automated HPLC sampler: 1386 injections, 229 of them without any peak."""

    def __init__(self) -> None:
        with _shipped("hplc.csv") as path:
            super().__init__(
                path,
                x=(
                    "sample_loop",
                    "additional_volume",
                    "tubing_volume",
                    "sample_flow",
                    "push_speed",
                    "wait_time",
                ),
                y=("peak_area",),
                goal={"peak_area": "max"},
                units={
                    "sample_loop": "mL",
                    "additional_volume": "mL",
                    "tubing_volume": "mL",
                    "sample_flow": "mL/min",
                    "push_speed": "Hz",
                    "wait_time": "s",
                },
                description="Sampler settings of a chromatograph with the largest peak.",
                citation=f"Roch et al., PLoS ONE 15 (2020) e0229862; table hplc of {_OLYMPUS}",
            )
