"""Plots: each function takes finished numbers and returns a matplotlib figure; none computes."""

from genopt.analysis.plots.calibration import plot_calibration
from genopt.analysis.plots.conditional import plot_conditional
from genopt.analysis.plots.coverage import plot_coverage
from genopt.analysis.plots.front import plot_front, plot_study_front
from genopt.analysis.plots.learning import plot_learning_curves
from genopt.analysis.plots.mixtures import (
    plot_conditional_density,
    plot_ellipses,
    plot_responsibilities,
)
from genopt.analysis.plots.pairs import plot_pairs
from genopt.analysis.plots.parity import plot_parity
from genopt.analysis.plots.progress import plot_progress, plot_study_progress
from genopt.analysis.plots.properties import plot_properties
from genopt.analysis.plots.ranks import plot_ranks
from genopt.analysis.plots.reconstruction import plot_reconstruction
from genopt.analysis.plots.resimulation import plot_resimulation
from genopt.analysis.plots.space_map import plot_space_map, plot_study_space_map
from genopt.analysis.plots.stationary import plot_stationary, plot_study_stationary
from genopt.analysis.plots.trajectories import plot_flow_trajectories, plot_search_trajectories
from genopt.analysis.plots.verified import plot_claimed_verified

__all__ = [
    "plot_calibration",
    "plot_claimed_verified",
    "plot_conditional",
    "plot_conditional_density",
    "plot_coverage",
    "plot_ellipses",
    "plot_flow_trajectories",
    "plot_front",
    "plot_learning_curves",
    "plot_pairs",
    "plot_parity",
    "plot_progress",
    "plot_properties",
    "plot_ranks",
    "plot_reconstruction",
    "plot_resimulation",
    "plot_responsibilities",
    "plot_search_trajectories",
    "plot_space_map",
    "plot_stationary",
    "plot_study_front",
    "plot_study_space_map",
    "plot_study_progress",
    "plot_study_stationary",
]
