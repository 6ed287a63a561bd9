"""Is a mixture to be trusted: predictions and round trips of rows, and how many rows it needs."""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from genopt.analysis.metrics import regression_scores
from genopt.analysis.plots.parity import plot_parity
from genopt.errors import GenoptError
from genopt.models.mixture import GaussianMixture, Mixture
from genopt.space import Space
from genopt.variable import Variable

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class MixtureValidation:
    """What a mixture says of rows, both ways.

    Args:
        y_space: the y Space; columns y1, y2, ... for a mixture without names.
        y: measured outputs (N, K), NaN where missing.
        predicted: E[y | x] of the rows (N, K).
        designs: draws of p(x | y) for each row (N, S, P).
        returned: outputs of these draws (N, S, K).
        round_trip: how far the outputs of a row's draws are from its own (N,): root mean square
            over draws and columns, in standard deviations of the columns; NaN without outputs.
        scores: ``r2/<column>``, ``rmse/<column>`` and ``mae/<column>`` of the predictions,
            ``accuracy/<column>`` for classes, ``round_trip/<column>`` the root mean square over all
            draws in the column's units (for a class the share of draws that miss it).
    """

    y_space: Space
    y: Tensor = field(repr=False)
    predicted: Tensor = field(repr=False)
    designs: Tensor = field(repr=False)
    returned: Tensor = field(repr=False)
    round_trip: Tensor = field(repr=False)
    scores: dict[str, float]

    def plot(self, title: str = "") -> Figure:
        """Predicted against measured values of each numeric column.

        Args:
            title: title of the figure.

        Returns:
            The figure.
        """
        return plot_parity(self.y, self.predicted, self.y_space, self.scores, title=title)


def validate_gmm(
    model: Mixture | GaussianMixture,
    x: Tensor,
    y: Tensor,
    *,
    simulate: Callable[[Tensor], Tensor] | None = None,
    draws: int = 32,
    seed: int = 0,
) -> MixtureValidation:
    """Predict the outputs of rows; then draw designs for their outputs and see what those give.

    Rows that the fit did not see say most. A round trip through the mixture alone shows whether its
    two directions agree; only one through the simulator shows whether the designs are right.

    Args:
        model: a fitted `Mixture`, or a `GaussianMixture` whose columns are those of x, then of y.
        x: designs (N, P).
        y: outputs (N, K); NaN where missing, for a `Mixture`.
        simulate: the true outputs (N, K) of designs (N, P); None to ask the mixture for them.
        draws: designs drawn for each row S.
        seed: seed of the draws.

    Returns:
        Predictions, round trips and their scores.

    Raises:
        GenoptError: if shapes do not fit, ``draws`` is not positive, or there are not two rows
            or no outputs.

    Example:
        >>> x = torch.linspace(-1, 1, 200, dtype=torch.float64)[:, None]
        >>> model = Mixture(Space.of(x=(-1.0, 1.0)), Space.of(y=(0.0, 2.0)), max_components=2)
        >>> found = validate_gmm(model.fit(x, x + 1), x, x + 1, simulate=lambda x: x + 1)
        >>> found.scores["r2/y"] > 0.999 and found.scores["round_trip/y"] < 0.01
        True
    """
    if draws < 1:
        raise GenoptError(f"draws={draws} must be at least 1")
    x, y = (torch.as_tensor(part, dtype=torch.float64).detach() for part in (x, y))
    if x.ndim != 2 or y.ndim != 2 or len(x) != len(y) or len(x) < 2:
        raise GenoptError(
            f"x has shape {tuple(x.shape)} and y {tuple(y.shape)}; expected (N, P) and (N, K) with "
            "the same N of at least 2"
        )
    if bool(y.isnan().all()):
        raise GenoptError("y holds no outputs to validate against: all entries are missing")
    if isinstance(model, Mixture):
        ways = _Ways.of_model(model, x, y, draws, seed)
    else:
        ways = _Ways.of_gmm(model, x, y, draws, seed)
    designs = ways.designs
    flat = designs.reshape(-1, designs.shape[-1])
    returned = (ways.predict(flat) if simulate is None else simulate(flat)).to(torch.float64)
    if returned.shape != (len(flat), y.shape[1]):
        raise GenoptError(
            f"simulate returned shape {tuple(returned.shape)}; expected {(len(flat), y.shape[1])}"
        )
    returned = returned.reshape(len(x), draws, -1)
    predicted = ways.predict(x)
    return MixtureValidation(
        ways.y_space,
        y,
        predicted,
        designs,
        returned,
        _round_trip(y, returned, ways.y_space),
        _scores(y, predicted, returned, ways.y_space),
    )


