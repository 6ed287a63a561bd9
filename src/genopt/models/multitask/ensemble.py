"""An ensemble of multi-task models: M members trained and asked in one batched pass.

Members that start from different weights agree where there are data and differ where there are
none (Lakshminarayanan et al. 2017, arXiv 1612.01474). Their disagreement, with the noise that the
heads themselves know, is the spread that a search can stay away from.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from genopt.errors import GenoptError
from genopt.models.multitask.balance import Balanced
from genopt.models.multitask.best_members import BestMembers
from genopt.models.multitask.ensemble_answers import EnsembleAnswers
from genopt.models.multitask.files import read
from genopt.models.multitask.model import FlexibleMultiTaskModel
from genopt.models.multitask.spread import FACTOR, FLOOR, add_calibration, calibrate
from genopt.models.multitask.stacking import (
    StackedEncoder,
    clip_by_member,
    draw_designs,
    stack_parameters,
)
from genopt.models.multitask.task_metrics import label_counts
from genopt.models.options import FitOptions

_CHUNK = 65_536
_OWN = ("members", "bootstrap", "calibrate")
# members of one ensemble start from other weights than those of an ensemble of the next seed
_SEEDS = 7919


class MultiTaskEnsemble(EnsembleAnswers):
    """Several `FlexibleMultiTaskModel` of one shape as one model, whose parameters are stacked.

    All methods of a single model are there. ``predict`` and ``predict_y`` give the mean over the
    members (of probabilities for classes), ``predict_spread`` and ``spread_y`` the standard
    deviation. All members see the same mini-batches; each keeps the weights of its own best
    validation loss. There is no common latent space: searches run over the input.

    Args:
        input_dim: as for a single model, like all arguments not named here.
        heads: as for a single model.
        encoder: as for a single model.
        members: number of members M.
        bootstrap: share of the designs that each member learns from, drawn for each by itself; None
            for all of them. Rows of the same design stay together.
        calibrate: whether a fit brings the spread of every number to the size of the errors on the
            validation rows, where there are any.
        seed: seed of the first member's initial weights; the others' follow from it.
        **options: further keyword arguments of `FlexibleMultiTaskModel`.

    Raises:
        GenoptError: if there are fewer than two members, or the share is not in (0, 1).

    Example:
        >>> ensemble = MultiTaskEnsemble(input_dim=2, heads={"density": "regression"}, members=3)
        >>> ensemble.member(2).y_space.names
        ('density',)
    """

    encoder: nn.Module
    latent_scales: Tensor

    def __init__(
        self,
        input_dim: int | None = None,
        heads: Any = "auto",
        encoder: Any = "mlp",
        *,
        members: int = 4,
        bootstrap: float | None = None,
        calibrate: bool = True,
        seed: int = 0,
        **options: Any,
    ) -> None:
        super().__init__(input_dim, heads, encoder, seed=seed, **options)
        if members < 2:
            raise GenoptError(
                f"members must be at least 2, got {members}; one is a FlexibleMultiTaskModel"
            )
        if bootstrap is not None and not 0.0 < bootstrap < 1.0:
            raise GenoptError(
                f"bootstrap must be a share of the rows between 0 and 1, or null for all rows, got "
                f"{bootstrap}"
            )
        self.members = members
        self.hparams.update({"members": members, "bootstrap": bootstrap, "calibrate": calibrate})
        others = [
            FlexibleMultiTaskModel(input_dim, heads, encoder, seed=seed + _SEEDS * i, **options)
            for i in range(1, members)
        ]
        stack_parameters(self.encoder, [model.encoder for model in others])
        stack_parameters(self.task_heads, [model.task_heads for model in others])
        encoder_of_one: Any = self.encoder
        self.encoder = StackedEncoder(encoder_of_one.scaler, encoder_of_one.network)
        self.forget_parameters()
        self._watch: list[Tensor] = []
        self.register_buffer("latent_scales", torch.ones(members))
        for head in self.heads.values():
            add_calibration(head)
        # the encoder is another object now, which has to know that it is frozen
        self.freeze(*self.frozen)
        self.eval()

    def _build_head(self, name: str, spec: Mapping[str, Any]) -> nn.Module:
        """A head of a full specification, for a head that is added for every member."""
        head = super()._build_head(name, spec)
        if self.members > 1:
            rest = [
                super(MultiTaskEnsemble, self)._build_head(name, spec)
                for _ in range(self.members - 1)
            ]
            stack_parameters(head, rest)
            add_calibration(head)
        return head

    # -- training ----------------------------------------------------------------------------------
    def setup(self, stage: str) -> None:
        """Draw the designs that each member learns from, where not all learn from all.

        Args:
            stage: of Lightning.
        """
        share, data = self.hparams["bootstrap"], getattr(self.trainer, "datamodule", None)
        if stage == "fit" and share is not None and data is not None:
            features = data.train_tensors[0]
            seen = draw_designs(features, self.members, share, data.seed)
            data.train_tensors = (*data.train_tensors, seen)

    def _objective(self, *batch: Tensor) -> Balanced:
        """The sum over the members of what each minimises, so that none scales another's gradient.

        With ``bootstrap`` the mini-batch also says which members learn from which rows (N, M).
        """
        if self._as_member:
            return super()._objective(*batch)
        features, targets, *seen = batch
        if seen:
            own = torch.where(seen[0].T[..., None], targets, torch.nan)
            each = self._each(FlexibleMultiTaskModel._objective, (features,), (own,))
        else:
            each = self._each(FlexibleMultiTaskModel._objective, (features, targets))
        return Balanced(each.objective.sum(), each.losses.mean(0))

    def held_out_losses(self, *batch: Tensor) -> Tensor:
        """The heads' validation losses, averaged over the members.

        Args:
            *batch: features (N, E) and scaled labels (N, L).

        Returns:
            Losses (heads,), in the order of `counted_heads`.
        """
        if self._as_member:
            return super().held_out_losses(*batch)
        losses: Tensor = self._each(FlexibleMultiTaskModel.held_out_losses, batch)
        self._held_out = losses.detach()
        return losses.mean(0)

    def validation_step(self, batch: tuple[Tensor, ...], batch_idx: int) -> None:
        """The losses of the heads, and for each member its own, on a batch of validation rows."""
        super().validation_step(batch, batch_idx)
        own = (self.share.total(self._held_out) * self._planned().weights).sum(1)
        self._watch.append(len(batch[0]) * own)

    def epoch_losses(self) -> Tensor | None:
        """Each member's validation loss of the epoch that ends; asking again gives None.

        Returns:
            Losses (M,), summed over the rows; None without validation rows.
        """
        if not self._watch:
            return None
        losses = torch.stack(self._watch).sum(0)
        self._watch = []
        return losses

    def stacked_parameters(self) -> dict[str, Tensor]:
        """The members' parameters by name, with a leading dimension M."""
        own = {f"balance.{name}" for name, _ in self.balance.named_parameters()}
        return {name: value for name, value in self.named_parameters() if name not in own}

    def clip_gradients_of(self, parameters: Iterable[Tensor]) -> None:
        """Scale each member's gradient down by itself, where its norm is larger than ``clip``.

        Args:
            parameters: what the gradients belong to; those without one are skipped.
        """
        if self.clip:
            clip_by_member([p.grad for p in parameters if p.grad is not None], self.clip)

    def _fit(
        self,
        train: tuple[Tensor, Tensor],
        held: tuple[Tensor, Tensor],
        epochs: int | None,
        batch_size: int | None,
        options: FitOptions,
    ) -> None:
        self._watch = []
        counts = label_counts(train[1], self.label_widths)
        trained = [name for name in self.counted_heads if int(counts[name])]
        best = [BestMembers(self), *options.callbacks]
        super()._fit(train, held, epochs, batch_size, replace(options, callbacks=best))
        with self.evaluating(), torch.no_grad():
            latent = self.encoder(train[0][:_CHUNK].to(self.home))[1]
            spread = latent.std(1, unbiased=False).square().mean(-1).sqrt()
            self.latent_scales.copy_(spread.clamp_min(1e-6))
        if self.hparams["calibrate"]:
            few = [name for name in calibrate(self, *held) if name in trained]
            if few:
                warnings.warn(
                    f"too few validation labels to calibrate the spread of {', '.join(few)}: it is "
                    "likely to be far too small",
                    stacklevel=4,
                )

    # -- members and files -------------------------------------------------------------------------
    def member(self, index: int) -> FlexibleMultiTaskModel:
        """One member as a model of its own.

        Args:
            index: 0 to M - 1.

        Returns:
            A copy, in eval mode.

        Raises:
            GenoptError: if there is no such member.
        """
        if not 0 <= index < self.members:
            raise GenoptError(f"member {index} does not exist: there are 0 to {self.members - 1}")
        options = {k: v for k, v in self.hparams.items() if k not in _OWN}
        model = FlexibleMultiTaskModel(**options)
        stacked = self.stacked_parameters()
        state = {
            name: value[index] if name in stacked else value
            for name, value in self.state_dict().items()
            if name != "latent_scales" and not name.endswith((FACTOR, FLOOR))
        }
        model.load_state_dict(state)
        model.latent_scale.copy_(self.latent_scales[index])
        return model.eval()

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read what `save`, or a fit with a folder, wrote.

        Args:
            path: the file.

        Returns:
            The ensemble, in eval mode.

        Raises:
            GenoptError: if the file is missing or no checkpoint of an ensemble.
        """
        if "members" not in read(path)[cls.CHECKPOINT_HYPER_PARAMS_KEY]:
            raise GenoptError(
                f"{path} holds a single model, no ensemble: use FlexibleMultiTaskModel.load"
            )
        return super().load(path)
