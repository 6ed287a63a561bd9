"""Measured properties of compounds, gathered from the tables of the `chemicals` package.

Only tables of measured or evaluated values are read; predictions and collections that mix the two
are left out. What is dropped on the way is said in `measured_properties`.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from genopt.errors import GenoptError

if TYPE_CHECKING:
    import pandas as pd

_ROOM = (288.15, 303.15)
_LIQUID_BELOW = 298.15
_CRC = ("miscdata", "CRC_organic_data")
_WEBBOOK = ("miscdata", "webbook_data")
_CRITICAL = tuple(
    ("critical", f"critical_data_{name}") for name in ("CRC", "IUPAC", "PassutDanner")
)
_HANSEN = tuple(
    ("solubility", f"{name}_data")
    for name in ("manuel_ruben_2022", "alsheri_hansen", "hspipy", "wdr_schrier")
)


@dataclass(frozen=True)
class Property:
    """One property and where its values come from.

    Args:
        name: its column in genopt.
        unit: its unit there.
        field: its column in the tables of the package.
        tables: (module, table) in order of trust; the first that has a value gives it.
        checks: further tables that only check the values.
        scale: factor from the package's SI unit to the unit here.
        limits: values outside are typing errors, in the unit here.
        disagreement: largest difference between two tables, as a share of the value or, where
            ``absolute`` is set, in the unit here.
        absolute: whether the largest difference is in the unit here.
    """

    name: str
    unit: str
    field: str
    tables: tuple[tuple[str, str], ...]
    limits: tuple[float, float]
    checks: tuple[tuple[str, str], ...] = ()
    scale: float = 1.0
    disagreement: float = 0.1
    absolute: bool = False


PROPERTIES = (
    Property(
        "melting_point", "K", "Tm", (_CRC,), (40.0, 1000.0), (("phase_change", "Tm_ON_data"),)
    ),
    Property("boiling_point", "K", "Tb", (_CRC,), (80.0, 1000.0), (_WEBBOOK,)),
    Property("density", "kg/m3", "rho", (_CRC,), (300.0, 5000.0)),
    Property("refractive_index", "", "RI", (("refractivity", "RI_data_CRC_organic"),), (1.1, 2.2)),
    Property("critical_temperature", "K", "Tc", _CRITICAL, (100.0, 1200.0), (_WEBBOOK,)),
    Property("critical_pressure", "MPa", "Pc", _CRITICAL, (0.1, 30.0), (_WEBBOOK,), 1e-6, 0.2),
    Property(
        "critical_volume", "cm3/mol", "Vc", _CRITICAL[:2], (40.0, 5000.0), (_WEBBOOK,), 1e6, 0.2
    ),
    Property(
        "enthalpy_of_fusion",
        "kJ/mol",
        "Hfus",
        (("phase_change", "Hfus_data_CRC"),),
        (0.05, 300.0),
        scale=1e-3,
    ),
    Property(
        "enthalpy_of_vaporization",
        "kJ/mol",
        "Hvap298",
        (("phase_change", "Hvap_data_CRC"), ("phase_change", "Hvap_data_Gharagheizi")),
        (5.0, 400.0),
        scale=1e-3,
    ),
    *(
        Property(
            f"hansen_{name}",
            "MPa^0.5",
            f"HANSEN_DELTA_{letter}",
            _HANSEN,
            (0.0, 60.0),
            scale=1e-3,
            disagreement=3.0,
            absolute=True,
        )
        for name, letter in (("dispersion", "D"), ("polar", "P"), ("hydrogen", "H"))
    ),
)


@dataclass(frozen=True)
class Compound:
    """Who a row is.

    Args:
        cas: CAS registry number.
        name: common name.
        formula: in Hill's order.
        smiles: the structure.
    """

    cas: str
    name: str
    formula: str
    smiles: str


def part_of_chemicals(module: str, name: str) -> Any:
    """A table or a function of the `chemicals` package.

    Args:
        module: module of the package.
        name: name in the module.

    Returns:
        What stands there.

    Raises:
        GenoptError: if the package is not installed, or too old to have it.
    """
    try:
        return getattr(importlib.import_module(f"chemicals.{module}"), name)
    except ImportError as error:
        raise GenoptError(
            "problem=thermophysical reads the tables of the chemicals package: "
            "pip install genopt[thermo]"
        ) from error
    except AttributeError as error:
        raise GenoptError(
            f"the installed chemicals package has no {module}.{name}: "
            "pip install --upgrade genopt[thermo]"
        ) from error


def measured_properties() -> pd.DataFrame:
    """The labels: one row a compound, one column a property, NaN where nothing was measured.

    Dropped are values outside a property's limits (a critical temperature of 0 K); values of which
    another table says something else by more than the property's ``disagreement``; boiling points
    below the melting point, with it, and critical temperatures below the boiling point; densities
    that are not a liquid's near room temperature, as a crystal's density is another property; and
    refractive indices taken outside 15 to 30 °C. Typing errors inside the limits stay, as in every
    handbook.

    Returns:
        The data frame, by CAS number as an integer.
    """
    import pandas as pd

    frame = pd.DataFrame({p.name: _values(p) for p in PROPERTIES})
    # nothing boils below its melting point or above its critical point
    boiling = frame["boiling_point"]
    frame.loc[frame["critical_temperature"] < boiling, "critical_temperature"] = math.nan
    frame.loc[boiling < frame["melting_point"], ["melting_point", "boiling_point"]] = math.nan
    melting, boiling = frame["melting_point"], frame["boiling_point"]
    # without a melting point, a boiling point or a refractive index tells of a liquid
    seen_liquid = boiling.notna() | frame["refractive_index"].notna()
    liquid = (melting <= _LIQUID_BELOW) | (melting.isna() & seen_liquid)
    frame["density"] = frame["density"].where(liquid & ~(boiling < _ROOM[0]))
    return frame.dropna(how="all").sort_index()


def identities(numbers: Iterable[int]) -> dict[int, Compound]:
    """Formula and structure of compounds, from the package's own identifiers.

    Args:
        numbers: CAS numbers as integers.

    Returns:
        By CAS number; compounds that the package cannot identify, and ions, are left out.
    """
    database = part_of_chemicals("identifiers", "pubchem_db")
    as_text = part_of_chemicals("identifiers", "int_to_CAS")
    found = {}
    for number in numbers:
        entry = database.search_CAS(int(number))
        if entry and entry.formula and entry.formula.isalnum():
            found[int(number)] = Compound(
                str(as_text(int(number))),
                str(entry.common_name or ""),
                str(entry.formula),
                str(entry.smiles or ""),
            )
    return found


def _values(wanted: Property) -> pd.Series[Any]:
    """The values of one property, by CAS number as an integer."""
    import pandas as pd

    merged: pd.Series[Any] = pd.Series(dtype=float)
    doubtful: pd.Series[Any] = pd.Series(dtype=bool)
    for tables, fills in ((wanted.tables, True), (wanted.checks, False)):
        for module, table in tables:
            values = _column(part_of_chemicals(module, table), wanted)
            both = merged.index.intersection(values.index)
            apart = (merged[both] - values[both]).abs()
            allowed = wanted.disagreement * (1.0 if wanted.absolute else merged[both].abs())
            doubtful = doubtful.reindex(doubtful.index.union(both), fill_value=False)
            doubtful[both] = doubtful[both] | (apart > allowed)
            if fills:
                merged = values if merged.empty else merged.combine_first(values)
    return merged.drop(doubtful.index[doubtful.to_numpy(dtype=bool)])


def _column(table: pd.DataFrame, wanted: Property) -> pd.Series[Any]:
    """One column of a table of the package, cleaned, in the unit wanted."""
    import pandas as pd

    to_number = part_of_chemicals("identifiers", "CAS_to_int")
    values = pd.to_numeric(table[wanted.field], errors="coerce").astype(float) * wanted.scale
    low, high = wanted.limits
    keep = (values >= low) & (values <= high)
    if "RIT" in table:
        temperature = pd.to_numeric(table["RIT"], errors="coerce")
        keep &= (temperature >= _ROOM[0]) & (temperature <= _ROOM[1])
    kept = values[keep]
    # some tables of the package are indexed by text, others by numbers
    numbers = [c if isinstance(c, (int, np.integer)) else to_number(c) for c in kept.index]
    kept.index = pd.Index(np.array(numbers, dtype=np.int64))
    return kept[~kept.index.duplicated()]
