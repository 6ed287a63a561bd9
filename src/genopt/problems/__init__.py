"""Problems: what is asked. Simulators with known answers, measured tables, the user's own file."""

from genopt.problems.absolute_value import AbsoluteValue
from genopt.problems.ackley import Ackley
from genopt.problems.alloy import Alloy
from genopt.problems.arm_kinematics import ArmKinematics
from genopt.problems.base import Answer, Problem
from genopt.problems.batch_reactor import BatchReactor
from genopt.problems.big_table import BigTableProblem
from genopt.problems.botorch_problem import BotorchProblem
from genopt.problems.branin import Branin
from genopt.problems.cstr_mapping import CstrMapping
from genopt.problems.evaporator import Evaporator
from genopt.problems.gasoline_blend import GasolineBlend
from genopt.problems.inactive_constraint import InactiveConstraint
from genopt.problems.linear_gaussian import LinearGaussian
from genopt.problems.measured import Hplc, Photostability, SuzukiCoupling
from genopt.problems.offline import Offline
from genopt.problems.peng_robinson import PengRobinson
from genopt.problems.plane_projection import PlaneProjection
from genopt.problems.plug_flow import PlugFlow
from genopt.problems.pymoo_problem import PymooProblem
from genopt.problems.rastrigin import Rastrigin
from genopt.problems.rastrigin_value import RastriginValue
from genopt.problems.reaction_equilibrium import ReactionEquilibrium
from genopt.problems.robot_arm import RobotArm
from genopt.problems.rosenbrock import Rosenbrock
from genopt.problems.simulator import SimulationWarning, Simulator
from genopt.problems.sine_wave import SineWave
from genopt.problems.stochastic import StochasticProblem
from genopt.problems.synthetic_pair import SyntheticPair
from genopt.problems.table import TableProblem
from genopt.problems.thermophysical import Thermophysical
from genopt.problems.two_moons import TwoMoons
from genopt.problems.two_widths import TwoWidths
from genopt.problems.zdt1 import Zdt1

__all__ = [
    "BotorchProblem",
    "PymooProblem",
    "Rosenbrock",
    "RastriginValue",
    "Offline",
    "Branin",
    "Ackley",
    "AbsoluteValue",
    "Alloy",
    "Answer",
    "ArmKinematics",
    "BatchReactor",
    "BigTableProblem",
    "CstrMapping",
    "Evaporator",
    "GasolineBlend",
    "Hplc",
    "InactiveConstraint",
    "LinearGaussian",
    "PengRobinson",
    "Photostability",
    "PlaneProjection",
    "PlugFlow",
    "Problem",
    "Rastrigin",
    "ReactionEquilibrium",
    "RobotArm",
    "SimulationWarning",
    "Simulator",
    "SineWave",
    "StochasticProblem",
    "SuzukiCoupling",
    "SyntheticPair",
    "TableProblem",
    "Thermophysical",
    "TwoMoons",
    "TwoWidths",
    "Zdt1",
]
