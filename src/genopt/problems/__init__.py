"""Problems: what is asked. Simulators with known answers, measured tables, the user's own file."""

from genopt.problems.absolute_value import AbsoluteValue
from genopt.problems.arm_kinematics import ArmKinematics
from genopt.problems.base import Answer, Problem
from genopt.problems.inactive_constraint import InactiveConstraint
from genopt.problems.measured import Hplc, Photostability, SuzukiCoupling
from genopt.problems.peng_robinson import PengRobinson
from genopt.problems.plane_projection import PlaneProjection
from genopt.problems.plug_flow import PlugFlow
from genopt.problems.table import TableProblem

__all__ = [
    "AbsoluteValue",
    "Answer",
    "ArmKinematics",
    "Hplc",
    "InactiveConstraint",
    "PengRobinson",
    "Photostability",
    "PlaneProjection",
    "PlugFlow",
    "Problem",
    "SuzukiCoupling",
    "TableProblem",
]
