"""How a multi-task model learns: labels that may be missing, the heads' losses, one fit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import torch
from torch import Tensor

from genopt.data.table import Table
from genopt.errors import GenoptError
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
from genopt.models.multitask.predict import MultiTaskPrediction
from genopt.models.options import FitOptions
from genopt.models.training import TabularModule, check_counts, fit, split_rows
from genopt.nn.encoders import TabularEncoder

_CHUNK = 65_536


class MultiTaskLearning(MultiTaskPrediction, TabularModule):
    """The learning half of a `FlexibleMultiTaskModel`, which sets the parts."""

    task_weights: dict[str, float]
    latent_scale: Tensor
    fitted: Tensor

    def batch_loss(self, *batch: Tensor) -> Tensor:
        """Weighted mean of the heads' losses over the labels that are there.

        Args:
            *batch: features (N, E) and scaled labels (N, L), NaN where there is none.

        Returns:
            Scalar loss.
        """
        features, targets = batch
        encoder: Any = self.encoder
        latent = encoder.network(features)
        total, start = torch.zeros((), device=features.device), 0
        for name, head in self.heads.items():
            part = targets[:, start : start + self.label_widths[name]]
            start += self.label_widths[name]
            if self.task_weights[name]:
                total = total + self.task_weights[name] * head.loss(latent, part, features)
        return total / sum(self.task_weights.values())

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
        tensors = [
            (self.features(rows), scaled_labels(self.heads, self.label_widths, values))
            for rows, values in (train, held)
        ]
        check_counts(epochs=epochs, batch_size=batch_size)
        batch_size = batch_size or self.hparams["batch_size"] or batch_size_for(len(x))
        epochs = epochs or self.hparams["epochs"] or epochs_for(len(x), batch_size)
        fit(
            self,
            tensors[0],
            tensors[1] if len(held[0]) else None,
            epochs=epochs,
            batch_size=batch_size,
            patience=self.hparams["patience"],
            options=options,
        )
        with torch.no_grad():
            latent = self.encoder(x[:_CHUNK].to(self.device))[1]
            self.latent_scale.copy_(
                latent.std(0, unbiased=False).square().mean().sqrt().clamp_min(1e-6)
            )
