"""The multi-task model: one encoder, a head for each property, labels that may be missing.

It learns y from x (a `ForwardModel`) and is what `genopt.routines.optimize_latent` searches.
Scalers are inside, so every public border is in raw units.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from inspect import signature
from pathlib import Path
from typing import Any, Self

import torch
from torch import nn

from genopt.build import Spec
from genopt.errors import GenoptError
from genopt.models.multitask.columns import property_space
from genopt.models.multitask.files import FORMAT, read, write
from genopt.models.multitask.management import ManagedHeads
from genopt.models.multitask.spec import (
    Heads,
    as_space,
    design_space,
    encoder_spec,
    head_specs,
    head_weights,
)
from genopt.models.training import check_counts, seeded
from genopt.nn.heads import HeadDict
from genopt.space import Space


class FlexibleMultiTaskModel(ManagedHeads):
    """An encoder and heads over tables with gaps.

    ``model.encoder(x)`` returns (features, latent); ``model.task_heads[name](latent)`` returns the
    head's property in raw units (probabilities for classes). Either may be replaced by any module
    that keeps these shapes.

    Args:
        input_dim: number of design columns P; not needed with ``x_space``.
        heads: by name, ``"regression"``, ``"heteroscedastic"``, ``"classification"``,
            ``"ordinal"``, ``"count"``, ``"sequence"``, ``"autoencoder"`` or a mapping with ``kind``
            (or ``_target_``) and options; or a list of mappings with ``name`` and ``kind``. With
            ``y_space`` also ``"auto"`` and ``"auto_autoencoder"``.
        encoder: ``"mlp"``, ``"residual"``, ``"periodic"``, ``"transformer"`` or a mapping with
            ``kind`` (or ``_target_``) and options.
        x_space: the Space of x: class columns become one-hot, bounds guard searches.
        y_space: the Space of y; heads are named after its columns.
        task_weights: weight of each head's loss; 1 where not given.
        balance: how the losses of the heads become one: ``fixed`` (the weighted mean),
            ``uncertainty`` (weights learned as each property's noise) or ``pcgrad`` (conflicting
            gradients projected).
        conservative: what training holds down so that a search does not exploit it: a mapping with
            ``goals`` (``max`` or ``min`` by head) and maybe ``weight``, ``steps`` and ``lr``, see
            `genopt.models.multitask.conservative.ConservativeOptions`; None for nothing.
        epochs: passes over the rows, unless `fit` is told otherwise; None for as many as give about
            4,000 steps.
        batch_size: rows of a mini-batch; None for about a twelfth of the rows, 32 to 512.
        validation: share of the rows that watch the training when none are given.
        patience: epochs without a better validation loss after which training stops; None for
            never.
        learning_rate: peak learning rate of AdamW.
        weight_decay: decoupled weight decay.
        clip: largest norm of the gradient; 0 for no clipping.
        schedule: ``cosine``, ``one_cycle``, ``plateau`` or ``constant``.
        warmup: share of the steps in which the rate rises.
        frozen: parts, ``encoder`` or heads, whose weights are held in a fit.
        disabled: heads that are neither trained nor predicted.
        pretrained: a checkpoint to start from: its encoder with the scaler of x, and each of its
            heads of the same name and options; other heads start new.
        seed: seed of the initial weights.

    Raises:
        GenoptError: if the parts do not fit together; the message names the argument.

    Example:
        >>> x = torch.rand(50, 2)
        >>> model = FlexibleMultiTaskModel(input_dim=2, heads={"density": "regression"})
        >>> model.fit(x, {"density": x.sum(1)}, epochs=2).predict(x)["density"].shape
        torch.Size([50])
    """

    def __init__(
        self,
        input_dim: int | None = None,
        heads: Heads = "auto",
        encoder: Spec = "mlp",
        *,
        x_space: Space | Mapping[str, Any] | None = None,
        y_space: Space | Mapping[str, Any] | None = None,
        task_weights: Mapping[str, float] | None = None,
        balance: str = "fixed",
        conservative: Mapping[str, Any] | None = None,
        epochs: int | None = None,
        batch_size: int | None = None,
        validation: float = 0.1,
        patience: int | None = None,
        learning_rate: float = 3e-3,
        weight_decay: float = 1e-2,
        clip: float = 1.0,
        schedule: str = "cosine",
        warmup: float = 0.03,
        frozen: Sequence[str] = (),
        disabled: Sequence[str] = (),
        pretrained: str | Path | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(learning_rate, weight_decay, clip, schedule, warmup)
        self.x_space = design_space(input_dim, x_space)
        known = None if y_space is None else as_space(y_space)
        specs = head_specs(heads, known)
        self.y_space = property_space(specs) if known is None else known
        encoder_full = encoder_spec(encoder)
        weights = head_weights(task_weights, specs)
        if not 0.0 <= validation < 1.0:
            raise GenoptError(f"validation must be a share in [0, 1), got {validation}")
        check_counts(epochs=epochs, batch_size=batch_size, patience=patience)
        self.save_hyperparameters(
            {
                "heads": specs,
                "encoder": encoder_full,
                "x_space": self.x_space.to_dict(),
                "y_space": self.y_space.to_dict(),
                "task_weights": weights,
                "balance": balance,
                "conservative": conservative and dict(conservative),
                "epochs": epochs,
                "batch_size": batch_size,
                "validation": validation,
                "patience": patience,
                "learning_rate": learning_rate,
                "weight_decay": weight_decay,
                "clip": clip,
                "schedule": schedule,
                "warmup": warmup,
                "seed": seed,
                "frozen": list(frozen),
                "disabled": list(disabled),
                # what was taken over is in the weights, so a checkpoint stands alone
                "pretrained": None,
            }
        )
        self.task_weights = weights
        with seeded(seed):
            self.encoder: nn.Module = self._build_encoder(encoder_full)
            self.task_heads = HeadDict(
                {name: self._build_head(name, spec) for name, spec in specs.items()}
            )
        self._built_widths = {n: int(head.label_width) for n, head in self.heads.items()}
        self._set_heads(specs, self.y_space)
        self.register_buffer("latent_scale", torch.ones(()))
        self.register_buffer("fitted", torch.zeros((), dtype=torch.bool))
        if pretrained is not None:
            self._start_from(pretrained)
        self.freeze(*frozen)
        if disabled:
            self.disable_heads(*disabled)
        self.eval()

    @classmethod
    def for_spaces(
        cls,
        x_space: Space,
        y_space: Space,
        heads: Heads = "auto",
        encoder: Spec = "mlp",
        **options: Any,
    ) -> Self:
        """A model of the columns of two Spaces.

        Args:
            x_space: the Space of x.
            y_space: the Space of y.
            heads: ``auto`` (a head for each column), ``auto_autoencoder`` or a mapping.
            encoder: name or mapping.
            **options: further keyword arguments of the constructor.

        Returns:
            The model, not fitted.
        """
        return cls(heads=heads, encoder=encoder, x_space=x_space, y_space=y_space, **options)

    # -- search ----------------------------------------------------------------------------------
    def optimize_latent(
        self,
        task_name: str | None = None,
        initial_input: Any = None,
        mode: str | Mapping[str, str] = "max",
        target_value: Any = None,
        task_targets: Mapping[str, Any] | None = None,
        steps: int = 200,
        lr: float = 0.05,
        num_restarts: int = 10,
        perturbation_std: float = 0.1,
        ae_task_name: str | None = None,
        **options: Any,
    ) -> Any:
        """Search designs; arguments and result of `genopt.routines.optimize_latent`'s function."""
        # a method for convenience; imported here because models do not depend on routines
        from genopt.routines.optimize_latent import optimize_latent

        return optimize_latent(
            self,
            task_name=task_name,
            initial_input=initial_input,
            mode=mode,
            target_value=target_value,
            task_targets=task_targets,
            steps=steps,
            lr=lr,
            num_restarts=num_restarts,
            perturbation_std=perturbation_std,
            ae_task_name=ae_task_name,
            **options,
        )

    # -- files -------------------------------------------------------------------------------------
    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Mark the checkpoint as a multi-task model's.

        Args:
            checkpoint: what is about to be written.
        """
        super().on_save_checkpoint(checkpoint)
        checkpoint["genopt"] = FORMAT

    def save(self, path: str | Path) -> Path:
        """Write a checkpoint: plain hyperparameters and weights, scalers included.

        Args:
            path: the file.

        Returns:
            Its path.
        """
        return write(self, path)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read what `save`, or a fit with a folder, wrote.

        Args:
            path: the file.

        Returns:
            The model, in eval mode.

        Raises:
            GenoptError: if the file is missing or no checkpoint of such a model.
        """
        checkpoint = read(path)
        options = checkpoint[cls.CHECKPOINT_HYPER_PARAMS_KEY]
        several = "members" in options
        if several != ("members" in signature(cls).parameters):
            kind, name = (
                ("an ensemble", "MultiTaskEnsemble")
                if several
                else ("a single model", "FlexibleMultiTaskModel")
            )
            raise GenoptError(f"{path} holds {kind}: load it with {name}")
        model = cls(**options)
        try:
            model.load_state_dict(checkpoint["state_dict"])
        except RuntimeError as error:
            raise GenoptError(f"{path} does not fit its own hyperparameters: {error}") from error
        model.on_load_checkpoint(checkpoint)
        return model.eval()
