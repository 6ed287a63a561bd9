"""Thermophysical: known compounds, cleaned labels, formulas, messages about missing packages."""

from __future__ import annotations

import math
import sys
from typing import Any

import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from genopt.errors import GenoptError, UnknownNameError
from genopt.problems import Thermophysical, compounds
from genopt.problems.formulas import (
    ELEMENTS,
    GROUPS,
    STRUCTURE,
    parse_formula,
    ratio_columns,
    structure_columns,
)

pytest.importorskip("chemicals")


@pytest.fixture(scope="module")
def problem() -> Thermophysical:
    return Thermophysical()


def row_of(problem: Thermophysical, cas: str) -> tuple[dict[str, float], dict[str, float]]:
    table = problem.table()
    i = table.row_ids.index(cas)
    x = dict(zip(problem.x_space.names, table.x[i].tolist(), strict=True))
    return x, dict(zip(problem.y_space.names, table.y[i].tolist(), strict=True))


def test_sparse_table(problem: Thermophysical) -> None:
    table = problem.table()
    assert len(table) == len(set(table.row_ids)) == problem.default_rows
    assert 9_500 < len(table) < 11_000
    assert problem.y_space.dim == 12
    assert 0.74 < table.missing_share < 0.79
    assert bool((~torch.isnan(table.y)).any(1).all())
    assert not problem.has_simulator
    assert bool(problem.x_space.contains(table.x).all())
    assert [v.kind for v in problem.x_space][:11] == ["integer"] * 11
    rows = {row["column"]: row for row in problem.describe()}
    assert rows["carbon"]["missing"] == "none"
    assert rows["enthalpy_of_fusion"]["missing"].endswith(f"of {len(table)}")
    assert rows["boiling_point"]["unit"] == "K"


def test_ethanol(problem: Thermophysical) -> None:
    x, y = row_of(problem, "64-17-5")
    assert (x["carbon"], x["hydrogen"], x["oxygen"], x["nitrogen"]) == (2, 6, 1, 0)
    assert x["molar_mass"] == pytest.approx(46.069, abs=2e-3)
    assert x["unsaturation"] == 0
    assert x["hydrogen_share"] == pytest.approx(6 / 9)
    assert x["oxygen_share"] == pytest.approx(1 / 3)
    # handbook values, rounded
    expected = {
        "melting_point": (159.0, 1.0),
        "boiling_point": (351.4, 0.5),
        "density": (789.0, 3.0),
        "refractive_index": (1.361, 2e-3),
        "critical_temperature": (514.0, 2.0),
        "critical_pressure": (6.2, 0.15),
        "critical_volume": (167.0, 3.0),
        "enthalpy_of_vaporization": (42.3, 0.5),
        "hansen_dispersion": (15.8, 0.3),
        "hansen_polar": (8.8, 0.3),
        "hansen_hydrogen": (19.4, 0.3),
    }
    for name, (value, tolerance) in expected.items():
        assert y[name] == pytest.approx(value, abs=tolerance), name


def test_what_is_no_liquids_density_or_contradicts_itself_is_dropped(
    problem: Thermophysical,
) -> None:
    naphthalene = row_of(problem, "91-20-3")[1]
    assert naphthalene["melting_point"] == pytest.approx(353.4, abs=1.0)
    assert math.isnan(naphthalene["density"])
    y = dict(zip(problem.y_space.names, problem.table().y.T, strict=True))
    assert not bool((y["boiling_point"] < y["melting_point"]).any())
    assert not bool((y["critical_temperature"] < y["boiling_point"]).any())
    # corresponding states: the boiling point is near two thirds of the critical temperature
    ratio = y["boiling_point"] / y["critical_temperature"]
    assert 0.6 < float(ratio[~torch.isnan(ratio)].median()) < 0.72


