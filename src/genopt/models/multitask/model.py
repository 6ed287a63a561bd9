"""The multi-task model: one encoder, a head for each property, labels that may be missing.

It learns y from x (a `ForwardModel`) and is what `genopt.routines.optimize_latent` searches.
Scalers are inside, so every public border is in raw units.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import torch
from torch import nn

from genopt.build import Spec, build
from genopt.errors import GenoptError
from genopt.models.multitask.files import FORMAT, read, write
from genopt.models.multitask.learning import MultiTaskLearning
from genopt.models.multitask.spec import (
    HeadSpecs,
    as_space,
    column_map,
    design_space,
    encoder_spec,
    head_specs,
    head_weights,
    property_space,
)
from genopt.models.training import check_counts, seeded
from genopt.nn.encoders import TabularEncoder
from genopt.nn.heads import HEADS
from genopt.nn.scalers import InputScaler
from genopt.space import Space


class FlexibleMultiTaskModel(MultiTaskLearning):
    """An encoder and heads over tables with gaps.

    ``model.encoder(x)`` returns (features, latent); ``model.task_heads[name](latent)`` returns the
    head's property in raw units (probabilities for classes). Either may be replaced by any module
    that keeps these shapes.

    Args:
        input_dim: number of design columns P; not needed with ``x_space``.
        heads: by name, ``"regression"``, ``"classification"``, ``"autoencoder"`` or a mapping with
            ``kind`` (or ``_target_``) and options; with ``y_space`` also ``"auto"`` and
            ``"auto_autoencoder"``.
        encoder: ``"mlp"``, ``"residual"`` or a mapping with ``kind`` (or ``_target_``) and options.
        x_space: the Space of x: class columns become one-hot, bounds guard searches.
        y_space: the Space of y; heads are named after its columns.
        task_weights: weight of each head's loss; 1 where not given.
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
        seed: seed of the initial weights.

    Raises:
        GenoptError: if the parts do not fit together; the message names the argument.

    Example:
        >>> model = FlexibleMultiTaskModel(input_dim=2, heads={"density": "regression"})
        >>> model.predict([[0.0, 1.0]])["density"].shape
        (1,)
    """

    def __init__(
        self,
        input_dim: int | None = None,
        heads: str | HeadSpecs = "auto",
        encoder: Spec = "mlp",
        *,
        x_space: Space | Mapping[str, Any] | None = None,
        y_space: Space | Mapping[str, Any] | None = None,
        task_weights: Mapping[str, float] | None = None,
        epochs: int | None = None,
        batch_size: int | None = None,
        validation: float = 0.1,
        patience: int | None = None,
        learning_rate: float = 3e-3,
        weight_decay: float = 1e-2,
        clip: float = 1.0,
        schedule: str = "cosine",
        warmup: float = 0.03,
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
            }
        )
        self.head_specs = specs
        self.task_weights = weights
        self.columns = column_map(specs, self.y_space)
        classes = [len(v.labels) for v in self.x_space]
        with seeded(seed):
            scaler = InputScaler(classes)
            network = build(encoder_full, "encoder", input_dim=scaler.wide_dim)
            self.encoder: nn.Module = TabularEncoder(scaler, network)
            self.task_heads = nn.ModuleDict()
            for name, spec in specs.items():
                extra: dict[str, Any] = {"latent_dim": network.latent_dim}
                if spec["_target_"] == HEADS["autoencoder"]:
                    extra["classes"] = classes
                self.task_heads[name] = build(spec, f"head {name!r}", **extra)
        self.label_widths = {n: int(head.label_width) for n, head in self.heads.items()}
        self.register_buffer("latent_scale", torch.ones(()))
        self.register_buffer("fitted", torch.zeros((), dtype=torch.bool))
        self.eval()

    @classmethod
    def for_spaces(
        cls,
        x_space: Space,
        y_space: Space,
        heads: str | HeadSpecs = "auto",
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
        model = cls(**checkpoint[cls.CHECKPOINT_HYPER_PARAMS_KEY])
        try:
            model.load_state_dict(checkpoint["state_dict"])
        except RuntimeError as error:
            raise GenoptError(f"{path} does not fit its own hyperparameters: {error}") from error
        model.on_load_checkpoint(checkpoint)
        return model.eval()
