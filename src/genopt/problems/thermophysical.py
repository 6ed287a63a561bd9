"""Thermophysical: twelve measured properties of organic compounds, three quarters of them missing.

The labels come from the tables of the `chemicals` package (extra ``thermo``); x is made from the
formula, or with RDKit (extra ``rdkit``) from the structure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from genopt.data.table import Table
from genopt.errors import GenoptError, UnknownNameError
from genopt.problems.compounds import (
    PROPERTIES,
    Compound,
    identities,
    measured_properties,
    part_of_chemicals,
)
from genopt.problems.formulas import (
    ELEMENTS,
    GROUPS,
    RATIOS,
    STRUCTURE,
    count_columns,
    parse_formula,
    ratio_columns,
    structure_columns,
)
from genopt.problems.measurements import MeasuredProblem
from genopt.space import Space, Variable

DESCRIPTORS = ("counts", "formula", "rdkit")
COMPOUNDS = ("organic", "all")
_OTHER = "other_atoms"
_UNITS = {"molar_mass": "g/mol", "polar_surface": "Å2", "surface": "Å2"}
_REAL = ("sp3_share", "polar_surface", "surface", "chi_", "kappa_", "hall_")
# dissolves what N-methylpyrrolidone (477 K) dissolves, and is easier to dry
_GOAL = {
    "hansen_dispersion": {"equals": 18.0, "tolerance": 0.5},
    "hansen_polar": {"equals": 12.3, "tolerance": 1.0},
    "hansen_hydrogen": {"equals": 7.2, "tolerance": 1.0},
    "boiling_point": {"between": [370.0, 440.0]},
    "melting_point": {"at_most": 273.0},
}


class Thermophysical(MeasuredProblem):
    """Which compound has these properties? Twelve properties, most of them missing.

    Rows are the compounds of the CRC Handbook's organic table and of the tables of critical
    constants, enthalpies and Hansen parameters that the `chemicals` package brings, as far as it
    knows their formula; row ids are CAS numbers. Only measured or evaluated tables are read; what
    is dropped from them is said in `genopt.problems.compounds.measured_properties`. Densities are
    those of liquids and refractive indices those near 20 °C, enthalpies of vaporisation at 25 °C.

    A design is a row of descriptors, not a molecule. Isomers have the same formula and so the same
    x, and their spread is noise that no model can explain; a split keeps them together. A search
    may return a formula that no stable compound has, and with ``formula`` or ``rdkit`` descriptors
    that no compound has together: read a result as the neighbourhood to look in, and the nearest
    measured compound beside it as the proposal.

    Args:
        descriptors: ``counts`` of atoms; ``formula``, which adds molar mass, unsaturation and
            ratios; or ``rdkit``, which adds numbers of the structure.
        compounds: ``organic``, those with carbon and no element but C, H, N, O, F, Cl, Br, I, S, P
            and Si; or ``all``, with one more column that counts the other atoms.

    Raises:
        UnknownNameError: if there is no such choice.
        GenoptError: if the `chemicals` package, or RDKit where it is asked for, is missing.
    """

    def __init__(self, descriptors: str = "formula", compounds: str = "organic") -> None:
        if descriptors not in DESCRIPTORS:
            raise UnknownNameError("problem.descriptors", descriptors, DESCRIPTORS)
        if compounds not in COMPOUNDS:
            raise UnknownNameError("problem.compounds", compounds, COMPOUNDS)
        self.descriptors = descriptors
        self.kept = compounds
        labels = measured_properties()
        known = identities(labels.index)
        wanted = {number: c for number, c in known.items() if self._wanted(c.formula)}
        rows = self._rows_of(wanted)
        x = torch.tensor(list(rows.values()), dtype=torch.float64)
        y = torch.tensor(labels.loc[list(rows)].to_numpy(), dtype=torch.float64)
        self.compounds = {wanted[number].cas: wanted[number] for number in rows}
        table = Table(x, y, self._x_space(x), _y_space(y), row_ids=tuple(self.compounds))
        super().__init__(
            "thermophysical",
            table,
            _GOAL,
            description="Organic compounds that can stand in for a solvent, from sparse handbooks.",
            citation=(
                "Bell et al., chemicals, the Chemical Engineering Design Library (MIT licence): "
                "Haynes et al., CRC Handbook of Chemistry and Physics; IUPAC's critical constants; "
                "Passut and Danner (1973); enthalpies of vaporisation gathered by Gharagheizi; "
                "NIST WebBook and Open Notebook as checks; Hansen parameters of Diaz de los Rios "
                "and Murcia Belmonte, SN Appl. Sci. 4 (2022) 185, Alshehri et al., AIChE J. 68 "
                "(2022) e17469, HSPiPy (Gutierrez) and Schrier (2020)"
            ),
        )

    def designs(self, formulas: Sequence[str]) -> Tensor:
        """Designs of formulas, to ask a model about compounds that are not in the table.

        Args:
            formulas: such as ``["C2H6O"]``.

        Returns:
            Designs (n, P).

        Raises:
            GenoptError: if a formula cannot be read, is not among the compounds wanted, or the
                descriptors need a structure.
        """
        if self.descriptors == "rdkit":
            raise GenoptError("designs reads formulas; build the problem with descriptors=formula")
        rows = []
        for formula in formulas:
            if not self._wanted(formula):
                raise GenoptError(
                    f"formula {formula!r} is not among problem.compounds={self.kept}: organic ones "
                    f"have carbon and none but {', '.join(ELEMENTS)}; deuterium is written as H"
                )
            rows.append(self._row(formula))
        return torch.tensor(rows, dtype=torch.float64)

    def _wanted(self, formula: str) -> bool:
        atoms = parse_formula(formula)
        if self.kept == "all":
            # the identifiers write deuterium as an element of its own, which it is not
            return "D" not in atoms
        return "C" in atoms and set(atoms) <= set(ELEMENTS)

    def _row(self, formula: str) -> list[float]:
        atoms = parse_formula(formula)
        row = count_columns(atoms)
        if self.kept == "all":
            row.append(float(sum(n for symbol, n in atoms.items() if symbol not in ELEMENTS)))
        if self.descriptors != "counts":
            row += ratio_columns(atoms, _molar_mass(atoms))
        return row

    def _rows_of(self, compounds: Mapping[int, Compound]) -> dict[int, list[float]]:
        rows = {number: self._row(compound.formula) for number, compound in compounds.items()}
        if self.descriptors != "rdkit":
            return rows
        structures = structure_columns([compound.smiles for compound in compounds.values()])
        return {
            number: rows[number] + structure
            for number, structure in zip(rows, structures, strict=True)
            if structure is not None
        }

    def _x_space(self, x: Tensor) -> Space:
        names = [*ELEMENTS.values(), *([_OTHER] if self.kept == "all" else [])]
        counts = set(names)
        if self.descriptors != "counts":
            names += RATIOS
        if self.descriptors == "rdkit":
            names += [*STRUCTURE, *GROUPS]
            counts |= {n for n in (*STRUCTURE, *GROUPS) if not n.startswith(_REAL)}
        low, high = x.amin(0).tolist(), x.amax(0).tolist()
        return Space(
            tuple(
                Variable(
                    name,
                    low[i],
                    high[i],
                    _UNITS.get(name, ""),
                    "integer" if name in counts else "continuous",
                )
                for i, name in enumerate(names)
            )
        )


def _y_space(y: Tensor) -> Space:
    seen = [column[~torch.isnan(column)] for column in y.T]
    return Space(
        tuple(
            Variable(p.name, float(v.min()), float(v.max()), p.unit)
            for p, v in zip(PROPERTIES, seen, strict=True)
        )
    )


def _molar_mass(atoms: Mapping[str, int]) -> float:
    table = part_of_chemicals("elements", "periodic_table")
    try:
        return float(sum(table[symbol].MW * count for symbol, count in atoms.items()))
    except KeyError as error:
        raise GenoptError(f"formula: {error.args[0]}") from error
