"""The flow engine: p(x | y) as a continuous flow from noise, learned by flow matching."""

from genopt.models.flow.conditional import ConditionalFlow
from genopt.models.flow.facade import ConditionalFlowMatching
from genopt.models.flow.unconditional import SampleFlow

__all__ = ["ConditionalFlow", "ConditionalFlowMatching", "SampleFlow"]
