"""The multi-task engine: one encoder, many heads, trained together on sparse labels."""

from genopt.models.multitask.ensemble import MultiTaskEnsemble
from genopt.models.multitask.model import FlexibleMultiTaskModel

__all__ = ["FlexibleMultiTaskModel", "MultiTaskEnsemble"]
