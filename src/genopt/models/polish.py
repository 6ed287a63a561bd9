"""A second-order finish of a training: full-batch L-BFGS from where the mini-batches ended.

Mini-batches leave a small network well above the error that its weights allow. On the noise-free
rows of a simulator some hundred quasi-Newton steps over all rows take the error down by a factor of
three to ten more; on measured rows the best validation loss comes early and the finish ends there.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import Callback
from torch import Tensor

from genopt.data.module import TensorDataModule
from genopt.data.stream_loader import EncodedStream
from genopt.errors import GenoptError
from genopt.models.training import MONITOR, TabularModule

_CHUNK = 16_384
_CHECK = 20
_PATIENCE = 5
# curvature pairs that are kept: many where weights are few, within about 300 MB in float32
_MOST_PAIRS, _MOST_NUMBERS = 100, 40_000_000


def polish(
    module: TabularModule,
    train: tuple[Tensor, ...],
    validation: tuple[Tensor, ...] | None,
    *,
    steps: int,
    progress: bool = False,
) -> int:
    """Lower a module's held-out loss on all training rows by L-BFGS with a strong Wolfe search.

    `TabularModule.held_out_loss` is what is minimised, because it is the same at each call; dropout
    is off. Every twenty steps the validation loss decides which weights are kept, and the finish
    ends when it has not improved for a hundred steps, or when the training loss no longer falls.
    The losses of each look are added to the module's history; one pass over the rows counts as an
    epoch there (Liu and Nocedal 1989, doi 10.1007/BF01589116).

    Args:
        module: a fitted module, changed in place; it comes back in eval mode.
        train: tensors (N, ...) that `TabularModule.held_out_loss` takes.
        validation: the same for the rows that choose the weights, or None to keep the last ones.
        steps: most steps; 0 for none.
        progress: whether to show a progress bar.

    Returns:
        How many times the rows were passed.

    Raises:
        GenoptError: if the number of steps is negative, a batch is empty or the loss does not
            depend on the weights.
    """
    _check(steps, train, validation)
    weights = [p for p in module.parameters() if p.requires_grad]
    if steps == 0 or not weights:
        return 0
    module.eval()
    device = weights[0].device
    train = tuple(t.to(device) for t in train)
    held = None if validation is None else tuple(t.to(device) for t in validation)
    count = sum(p.numel() for p in weights)
    pairs = max(1, min(_MOST_PAIRS, _MOST_NUMBERS // (2 * count)))
    # tolerances of zero: a search that stands still is seen by its loss
    optimizer = torch.optim.LBFGS(
        weights, max_iter=_CHECK, max_eval=3 * _CHECK, history_size=pairs,
        tolerance_grad=0.0, tolerance_change=0.0, line_search_fn="strong_wolfe",
    )  # fmt: skip
    passes = _Passes(module, train, weights)
    with torch.inference_mode(False), torch.enable_grad():
        best = _Best(module, held)
        before = math.inf
        epoch = module.history[-1]["epoch"] if module.history else -1.0
        for size in _rounds(steps, progress):
            optimizer.param_groups[0]["max_iter"] = size
            optimizer.step(passes)
            loss = passes.lowest
            kept = best.look(loss)
            _remember(module, epoch + passes.count, loss, best.latest)
            if not kept or not loss < before:
                break
            before = loss
        best.restore()
    for p in weights:
        p.grad = None
    return passes.count


class Polish(Callback):
    """`polish` as the end of any fit: the best weights of the mini-batches are where it starts.

    It is given to a fit by ``FitOptions(callbacks=[Polish(600)])``, in a configuration by an entry
    of ``callbacks``.

    Args:
        steps: most steps of L-BFGS; 0 for none.
        progress: whether to show a progress bar.

    Raises:
        GenoptError: if the number of steps is negative.
    """

    def __init__(self, steps: int = 400, progress: bool = False) -> None:
        _check_steps(steps)
        self.steps = steps
        self.progress = progress

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Polish on the rows of the fit, on its device; one process does it for all."""
        if not trainer.is_global_zero:
            return
        data: object = getattr(trainer, "datamodule", None)
        if not isinstance(pl_module, TabularModule) or not isinstance(data, TensorDataModule):
            raise GenoptError(
                f"{type(pl_module).__name__} cannot be polished: fit it with "
                "genopt.models.training.fit or the model's own fit method"
            )
        if isinstance(data.train_tensors, EncodedStream):
            raise GenoptError("polish needs all rows in memory: leave it out for a streamed table")
        polish(
            pl_module,
            data.train_tensors,
            data.validation_tensors,
            steps=self.steps,
            progress=self.progress,
        )


