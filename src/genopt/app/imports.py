"""The imports of a study, made at once and without the garbage collector running over them.

Four hundred thousand objects come with torch and Lightning. To look through them again and again
costs a second while they are made, and a fifth of one whenever all is collected later.
"""

from __future__ import annotations

import gc
import sys
from importlib import import_module

_STUDY = "genopt.app.study"
_NAMES = (
    "pytorch_lightning",
    "pandas",
    _STUDY,
    "genopt.routines.checks",
    "genopt.analysis.diagnose",
    "genopt.analysis.metrics",
    "genopt.analysis.resimulation",
)
_FIGURES = ("genopt.analysis.plots.study", "matplotlib.backends.backend_agg")


def import_for_study(figures: bool) -> None:
    """Import what every study needs, if that has not been done in this process.

    Args:
        figures: whether figures will be drawn.
    """
    if _STUDY in sys.modules:
        return
    running = gc.isenabled()
    gc.disable()
    try:
        for name in (*_NAMES, *(_FIGURES if figures else ())):
            import_module(name)
    finally:
        if running:
            gc.enable()
    # modules stay for ever, so the collector need not look at them
    gc.freeze()