@dataclass(frozen=True)
class _Ways:
    """Both directions of a mixture: y of designs, and designs (N, S, P) drawn for each y."""

    y_space: Space
    predict: Callable[[Tensor], Tensor]
    designs: Tensor

    @classmethod
    def of_model(cls, model: Mixture, x: Tensor, y: Tensor, draws: int, seed: int) -> _Ways:
        model.x_space.check(x, "x")
        model.y_space.check(y, "y")
        modelled = list(model.columns.y_columns)
        asked = torch.full_like(y, math.nan)
        asked[:, modelled] = y[:, modelled]
        generator = torch.Generator().manual_seed(seed)
        return cls(model.y_space, model.predict_y, model.sample(asked, draws, generator))

    @classmethod
    def of_gmm(cls, gmm: GaussianMixture, x: Tensor, y: Tensor, draws: int, seed: int) -> _Ways:
        p, k = x.shape[1], y.shape[1]
        if p + k != gmm.dim:
            raise GenoptError(
                f"x has {p} and y {k} columns; the mixture has {gmm.dim} in all, those of x first"
            )
        batch = gmm.condition_batch(range(p, p + k), y.numpy())

        def predict(points: Tensor) -> Tensor:
            return torch.from_numpy(gmm.predict(range(p), points.numpy()))

        space = Space(tuple(Variable(f"y{i + 1}") for i in range(k)))
        return cls(space, predict, torch.from_numpy(batch.sample(draws, seed=seed)))


def _misses(y: Tensor, returned: Tensor, space: Space) -> Tensor:
    """Errors (N, S, K) of the returned outputs; one for a wrong class."""
    misses = returned - y[:, None]
    classes = torch.tensor([bool(v.labels) for v in space])
    wrong = torch.where(misses.isnan(), misses, (misses != 0).to(misses))
    return torch.where(classes, wrong, misses)


def _round_trip(y: Tensor, returned: Tensor, space: Space) -> Tensor:
    classes = torch.tensor([bool(v.labels) for v in space])
    center = y.nanmean(0)
    spread = (y - center).square().nanmean(0).sqrt()
    # a constant column has no scale of its own: its misses count as they are
    unit = torch.where(classes | ~(spread > 0), 1.0, spread)
    return (_misses(y, returned, space) / unit).square().nanmean((1, 2)).sqrt()


def _scores(y: Tensor, predicted: Tensor, returned: Tensor, space: Space) -> dict[str, float]:
    scores = regression_scores(y, predicted, space)
    misses = _misses(y, returned, space)
    for i, variable in enumerate(space):
        if f"rmse/{variable.name}" in scores:
            scores[f"mae/{variable.name}"] = float((predicted - y)[:, i].abs().nanmean())
        if not bool(misses[..., i].isnan().all()):
            square = misses[..., i].square().nanmean()
            scores[f"round_trip/{variable.name}"] = float(
                square if variable.labels else square.sqrt()
            )
    return scores


def estimate_sample_size(dimensions: int, components: int, *, loss: float = 0.05) -> int:
    """About how many rows a mixture with full covariances needs.

    A maximum-likelihood fit of q free parameters to N rows loses q / (2 N) nats of log density for
    each unseen row against the best mixture of this size (Akaike 1974, A new look at the
    statistical model identification), with q = k (1 + d + d (d + 1) / 2) - 1. The default allows
    0.05 nats, ten rows for each parameter, the usual rule of thumb. It is a rule for well separated
    components: overlapping ones need more, a rough shape needs more components. A component needs
    more rows than columns in any case.

    Args:
        dimensions: columns d of x and y together.
        components: number of components k.
        loss: nats of log density that may be lost for each row.

    Returns:
        Number of rows.

    Raises:
        GenoptError: if an argument is not positive or a number of columns or components not whole.

    Example:
        >>> estimate_sample_size(10, 20)
        13190
    """
    counted = all(isinstance(n, numbers.Integral) and n > 0 for n in (dimensions, components))
    if not counted or not loss > 0:
        raise GenoptError(
            f"dimensions={dimensions} and components={components} must be whole numbers, and they "
            f"and loss={loss} positive"
        )
    parameters = components * (1 + dimensions + dimensions * (dimensions + 1) // 2) - 1
    # rounded first: 0.05 has no exact binary form
    needed = math.ceil(round(parameters / (2.0 * loss), 6))
    return max(needed, components * (dimensions + 1))
