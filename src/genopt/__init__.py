"""genopt: which designs reach the properties that I want?

It learns from a table of designs and measured properties, or from a simulator, and returns designs
that reach a goal, with uncertainty, checked. Names are imported when they are first used, so
``import genopt`` is light.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_EXPORTS = {
    "Variable": "genopt.space",
    "Space": "genopt.space",
    "Goal": "genopt.goal",
    "Constraint": "genopt.constraint",
    "Candidates": "genopt.candidates",
    "ForwardModel": "genopt.protocols",
    "ConditionalModel": "genopt.protocols",
    "GenoptError": "genopt.errors",
    "Table": "genopt.data.table",
    "ArrowTable": "genopt.data.streaming",
    "generate_samples": "genopt.data.sampling",
    "sample_space": "genopt.data.sampling",
    "cluster_stats": "genopt.modes",
    "Problem": "genopt.problems.base",
    "FitOptions": "genopt.models.options",
    "FlexibleMultiTaskModel": "genopt.models.multitask",
    "MultiTaskEnsemble": "genopt.models.multitask",
    "ConditionalFlow": "genopt.models.flow",
    "SampleFlow": "genopt.models.flow",
    "ConditionalFlowMatching": "genopt.models.flow",
    "GaussianMixture": "genopt.models.mixture",
    "Mixture": "genopt.models.mixture",
    "MixtureFit": "genopt.models.mixture",
    "calibrate": "genopt.analysis.calibrate",
    "c2st": "genopt.analysis.two_sample",
    "validate_gmm": "genopt.analysis.mixtures",
    "estimate_sample_size": "genopt.analysis.mixtures",
    "best_gmm": "genopt.models.mixture",
    "optimize_latent": "genopt.routines.optimize_latent",
    "optimize_latent_candidates": "genopt.routines.latent_candidates",
    "condition": "genopt.routines.sample",
    "generate": "genopt.routines.sample",
    "verify": "genopt.routines.verify",
    "Simulator": "genopt.problems.simulator",
    "propose": "genopt.routines.propose",
    "refine": "genopt.routines.refine",
    "refine_candidates": "genopt.routines.refine",
    "multistart": "genopt.routines.multistart",
    "hybrid": "genopt.routines.hybrid",
    "stationary": "genopt.routines.stationary",
    "stationary_points": "genopt.routines.stationary_solve",
    "space_map": "genopt.routines.space_map",
    "adaptive_table": "genopt.problems.adaptive",
    "pareto": "genopt.routines.pareto",
    "active": "genopt.routines.active",
    "advise": "genopt.analysis.advise",
    "Advice": "genopt.analysis.advise",
    "diagnose": "genopt.analysis.diagnose",
    "Finding": "genopt.analysis.findings",
    "plot_learning_curves": "genopt.analysis.plots",
    "compose": "genopt.app.compose",
    "run_study": "genopt.app.study",
}

__all__ = ["__version__", *_EXPORTS]


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module 'genopt' has no attribute {name!r}")
    value = getattr(import_module(_EXPORTS[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
