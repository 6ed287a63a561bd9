"""How a multi-task model learns: labels that may be missing, the heads' losses, one fit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import torch
from torch import Tensor

from genopt.data.incomplete import warn_left_out
from genopt.data.streaming import warn_sampled
from genopt.data.table import Table
from genopt.errors import GenoptError
from genopt.models.multitask.balance import Balanced, FixedBalance, new_balance
from genopt.models.multitask.conservative import ConservativeOptions, ConservativePenalty
from genopt.models.multitask.grouped import GroupedLosses
from genopt.models.multitask.labels import (
    batch_size_for,
    check_designs,
    check_labels,
    epochs_for,
    labels_by_head,
    learn_scales,
    scaled_labels,
    warn_constant,
)
from genopt.models.multitask.masses import LabelMasses, Split
from genopt.models.multitask.predict import MultiTaskPrediction
from genopt.models.multitask.task_metrics import label_counts, looks_at, task_scores
from genopt.models.options import FitOptions
from genopt.models.training import MONITOR, TabularModule, check_counts, fit, split_rows
from genopt.nn.encoders import TabularEncoder

_CHUNK = 65_536


@dataclass(frozen=True)
class _Plan:
    """How the losses of a fit are worked out: heads, their weights, who shares what."""

    names: tuple[str, ...]
    weights: Tensor
    losses: GroupedLosses
    masses: LabelMasses
    shared: list[Tensor]
    clipped: list[Tensor]


@dataclass
class _Watched:
    """Validation rows (designs and labels in raw units) and what an epoch found on them."""

    rows: tuple[Tensor, Tensor] | None = None
    losses: list[Tensor] = field(default_factory=list)
    counts: list[Tensor] = field(default_factory=list)


class MultiTaskLearning(MultiTaskPrediction, TabularModule):
    """The learning half of a `FlexibleMultiTaskModel`, which sets the parts."""

    task_weights: dict[str, float]
    takes_share = True
    latent_scale: Tensor
    fitted: Tensor
    balance: FixedBalance
    conservative: ConservativePenalty | None = None
    _plan: _Plan | None = None
    _watched: _Watched | None = None
    _unlabelled: frozenset[str] = frozenset()

    def _set_training(self) -> None:
        """Make balance and conservative term fit the heads; what was learned of those is kept."""
        options: dict[str, Any] = dict(self.hparams["conservative"] or {})
        if "balance" in self._modules:
            self.balance = self.balance.for_heads(self.heads)
            goals = {n: way for n, way in options.get("goals", {}).items() if n in self.heads}
            options = {**options, "goals": goals} if goals else {}
        else:
            self.balance = new_balance(self.hparams["balance"], self.heads)
        read = ConservativeOptions.read(options or None)
        self.conservative = None if read is None else ConservativePenalty(read, self.heads)
        self.hparams["conservative"] = None if read is None else read.to_dict()

    # -- losses ------------------------------------------------------------------------------------
    @property
    def counted_heads(self) -> tuple[str, ...]:
        """The heads whose losses count: those of `trained_heads` with a weight, in order.

        A fit leaves out heads that it has no label for: weight decay would wear them off.
        """
        return tuple(
            name
            for name in self.trained_heads
            if self.task_weights[name] and name not in self._unlabelled
        )

    def task_losses(self, latent: Tensor, targets: Tensor, features: Tensor) -> Tensor:
        """The losses of all heads that count, alike heads in one computation.

        Args:
            latent: latent vectors (N, H).
            targets: scaled labels (N, L) of all heads side by side; NaN where there is none.
            features: scaled designs (N, E).

        Returns:
            Losses (heads,), in the order of `counted_heads`.
        """
        return self._planned().losses(latent, targets, features)

    def batch_loss(self, *batch: Tensor) -> Tensor:
        """What training minimises: the balance of the heads' losses, and the conservative term.

        Args:
            *batch: features (N, E) and scaled labels (N, L), NaN where there is none.

        Returns:
            Scalar; with a balance that learns its value is no measure of progress.
        """
        return self._objective(*batch).objective

    def held_out_losses(self, *batch: Tensor) -> Tensor:
        """The losses of all heads that count, for validation.

        Args:
            *batch: as for `batch_loss`.

        Returns:
            Losses (heads,), in the order of `counted_heads`; in a fit by several processes the part
            of them that this process's rows make.
        """
        features, targets, split = self._own_part(*batch)
        encoder: Any = self.encoder
        losses = self.task_losses(encoder.network(features), targets, features)
        return losses if split is None else losses * split.part

    def _own_part(self, features: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Split | None]:
        """The rows of this process, and how the mini-batch is split if there are others."""
        if self.share.count == 1:
            return features, targets, None
        rows, _ = self.own_rows(len(targets))
        split = self._planned().masses.split(targets, self.share)
        return features[rows], targets[rows], split

    def held_out_loss(self, *batch: Tensor) -> Tensor:
        """The mean of the heads' losses under the given weights, whatever the balance.

        Args:
            *batch: as for `batch_loss`.

        Returns:
            Scalar loss.
        """
        return (self._planned().weights * self.held_out_losses(*batch)).sum()

    def backward_step(self, *batch: Tensor) -> Tensor:
        """Work out the gradients of a mini-batch, and clip them.

        Args:
            *batch: as for `batch_loss`.

        Returns:
            The loss under the given weights, detached.
        """
        balanced = self._objective(*batch)
        self.manual_backward(balanced.objective)
        plan = self._planned()
        self.clip_gradients_of(plan.clipped)
        return (plan.weights * balanced.losses).sum()

    def _objective(self, *batch: Tensor) -> Balanced:
        features, targets, split = self._own_part(*batch)
        encoder: Any = self.encoder
        plan = self._planned()
        latent = encoder.network(features)

        def losses(z: Tensor) -> Tensor:
            of_rows = plan.losses(z, targets, features)
            return of_rows if split is None else of_rows * split.part

        balanced = self.balance(losses, latent, plan.weights, plan.names, plan.shared, split)
        if self.conservative is None:
            return balanced
        above = self.conservative(encoder.network, self.heads, features, latent)
        if split is not None:
            above = above * self.share.weight(len(batch[0]))
        return Balanced(balanced.objective + above, balanced.losses)

    def _planned(self) -> _Plan:
        """How the losses are worked out; during a fit this is decided once."""
        if self._plan is not None:
            return self._plan
        names = self.counted_heads
        weights = torch.tensor([self.task_weights[name] for name in names], device=self.home)
        own = list(self.balance.parameters())
        return _Plan(
            names,
            weights / weights.sum(),
            GroupedLosses(self.heads, self.label_widths, names),
            LabelMasses(self.heads, self.label_widths, names),
            [p for p in self.encoder.parameters() if p.requires_grad],
            [p for p in self.trained_parameters if all(p is not q for q in own)],
        )

    # -- Lightning's hooks -------------------------------------------------------------------------
    def on_train_start(self) -> None:
        """Decide once how the losses are worked out."""
        self._plan = None
        self._plan = self._planned()

    def validation_step(self, batch: tuple[Tensor, ...], batch_idx: int) -> None:
        """The losses of the heads on a batch of validation rows."""
        if self._watched is None:
            self._watched = _Watched()
        self._watched.losses.append(self.share.total(self.held_out_losses(*batch)))
        if len(self._watched.counts) <= batch_idx:
            plan = self._planned()
            counts = label_counts(batch[1], self.label_widths)
            self._watched.counts.append(torch.stack([counts[name] for name in plan.names]))

    def on_validation_epoch_end(self) -> None:
        """Log the validation loss and, up to a hundred times a fit, how well each head does."""
        watched, plan = self._watched, self._planned()
        if watched is None or not watched.losses:
            return
        count = torch.stack(watched.counts)
        losses = (torch.stack(watched.losses) * count).sum(0) / count.sum(0).clamp_min(1)
        watched.losses.clear()
        self.log(MONITOR, (plan.weights * losses).sum())
        if not self._looks():
            return
        known = count.sum(0).tolist()
        named = zip(plan.names, losses.tolist(), known, strict=True)
        numbers = {f"{name}_loss": loss for name, loss, labels in named if labels}
        if watched.rows is not None:
            numbers |= self._scores(*watched.rows)
        self.note({f"validation/{name}": value for name, value in numbers.items()})

    def on_train_epoch_end(self) -> None:
        """Log the learned weights of the heads beside the losses."""
        if self._looks():
            factors = self.balance.factors()
            self.note({f"balance/{name}": factors[name] for name in factors})
        super().on_train_epoch_end()

    def _looks(self) -> bool:
        return looks_at(self.current_epoch, self.trainer.max_epochs or 0, self._total_steps())

    @torch.no_grad()
    def _scores(self, x: Tensor, labels: Tensor) -> dict[str, float]:
        """The scores of the heads that count on rows, in raw units."""
        # curves on grids of each row's own have no columns that could be compared
        kinds = {
            name: self.head_kind(name)
            for name in self._planned().names
            if self.head_kind(name) != "design"
            and not getattr(self.task_heads[name], "per_row", False)
        }
        widths = self.label_widths
        parts = dict(zip(widths, labels.split(list(widths.values()), 1), strict=True))
        outputs: dict[str, list[Tensor]] = {name: [] for name in kinds}
        for chunk in x.split(_CHUNK):
            latent = self.encoder(chunk.to(self.home))[1]
            for name, pieces in outputs.items():
                pieces.append(self.head_output(name, latent, torch.float64).cpu())
        said = {name: torch.cat(pieces) for name, pieces in outputs.items()}
        return task_scores(said, parts, kinds)

    # -- fits --------------------------------------------------------------------------------------
    def fit(
        self,
        x: Any,
        y: Mapping[str, Any],
        *,
        epochs: int | None = None,
        batch_size: int | None = None,
        seed: int = 0,
        verbose: bool = False,
        validation: float | None = None,
        options: FitOptions | None = None,
    ) -> Self:
        """Learn from arrays; the weights of the best validation loss stay.

        The scalers are set by the first fit; a later one goes on from the weights and keeps them.

        Args:
            x: designs (N, P) in raw units.
            y: labels by head: (N,) or (N, T) in raw units, classes as codes; NaN: no label.
            epochs: passes over the rows; None for the model's own number.
            batch_size: rows of a mini-batch; None for the model's own number.
            seed: seed of the shuffling, of the validation rows and of dropout.
            verbose: whether to show a progress bar.
            validation: share of validation rows; None for the model's own share.
            options: how the fit is run; its seed and progress replace the two arguments here.

        Returns:
            The model itself.

        Raises:
            GenoptError: if a shape is wrong, x is not finite, or a head has no usable label.
        """
        x = check_designs(x, self.x_space)
        labels = check_labels(y, len(x), self.heads, self.label_widths)
        options = options or FitOptions(seed=seed, progress=verbose)
        share = self.hparams["validation"] if validation is None else validation
        train, held = split_rows(len(x), share, options.seed)
        self._fit((x[train], labels[train]), (x[held], labels[held]), epochs, batch_size, options)
        return self

    def fit_table(self, table: Table, options: FitOptions | None = None) -> None:
        """Learn from a Table's training rows, watched by its validation rows.

        Args:
            table: the data; without validation rows a share of the training rows is set aside.
            options: how the fit is run.

        Raises:
            GenoptError: if the table is of another problem or cannot be used.
        """
        self.check_spaces(table.x_space, table.y_space)
        warn_sampled(table, "the multi-task model")
        warn_left_out(table, "the multi-task model")
        options = options or FitOptions()
        rows, held = table.part("train"), table.part("validation")
        if len(rows) == 0:
            raise GenoptError("the table has no training row: check its split column")
        if len(held) == 0:
            train, watch = split_rows(len(rows), self.hparams["validation"], options.seed)
            rows, held = rows.rows(train), rows.rows(watch)
        y = labels_by_head(rows.y, self.columns, self.label_widths)
        labels = check_labels(y, len(rows), self.heads, self.label_widths)
        watched = labels_by_head(held.y, self.columns, self.label_widths)
        held_labels = torch.cat([held.y[:, :0], *watched.values()], 1)
        self._fit((rows.x, labels), (held.x, held_labels), None, None, options)

    def _fit(
        self,
        train: tuple[Tensor, Tensor],
        held: tuple[Tensor, Tensor],
        epochs: int | None,
        batch_size: int | None,
        options: FitOptions,
    ) -> None:
        x, labels = train
        warn_constant(x, self.x_space.names)
        if not isinstance(self.encoder, TabularEncoder):
            raise GenoptError("this model's encoder was replaced; a fit needs its own encoder")
        if not bool(self.fitted):
            self.encoder.scaler.learn_designs(x)
            learn_scales(self.heads, self.label_widths, x, labels)
            self.fitted.fill_(True)
        counts = label_counts(labels, self.label_widths)
        unlabelled = frozenset(name for name, count in counts.items() if not int(count))
        learning = {*self.counted_heads} - unlabelled
        if not learning:
            raise GenoptError(
                "nothing to train: every head is disabled, frozen, of weight 0 or without a label; "
                "see enable_heads and unfreeze"
            )
        tensors = [
            (self.features(rows), scaled_labels(self.heads, self.label_widths, values))
            for rows, values in (train, held)
        ]
        check_counts(epochs=epochs, batch_size=batch_size)
        batch_size = batch_size or self.hparams["batch_size"] or batch_size_for(len(x))
        epochs = epochs or self.hparams["epochs"] or epochs_for(len(x), batch_size)
        watched = tensors[1] if len(held[0]) else None
        self._watched = _Watched(rows=held if len(held[0]) else None)
        if self.conservative is not None:
            self.conservative.learn_bounds(self.x_space, self.scaler)
        self._unlabelled = unlabelled
        try:
            fit(
                self,
                tensors[0],
                watched,
                epochs=epochs,
                batch_size=batch_size,
                patience=self.hparams["patience"],
                options=options,
            )
        finally:
            self._plan = self._watched = None
            self._unlabelled = frozenset()
        with torch.no_grad():
            latent = self.encoder(x[:_CHUNK].to(self.device))[1]
            self.latent_scale.copy_(
                latent.std(0, unbiased=False).square().mean().sqrt().clamp_min(1e-6)
            )
