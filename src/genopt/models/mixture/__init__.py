"""The mixture engine: a joint Gaussian mixture over designs and properties, conditioned exactly."""

from genopt.models.mixture.conditionals import ConditionalBatch
from genopt.models.mixture.engine import Mixture
from genopt.models.mixture.gmm import GaussianMixture
from genopt.models.mixture.selection import MixtureFit, best_gmm

__all__ = ["ConditionalBatch", "GaussianMixture", "Mixture", "MixtureFit", "best_gmm"]