def test_cleaning_follows_its_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    real = compounds.part_of_chemicals
    fields = {p.field for p in compounds.PROPERTIES}

    def table(index: list[Any], **columns: list[float]) -> pd.DataFrame:
        return pd.DataFrame(columns | dict.fromkeys(fields - set(columns), math.nan), index=index)

    crc = table(
        ["64-17-5", "71-43-2", "91-20-3", "67-64-1"],
        Tm=[159.0, 278.0, 353.0, 500.0],
        Tb=[351.0, 353.0, 491.0, 329.0],
        rho=[789.0, 876.0, 1025.0, 784.0],
    )
    tables = {
        ("miscdata", "CRC_organic_data"): crc,
        ("miscdata", "webbook_data"): table([71432], Tb=[420.0], Tc=[0.0]),
        ("refractivity", "RI_data_CRC_organic"): table(
            ["64-17-5", "91-20-3"], RI=[1.36, 1.59], RIT=[293.15, 373.15]
        ),
        ("critical", "critical_data_CRC"): table(["64-17-5"], Tc=[514.0]),
        ("critical", "critical_data_IUPAC"): table(["64-17-5", "71-43-2"], Tc=[0.514, 562.0]),
    }

    def fake(module: str, name: str) -> Any:
        if module == "identifiers":
            return real(module, name)
        return tables.get((module, name), table([]))

    monkeypatch.setattr(compounds, "part_of_chemicals", fake)
    frame = compounds.measured_properties()
    ethanol, benzene = frame.loc[64175], frame.loc[71432]
    assert ethanol["critical_temperature"] == 514.0
    # 353 K here, 420 K there: nobody knows
    assert math.isnan(benzene["boiling_point"])
    assert benzene["critical_temperature"] == 562.0
    assert benzene["density"] == 876.0
    # a crystal's density, and an index of the melt
    assert math.isnan(frame.loc[91203, "density"])
    assert math.isnan(frame.loc[91203, "refractive_index"])
    assert ethanol["refractive_index"] == 1.36
    # nothing boils below its melting point, and what is left says nothing of the state
    assert 67641 not in frame.index


def test_isomers_share_a_design_and_a_split(problem: Thermophysical) -> None:
    table = problem.table()
    assert row_of(problem, "64-17-5")[0] == row_of(problem, "115-10-6")[0]
    split = table.with_split(0.2, 0.2, seed=3)
    of_formula: dict[str, set[str]] = {}
    for cas, part in zip(split.row_ids, split.split, strict=True):
        of_formula.setdefault(problem.compounds[cas].formula, set()).add(part)
    assert max(map(len, of_formula.values())) == 1
    assert {part for parts in of_formula.values() for part in parts} == set(split.split)


def test_some_rows(problem: Thermophysical) -> None:
    part = problem.table(20, seed=1)
    assert part.row_ids == problem.table(20, seed=1).row_ids
    assert part.row_ids != problem.table(20, seed=2).row_ids
    assert torch.equal(problem.design(20, seed=1), part.x)
    with pytest.raises(GenoptError, match="measured rows"):
        problem.table(10**6)


def test_designs_of_formulas(problem: Thermophysical) -> None:
    table = problem.table()
    cas = table.row_ids[::500]
    formulas = [problem.compounds[c].formula for c in cas]
    torch.testing.assert_close(problem.designs(formulas), table.x[::500])
    with pytest.raises(GenoptError, match="NaCl"):
        problem.designs(["NaCl"])
    with pytest.raises(GenoptError, match="cannot be read"):
        problem.designs(["C2H5(OH)"])


def test_choices() -> None:
    with pytest.raises(UnknownNameError, match="formula"):
        Thermophysical(descriptors="formulae")
    with pytest.raises(UnknownNameError, match="organic"):
        Thermophysical(compounds="organics")
    every = Thermophysical("counts", "all")
    assert every.x_space.names == (*ELEMENTS.values(), "other_atoms")
    assert 10_300 < len(every.table()) < 11_300
    salt = every.table().row_ids.index("7647-14-5")
    assert every.table().x[salt, every.x_space.index("other_atoms")] == 1
    with pytest.raises(GenoptError, match="deuterium"):
        every.designs(["D2O"])
    with pytest.raises(GenoptError, match="Xx"):
        Thermophysical("formula", "all").designs(["Xx2"])