class _Passes:
    """The loss over all rows with its gradient, as L-BFGS asks for it.

    Args:
        module: the module.
        rows: its training rows.
        weights: what is trained.
    """

    def __init__(
        self, module: TabularModule, rows: tuple[Tensor, ...], weights: list[torch.nn.Parameter]
    ) -> None:
        self.module = module
        self.rows = rows
        self.weights = weights
        self.count = 0
        self.lowest = math.inf
        self.unit: float | None = None

    def __call__(self) -> Tensor:
        """One pass: gradients into the weights, the loss back, both in units of the first loss."""
        for p in self.weights:
            p.grad = None
        total = torch.zeros((), device=self.rows[0].device)
        for part, share in _chunks(self.rows):
            loss = self.module.held_out_loss(*part) * share
            if not loss.requires_grad:
                raise GenoptError(
                    f"{type(self.module).__name__} cannot be polished: its held-out loss does not "
                    "depend on the weights that are trained"
                )
            for p, gradient in zip(
                self.weights,
                torch.autograd.grad(loss, self.weights, allow_unused=True),
                strict=True,
            ):
                if gradient is not None:
                    # torch flattens gradients by a view, which needs plain strides
                    gradient = gradient.contiguous()
                    p.grad = gradient if p.grad is None else p.grad + gradient
            total = total + loss.detach()
        self.count += 1
        self.lowest = min(self.lowest, float(total))
        # torch's L-BFGS drops curvature below an absolute 1e-10, so a loss near 1e-6 needs a unit
        self.unit = self.unit or max(abs(float(total)), 1e-30)
        for p in self.weights:
            if p.grad is not None:
                p.grad /= self.unit
        return total / self.unit


class _Best:
    """The weights of the lowest validation loss.

    Args:
        module: the module.
        rows: its validation rows, or None.
    """

    def __init__(self, module: TabularModule, rows: tuple[Tensor, ...] | None) -> None:
        self.module = module
        self.rows = rows
        self.since = 0
        self.latest = self.loss = self._held_out()
        self.weights = self._copy()

    def _copy(self) -> dict[str, Tensor]:
        return {k: v.detach().clone() for k, v in self.module.state_dict().items()}

    def _held_out(self) -> float:
        if self.rows is None:
            return math.nan
        with torch.no_grad():
            return sum(
                float(self.module.held_out_loss(*part)) * share
                for part, share in _chunks(self.rows)
            )

    def look(self, train_loss: float) -> bool:
        """Look at the validation loss once more.

        Args:
            train_loss: the training loss, which decides where there are no validation rows.

        Returns:
            Whether going on may pay.
        """
        self.latest = self._held_out()
        value = train_loss if self.rows is None else self.latest
        if not all(bool(torch.isfinite(p).all()) for p in self.module.parameters()):
            return False
        if not math.isfinite(value):
            return False
        if self.rows is None or value < self.loss:
            self.loss, self.weights, self.since = value, self._copy(), 0
        else:
            self.since += 1
        return self.since < _PATIENCE

    def restore(self) -> None:
        """Put the best weights back."""
        self.module.load_state_dict(self.weights)


def _check_steps(steps: int) -> None:
    if steps < 0:
        raise GenoptError(f"polish: steps must be 0 for none, or more, got {steps}")


def _check(steps: int, train: tuple[Tensor, ...], validation: tuple[Tensor, ...] | None) -> None:
    _check_steps(steps)
    for name, rows in (("train", train), ("validation", validation)):
        if rows is not None and (not rows or len(rows[0]) == 0):
            raise GenoptError(f"polish: {name} has no row")


def _chunks(rows: tuple[Tensor, ...]) -> Iterator[tuple[tuple[Tensor, ...], float]]:
    """Pieces of the rows with their share of all rows, so that memory stays bounded."""
    count = len(rows[0])
    for part in zip(*(t.split(_CHUNK) for t in rows), strict=True):
        yield part, len(part[0]) / count


def _rounds(steps: int, progress: bool) -> Iterator[int]:
    """The steps between two looks at the validation loss."""
    sizes = [_CHECK] * (steps // _CHECK) + [steps % _CHECK] * (steps % _CHECK > 0)
    if not progress:
        yield from sizes
        return
    from rich.progress import track

    yield from track(sizes, description="polish")


def _remember(module: TabularModule, epoch: float, train: float, held: float) -> None:
    """Add a look to the module's history."""
    entry = {"epoch": epoch, "train/loss": train}
    if not math.isnan(held):
        entry[MONITOR] = held
    module.history.append(entry)
