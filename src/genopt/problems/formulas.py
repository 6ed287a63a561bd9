"""Chemical formulas as design columns: atom counts, ratios, and RDKit's numbers of structures."""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from genopt.errors import GenoptError

ELEMENTS = {
    "C": "carbon",
    "H": "hydrogen",
    "N": "nitrogen",
    "O": "oxygen",
    "F": "fluorine",
    "Cl": "chlorine",
    "Br": "bromine",
    "I": "iodine",
    "S": "sulfur",
    "P": "phosphorus",
    "Si": "silicon",
}
RATIOS = (
    "molar_mass",
    "unsaturation",
    "hydrogen_share",
    "carbon_share",
    "oxygen_share",
    "nitrogen_share",
    "halogen_share",
)
# name in genopt: function in rdkit.Chem.Descriptors or rdMolDescriptors
STRUCTURE = {
    "rings": "CalcNumRings",
    "aromatic_rings": "CalcNumAromaticRings",
    "rotatable_bonds": "CalcNumRotatableBonds",
    "donors": "CalcNumHBD",
    "acceptors": "CalcNumHBA",
    "amides": "CalcNumAmideBonds",
    "bridgeheads": "CalcNumBridgeheadAtoms",
    "sp3_share": "CalcFractionCSP3",
    "polar_surface": "CalcTPSA",
    "surface": "CalcLabuteASA",
    "chi_0": "CalcChi0n",
    "chi_1": "CalcChi1n",
    "chi_2": "CalcChi2n",
    "chi_3": "CalcChi3n",
    "chi_0_valence": "CalcChi0v",
    "chi_1_valence": "CalcChi1v",
    "chi_2_valence": "CalcChi2v",
    "chi_3_valence": "CalcChi3v",
    "kappa_1": "CalcKappa1",
    "kappa_2": "CalcKappa2",
    "hall_kier_alpha": "CalcHallKierAlpha",
}
# groups of atoms that decide about cohesion, as SMARTS patterns, counted
GROUPS = {
    "hydroxyls": "[OX2H][#6;!$(C=O)]",
    "acids": "[CX3](=O)[OX2H]",
    "esters": "[CX3](=O)[OX2][#6]",
    "ethers": "[OX2;!$(OC=O)]([#6])[#6]",
    "carbonyls": "[#6][CX3](=O)[#6,#1]",
    "amines": "[NX3;!$(NC=O);!$(N=*);!$([N+])]",
    "nitriles": "[CX2]#[NX1]",
    "nitros": "[$([NX3](=O)=O),$([NX3+](=O)[O-])]",
    "methyls": "[CH3]",
    "tertiary_carbons": "[CX4;H0,H1]([#6])([#6])[#6]",
    "ions": "[+,-;!$([N+](=O)[O-]);!$([O-][N+]=O)]",
}
_PART = re.compile(r"([A-Z][a-z]?)(\d*)")


def parse_formula(formula: str) -> dict[str, int]:
    """The atoms of a plain formula.

    Args:
        formula: element symbols with counts, such as ``C2H6O``; no brackets and no charge.

    Returns:
        Atom counts by element symbol.

    Raises:
        GenoptError: if the text is no such formula.

    Example:
        >>> parse_formula("C2H6O")
        {'C': 2, 'H': 6, 'O': 1}
    """
    parts = _PART.findall(formula)
    if not parts or "".join(symbol + count for symbol, count in parts) != formula:
        raise GenoptError(
            f"formula {formula!r} cannot be read: write element symbols with counts, as in C2H6O"
        )
    atoms: dict[str, int] = {}
    for symbol, count in parts:
        atoms[symbol] = atoms.get(symbol, 0) + (int(count) if count else 1)
    return atoms


def count_columns(atoms: Mapping[str, int]) -> list[float]:
    """Atom counts in the order of ``ELEMENTS``.

    Args:
        atoms: atom counts by element symbol.

    Returns:
        One number for each of the elements.
    """
    return [float(atoms.get(symbol, 0)) for symbol in ELEMENTS]


def ratio_columns(atoms: Mapping[str, int], molar_mass: float) -> list[float]:
    """Ratios in the order of ``RATIOS``.

    Unsaturation counts rings and multiple bonds from the usual valences, one for hydrogen and
    halogens, three for nitrogen and phosphorus, four for carbon and silicon.

    Args:
        atoms: atom counts by element symbol.
        molar_mass: in g/mol.

    Returns:
        One number for each of the ratios; shares of halogens, oxygen, nitrogen and carbon are of
        the atoms that are no hydrogen, the share of hydrogen is of all atoms.
    """

    def count(*symbols: str) -> int:
        return sum(atoms.get(symbol, 0) for symbol in symbols)

    total = sum(atoms.values())
    heavy = max(1, total - count("H"))
    halogens = count("F", "Cl", "Br", "I")
    unsaturation = 1.0 + count("C", "Si") + (count("N", "P") - count("H") - halogens) / 2.0
    return [
        molar_mass,
        unsaturation,
        count("H") / total,
        count("C") / heavy,
        count("O") / heavy,
        count("N") / heavy,
        halogens / heavy,
    ]


def structure_columns(smiles: Sequence[str]) -> list[list[float] | None]:
    """RDKit's numbers of structures: ``STRUCTURE``, then ``GROUPS``.

    Args:
        smiles: structures as SMILES.

    Returns:
        For each structure one number a name, or None where RDKit cannot read it.

    Raises:
        GenoptError: if RDKit is not installed.
    """
    try:
        chem: Any = importlib.import_module("rdkit.Chem")
        descriptors = importlib.import_module("rdkit.Chem.rdMolDescriptors")
        base: Any = importlib.import_module("rdkit.rdBase")
    except ImportError as error:
        raise GenoptError(
            "problem.descriptors=rdkit needs RDKit: pip install genopt[rdkit], or choose "
            "problem.descriptors=formula"
        ) from error
    functions = [getattr(descriptors, name) for name in STRUCTURE.values()]
    patterns = [chem.MolFromSmarts(pattern) for pattern in GROUPS.values()]
    rows: list[list[float] | None] = []
    # structures that cannot be read come back as None, so RDKit need not write about them
    with base.BlockLogs():
        for text in smiles:
            molecule = chem.MolFromSmiles(text) if text else None
            if molecule is None:
                rows.append(None)
                continue
            numbers = [float(function(molecule)) for function in functions]
            groups = [float(len(molecule.GetSubstructMatches(p))) for p in patterns]
            rows.append([*numbers, *groups])
    return rows