@given(st.dictionaries(st.sampled_from(sorted(ELEMENTS)), st.integers(1, 99), min_size=1))
def test_formulas_are_read_as_they_are_written(atoms: dict[str, int]) -> None:
    text = "".join(s + (str(n) if n > 1 else "") for s, n in atoms.items())
    assert parse_formula(text) == atoms


@pytest.mark.parametrize(
    ("formula", "rings_and_multiple_bonds"),
    [("C6H6", 4), ("C2H3N", 2), ("CHCl3", 0), ("C6H5NO2", 5), ("C4H12Si", 0), ("C60", 61)],
)
def test_unsaturation(formula: str, rings_and_multiple_bonds: float) -> None:
    assert ratio_columns(parse_formula(formula), 1.0)[1] == rings_and_multiple_bonds


@pytest.mark.parametrize("text", ["", "c2h6", "C2H6O+", "2C", "C-H"])
def test_what_is_no_formula(text: str) -> None:
    with pytest.raises(GenoptError, match="C2H6O"):
        parse_formula(text)


def test_without_the_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "rdkit.Chem", None)
        with pytest.raises(GenoptError, match=r"pip install genopt\[rdkit\]"):
            structure_columns(["CCO"])
    monkeypatch.setitem(sys.modules, "chemicals", None)
    monkeypatch.setitem(sys.modules, "chemicals.miscdata", None)
    with pytest.raises(GenoptError, match=r"pip install genopt\[thermo\]"):
        Thermophysical()
    monkeypatch.undo()
    with pytest.raises(GenoptError, match="upgrade"):
        compounds.part_of_chemicals("critical", "no_such_table")


def test_structures(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("rdkit")
    names = [*STRUCTURE, *GROUPS]
    smiles = ["CCOC(C)=O", "OC(=O)c1ccccc1", "CCOCC", "CC(C)O", "C[N+](=O)[O-]", "no molecule"]
    rows = structure_columns(smiles)
    assert rows[-1] is None
    seen = [{n: v for n, v in zip(names, row, strict=True) if v} for row in rows[:-1] if row]
    ester, acid, ether, alcohol, nitro = seen
    assert (ester["esters"], ester["methyls"]) == (1, 2)
    assert not {"ethers", "acids", "hydroxyls", "carbonyls"} & set(ester)
    assert (acid["acids"], acid["aromatic_rings"], acid["donors"]) == (1, 1, 1)
    assert not {"esters", "hydroxyls"} & set(acid)
    assert ether["ethers"] == 1
    assert alcohol["hydroxyls"] == 1
    assert nitro["nitros"] == 1
    assert "ions" not in nitro
    # the structure's own mass and atoms, from another source than the formula
    from rdkit import Chem
    from rdkit.Chem import Descriptors

    monkeypatch.setattr(
        "genopt.problems.thermophysical.measured_properties",
        lambda: _thinned(),
    )
    problem = Thermophysical("rdkit")
    table = problem.table()
    mass, carbon = (problem.x_space.index(n) for n in ("molar_mass", "carbon"))
    for row, cas in zip(table.x, table.row_ids, strict=True):
        molecule = Chem.MolFromSmiles(problem.compounds[cas].smiles)
        assert float(row[mass]) == pytest.approx(Descriptors.MolWt(molecule), rel=1e-3)
        assert float(row[carbon]) == sum(a.GetSymbol() == "C" for a in molecule.GetAtoms())
    with pytest.raises(GenoptError, match="descriptors=formula"):
        problem.designs(["C2H6O"])


def _thinned() -> pd.DataFrame:
    frame = compounds.measured_properties()
    return frame[frame["hansen_polar"].notna()].iloc[::12]
