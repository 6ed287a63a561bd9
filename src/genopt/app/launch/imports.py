"""What nearly every study imports: loaded once by the process from which jobs are forked."""

from importlib import import_module

from genopt.app.imports import import_for_study

# imported by studies when they are first used, so by each forked job anew
LATE = (
    "sklearn.cluster",
    "hydra",
    "genopt.app.compose",
    "genopt.app.launch.local",
    "genopt.models.flow.conditional",
    "genopt.models.mixture.engine",
    "genopt.models.multitask.model",
    "genopt.routines.checks",
)
for name in LATE:
    import_module(name)
import_for_study(figures=True)
