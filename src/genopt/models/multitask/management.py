"""Heads that come, go, rest and hold still on a model that is already built or loaded.

What is done is written in the hyperparameters, so checkpoints keep it; the weights of all other
parts are not touched.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Iterable, Mapping
from contextlib import suppress
from importlib import import_module
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from genopt.build import Spec, build
from genopt.errors import GenoptError, UnknownNameError
from genopt.models.multitask.columns import column_map, head_columns, kind_of, property_space
from genopt.models.multitask.files import read
from genopt.models.multitask.labels import learn_scales
from genopt.models.multitask.learning import MultiTaskLearning
from genopt.models.multitask.spec import as_space, check_same_columns, head_specs
from genopt.models.options import FitOptions
from genopt.models.training import seeded
from genopt.nn.encoders import TabularEncoder
from genopt.nn.scalers import InputScaler
from genopt.space import Space


class ManagedHeads(MultiTaskLearning):
    """The parts of a `FlexibleMultiTaskModel`: built, added, removed, switched off, held."""

    head_specs: dict[str, dict[str, Any]]

    # -- building ----------------------------------------------------------------------------------
    def _build_encoder(self, spec: Mapping[str, Any]) -> TabularEncoder:
        """The encoder of a full specification; it is told of classes if its signature asks."""
        classes = [len(v.labels) for v in self.x_space]
        scaler = InputScaler(classes)
        extra: dict[str, Any] = {"input_dim": scaler.wide_dim}
        module, _, name = str(spec["_target_"]).rpartition(".")
        # an import that fails is reported by build
        with suppress(ImportError, AttributeError, ValueError):
            if "classes" in inspect.signature(getattr(import_module(module), name)).parameters:
                extra["classes"] = classes
        return TabularEncoder(scaler, build(spec, "encoder", **extra))

    def _build_head(self, name: str, spec: Mapping[str, Any]) -> nn.Module:
        """The head of a full specification, over the model's encoder."""
        network: Any = getattr(self.encoder, "network", self.encoder)
        extra: dict[str, Any] = {"latent_dim": network.latent_dim}
        if kind_of(spec) == "design":
            extra["classes"] = [len(v.labels) for v in self.x_space]
        head: nn.Module = build(spec, f"head {name!r}", **extra)
        return head

    def _set_heads(self, specs: dict[str, dict[str, Any]], y_space: Space) -> None:
        """Take specifications and columns over, in the hyperparameters too."""
        self.head_specs = specs
        self.y_space = y_space
        self.columns = column_map(specs, y_space)
        self.hparams["heads"] = specs
        self.hparams["y_space"] = y_space.to_dict()
        self.hparams["task_weights"] = self.task_weights
        self._set_training()

    # -- heads that come and go --------------------------------------------------------------------
    def add_head(
        self,
        name: str,
        spec: Spec,
        *,
        weight: float = 1.0,
        y_space: Space | None = None,
        seed: int = 0,
    ) -> Self:
        """Add a head with new weights; it predicts NaN until a fit has labels for it.

        Args:
            name: the head.
            spec: its kind, or a mapping with ``kind`` (or ``_target_``) and options.
            weight: weight of its loss.
            y_space: the Space of y with the new head's columns, in the order of a table; None
                appends them to the model's.
            seed: seed of the new weights.

        Returns:
            The model itself.

        Raises:
            GenoptError: if there is such a head already, or it does not fit its column.
        """
        if name in self.head_specs:
            raise GenoptError(f"head {name!r} is already there: remove_head({name!r}) first")
        if weight < 0:
            raise GenoptError(f"weight of head {name!r} must not be negative, got {weight}")
        if y_space is None:
            new = head_specs({name: spec}, None)
            known = set(self.y_space.names) & set(head_columns(name, new[name]))
            if known:
                new = head_specs({name: spec}, self.y_space)
            added = [v for v in property_space(new) if v.name not in known]
            y_space = Space((*self.y_space, *added), self.y_space.simplexes)
        specs = head_specs({**self.head_specs, name: spec}, y_space)
        with seeded(seed):
            head = self._build_head(name, specs[name]).to(self.home)
        self.task_heads[name] = head.train(self.training)
        self._built_widths[name] = int(getattr(head, "label_width", 1))
        self.task_weights[name] = float(weight)
        self._set_heads(specs, y_space)
        return self

    def remove_head(self, name: str) -> Self:
        """Remove a head; its columns stay in the Space of y, and are predicted as NaN.

        Args:
            name: the head.

        Returns:
            The model itself.

        Raises:
            GenoptError: if it is the last one.
        """
        self._known([name])
        if len(self.head_specs) == 1:
            raise GenoptError(f"head {name!r} is the only one: a model needs a head")
        self.enable_heads(name)
        if name in self.frozen:
            self.unfreeze(name)
        del self.task_heads[name], self.task_weights[name], self._built_widths[name]
        specs = {head: spec for head, spec in self.head_specs.items() if head != name}
        self._set_heads(specs, self.y_space)
        return self

    def disable_heads(self, *names: str) -> Self:
        """Neither train nor predict some heads; their weights are kept.

        Args:
            *names: the heads.

        Returns:
            The model itself.

        Raises:
            GenoptError: if no head would be left.
        """
        self._known(names)
        if {*self.disabled, *names} >= set(self.task_heads):
            raise GenoptError("disabled names every head: a model needs one that is enabled")
        return self._mark_heads(names, enabled=False)

    def enable_heads(self, *names: str) -> Self:
        """Undo `disable_heads`.

        Args:
            *names: the heads.

        Returns:
            The model itself.
        """
        self._known(names)
        return self._mark_heads(names, enabled=True)

    def _mark_heads(self, names: Iterable[str], enabled: bool) -> Self:
        changed = set(names)
        for name in changed:
            head: Any = self.task_heads[name]
            head.enabled = enabled
        off = set(self.disabled) - changed if enabled else {*self.disabled, *changed}
        self.hparams["disabled"] = [name for name in self.task_heads if name in off]
        return self

    # -- parts that hold still ---------------------------------------------------------------------
    def freeze(self, *names: str) -> Self:
        """Hold the weights of parts: no optimiser sees them, and they drop no units.

        A frozen head still predicts. While the encoder learns, its loss counts there.

        Args:
            *names: ``encoder`` or heads.

        Returns:
            The model itself.
        """
        return self._hold(names, frozen=True)

    def unfreeze(self, *names: str) -> Self:
        """Undo `freeze`.

        Args:
            *names: ``encoder`` or heads.

        Returns:
            The model itself.
        """
        return self._hold(names, frozen=False)

    def _hold(self, names: Iterable[str], frozen: bool) -> Self:
        changed = set(names)
        self._known(changed, "encoder")
        for name in changed:
            part: Any = self.encoder if name == "encoder" else self.task_heads[name]
            part.frozen = frozen
            part.requires_grad_(not frozen)
            part.train(self.training and not frozen)
        held = {*self.frozen, *changed} if frozen else set(self.frozen) - changed
        self.hparams["frozen"] = [n for n in ("encoder", *self.task_heads) if n in held]
        return self

    def _known(self, names: Iterable[str], *more: str) -> None:
        known = (*more, *self.task_heads)
        for name in names:
            if name not in known:
                raise UnknownNameError("part" if more else "head", str(name), known)

    def train(self, mode: bool = True) -> Self:
        """Training mode, but for frozen parts.

        Args:
            mode: whether to train.

        Returns:
            The model itself.
        """
        super().train(mode)
        for name in self.frozen:
            (self.encoder if name == "encoder" else self.task_heads[name]).eval()
        return self

    # -- fitting -----------------------------------------------------------------------------------
    def _fit(
        self,
        train: tuple[Tensor, Tensor],
        held: tuple[Tensor, Tensor],
        epochs: int | None,
        batch_size: int | None,
        options: FitOptions,
    ) -> None:
        if not any(p.requires_grad for p in self.parameters()):
            raise GenoptError(f"nothing is left to train: frozen names {', '.join(self.frozen)}")
        if bool(self.fitted):
            # heads that were added, or had no label, since the first fit
            learn_scales(self.heads, self.label_widths, *train)
        with warnings.catch_warnings():
            # frozen parts are meant to be in eval mode
            warnings.filterwarnings("ignore", message=".*in eval mode at the start of training.*")
            super()._fit(train, held, epochs, batch_size, options)

    # -- a start from another model ----------------------------------------------------------------
    @torch.no_grad()
    def _start_from(self, path: str | Path) -> None:
        """Take the encoder with its scaler, and every head of the same name, from a checkpoint.

        A head that the checkpoint does not have, or has with other options or columns, starts new.

        Args:
            path: the checkpoint.

        Raises:
            GenoptError: if its encoder has other columns or another shape.
        """
        checkpoint = read(path)
        options = checkpoint[self.CHECKPOINT_HYPER_PARAMS_KEY]
        state: dict[str, Tensor] = checkpoint["state_dict"]
        if "members" in options:
            raise GenoptError(f"pretrained={path} is an ensemble: start from a single model")
        try:
            check_same_columns("x", as_space(options["x_space"]), self.x_space)
        except GenoptError as error:
            raise GenoptError(f"pretrained={path} does not fit: {error}") from error
        parts = {"encoder": self.encoder}
        theirs = as_space(options["y_space"])
        for name, spec in self.head_specs.items():
            columns = head_columns(name, spec)
            same = all(c in theirs and theirs[c].labels == self.y_space[c].labels for c in columns)
            if same and options["heads"].get(name) == spec:
                parts[f"task_heads.{self.task_heads.key(name)}"] = self.task_heads[name]
        for prefix, part in parts.items():
            start = f"{prefix}."
            own = {k.removeprefix(start): v for k, v in state.items() if k.startswith(start)}
            try:
                part.load_state_dict(own)
            except RuntimeError as error:
                raise GenoptError(
                    f"pretrained={path}: its {prefix} has another shape than the model's. The "
                    f"checkpoint has encoder={options['encoder']} for the columns "
                    f"{', '.join(self.x_space.names)}, the model encoder={self.hparams['encoder']}"
                ) from error
        self.latent_scale.copy_(state["latent_scale"])
        self.fitted.copy_(state["fitted"])
