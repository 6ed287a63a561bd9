"""What can be asked of an encoder and its heads: features, predictions in raw units, properties."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from genopt.errors import GenoptError, UnknownNameError
from genopt.models.multitask.labels import as_tensor, check_finite
from genopt.models.multitask.spec import check_same_columns
from genopt.nn.encoders import TabularEncoder
from genopt.nn.heads import Head, HeadDict, HeadKind, SequenceHead
from genopt.nn.scalers import InputScaler
from genopt.space import Space

_CHUNK = 65_536


class MultiTaskPrediction(nn.Module):
    """The predicting half of a `FlexibleMultiTaskModel`, which sets the parts.

    Either the encoder or a head may have been replaced by a module of one's own.
    """

    encoder: nn.Module
    task_heads: HeadDict
    x_space: Space
    y_space: Space
    columns: tuple[tuple[str, int] | None, ...]
    fitted: Tensor
    hparams: Any
    _built_widths: dict[str, int]
    _warned = False

    @property
    def home(self) -> torch.device:
        """The device of the weights."""
        return next((p.device for p in self.parameters()), torch.device("cpu"))

    @property
    def heads(self) -> dict[str, Any]:
        """The heads by name."""
        return dict(self.task_heads.items())

    def check_spaces(self, x_space: Space, y_space: Space) -> None:
        """Refuse a problem with other columns than the model's.

        Args:
            x_space: the problem's Space of x.
            y_space: the problem's Space of y.

        Raises:
            GenoptError: naming the columns that differ in name, order, kind or classes.
        """
        for role, mine, theirs in (("x", self.x_space, x_space), ("y", self.y_space, y_space)):
            check_same_columns(role, mine, theirs)

    @property
    def scaler(self) -> InputScaler:
        """How designs become features; one without classes where the encoder was replaced."""
        if isinstance(self.encoder, TabularEncoder):
            return self.encoder.scaler
        return InputScaler([0] * self.x_space.dim)

    @property
    def label_widths(self) -> dict[str, int]:
        """Label columns by head; 0 for a reconstruction."""
        return {
            name: int(getattr(head, "label_width", self._built_widths[name]))
            for name, head in self.task_heads.items()
        }

    @property
    def disabled(self) -> tuple[str, ...]:
        """The heads that are neither trained nor predicted."""
        return tuple(self.hparams.get("disabled", ()))

    @property
    def frozen(self) -> tuple[str, ...]:
        """The parts, ``encoder`` or heads, whose weights are held."""
        return tuple(self.hparams.get("frozen", ()))

    @property
    def trained_heads(self) -> tuple[str, ...]:
        """The heads whose losses a fit adds up, in order.

        That is every enabled head, but for frozen ones over a frozen encoder, whose loss nothing
        can change. A frozen head over an encoder that learns keeps its say in what that learns;
        otherwise its predictions would drift.
        """
        held = self.frozen
        return tuple(
            name
            for name in self.task_heads
            if name not in self.disabled and not ("encoder" in held and name in held)
        )

    @property
    def untrained_heads(self) -> tuple[str, ...]:
        """The heads of a fitted model that never had a label: they predict NaN."""
        if not bool(self.fitted):
            return ()
        heads = self.task_heads.items()
        return tuple(n for n, head in heads if isinstance(head, Head) and not bool(head.learned))

    def require_heads(self, *names: str) -> None:
        """Refuse heads that have nothing to say.

        Args:
            *names: heads.

        Raises:
            UnknownNameError: if there is no such head.
            GenoptError: if a head is disabled, or never had a label.
        """
        for name in names:
            if name not in self.task_heads:
                raise UnknownNameError("head", name, self.task_heads)
            if name in self.disabled:
                raise GenoptError(f"head {name!r} is disabled: model.enable_heads({name!r})")
            if name in self.untrained_heads:
                raise GenoptError(f"head {name!r} never had a label: fit the model with some")

    @property
    def has_spread(self) -> bool:
        """Whether `spread_y` says anything: some head that speaks knows the noise."""
        return any(getattr(self.task_heads[n], "has_noise", False) for n in self._speaking())

    def features(self, x: Tensor) -> Tensor:
        """What the encoder's network sees of designs.

        Args:
            x: designs (..., P) in raw units.

        Returns:
            Scaled features (..., E), classes as one-hot blocks.
        """
        encoder: Any = self.encoder
        return encoder.scaler(encoder.scaler.wide(x))

    def head_output(self, name: str, latent: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        """What a head says, in raw units.

        Args:
            name: the head.
            latent: latent vectors (..., H).
            dtype: dtype of the result; None for that of the latent vectors.

        Returns:
            Properties (..., T), probabilities (..., C) or designs (..., P).
        """
        head = self.task_heads[name]
        if isinstance(head, Head):
            return head(latent, dtype)
        out: Tensor = head(latent)
        return out.to(dtype or latent.dtype)

    def head_kind(self, name: str) -> HeadKind:
        """What a head gives.

        Args:
            name: the head.

        Returns:
            ``number``, ``class`` or ``design``.
        """
        head = self.task_heads[name]
        if isinstance(head, Head):
            return head.kind
        if self.label_widths[name] == 0:
            return "design"
        return "class" if name in self.y_space and self.y_space[name].labels else "number"

    def head_unit(self, name: str) -> Tensor:
        """The unit in which a head's misses are counted.

        Args:
            name: the head.

        Returns:
            Training spread (T,) of its outputs, float64; 1 where there is no scale.
        """
        head = self.task_heads[name]
        if isinstance(head, Head):
            return head.unit
        return torch.ones(1, dtype=torch.float64, device=self.home)

    def head_log_probability(self, name: str, latent: Tensor) -> Tensor:
        """Log class probabilities of a head of the kind ``class``.

        Args:
            name: the head.
            latent: latent vectors (..., H).

        Returns:
            Log probabilities (..., C).
        """
        head = self.task_heads[name]
        return head.log_probability(latent) if isinstance(head, Head) else head(latent).log()

    def head_spread(
        self, name: str, latent: Tensor, dtype: torch.dtype | None = None, noise: bool = True
    ) -> Tensor | None:
        """How far a label may lie from what a head says.

        Args:
            name: the head.
            latent: latent vectors (..., H).
            dtype: dtype of the result; None for that of the network.
            noise: whether the noise of the labels counts; one model has no other spread.

        Returns:
            Standard deviations (..., T) in raw units; None where the head has no opinion.
        """
        head = self.task_heads[name]
        return head.noise(latent, dtype) if noise and isinstance(head, Head) else None

    def latent_of_wide(self, wide: Tensor) -> Tensor:
        """Latent vectors of designs whose classes are (relaxed) one-hot blocks.

        Args:
            wide: wide designs (..., E).

        Returns:
            Latent vectors (..., H).
        """
        encoder = self.encoder
        pair = encoder.from_wide(wide) if isinstance(encoder, TabularEncoder) else encoder(wide)
        return pair[1]

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """Eval mode inside the block; every submodule's flag is put back afterwards.

        Yields:
            Nothing.
        """
        flags = [(module, module.training) for module in self.modules()]
        try:
            self.eval()
            yield
        finally:
            for module, flag in flags:
                module.training = flag

    def predict(self, x: Any, grid: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Every enabled head's prediction, in raw units.

        Args:
            x: designs (N, P), or one design (P,).
            grid: by sequence head, the values of t to predict at, instead of the head's own.

        Returns:
            By head: (N,) for a scalar property, (N, T) for a vector, probabilities (N, C) for
            classes, designs (N, P) for a reconstruction, NaN for a head that never had a label.
            Tensors for a tensor (without gradients, in its dtype), else numpy arrays.

        Raises:
            GenoptError: if x has the wrong shape or is not finite, or a grid does not fit.
        """
        designs = as_tensor(x, "x")
        if designs.ndim == 0 or designs.shape[-1] != self.x_space.dim:
            raise GenoptError(
                f"x has shape {tuple(designs.shape)}; expected (N, {self.x_space.dim})"
            )
        if not bool(self.fitted) and not self._warned:
            self._warned = True
            warnings.warn(
                "the model has not been fitted: its predictions are those of its initial weights",
                stacklevel=2,
            )
        leading = designs.shape[:-1]
        flat = designs.reshape(-1, self.x_space.dim)
        check_finite(flat, self.x_space, "x")
        disabled, untrained, grids = self.disabled, self.untrained_heads, dict(grid or {})
        parts: dict[str, list[Tensor]] = {n: [] for n in self.task_heads if n not in disabled}
        with self.evaluating(), torch.no_grad(), self._on(grids):
            for chunk in flat.split(_CHUNK):
                latent = self.encoder(chunk.to(self.home))[1]
                for name in parts:
                    parts[name].append(self.head_output(name, latent, designs.dtype))
        out: dict[str, Any] = {}
        for name, pieces in parts.items():
            value = torch.cat(pieces).to(designs.device)
            scalar = value.shape[-1] == 1 and name not in grids
            scalar = scalar and self.head_kind(name) == "number"
            value = value.reshape(leading if scalar else (*leading, value.shape[-1]))
            if name in untrained:
                value = torch.full_like(value, torch.nan)
            out[name] = value if isinstance(x, Tensor) else value.numpy()
        return out

    @contextmanager
    def _on(self, grids: Mapping[str, Any]) -> Iterator[None]:
        """Sequence heads on other grids inside the block."""
        with ExitStack() as stack:
            for name, points in grids.items():
                self.require_heads(str(name))
                head = self.task_heads[name]
                if not isinstance(head, SequenceHead):
                    raise GenoptError(f"grid: head {name!r} is no sequence head")
                stack.enter_context(head.on(as_tensor(points, f"grid[{name!r}]")))
            yield

    def predict_y(self, x: Tensor) -> Tensor:
        """The columns of the y Space: numbers in raw units, classes as their most likely code.

        Args:
            x: designs (..., P).

        Returns:
            Properties (..., K) in the dtype of x, differentiable in x; NaN for a column without a
            head, or whose head is disabled or never had a label.
        """
        self.x_space.check(x)
        names = self._speaking()
        with self.evaluating():
            latent = self.encoder(x.to(self.home))[1]
            outputs = {name: self.head_output(name, latent, x.dtype) for name in names}
        columns = []
        for v, where in zip(self.y_space, self.columns, strict=True):
            if where is None or where[0] not in outputs:
                columns.append(torch.full_like(x[..., 0], torch.nan))
            elif v.labels:
                columns.append(outputs[where[0]].argmax(-1).to(x))
            else:
                columns.append(outputs[where[0]][..., where[1]].to(x.device))
        return torch.stack(columns, -1)

    def spread_y(self, x: Tensor) -> Tensor:
        """Standard deviations of the numeric columns of y around `predict_y`.

        Args:
            x: designs (..., P).

        Returns:
            Standard deviations (..., K) in raw units and the dtype of x, differentiable in x; NaN
            for classes, and for columns whose head knows no noise or says nothing.
        """
        self.x_space.check(x)
        names = self._speaking()
        with self.evaluating():
            latent = self.encoder(x.to(self.home))[1]
            spreads = {name: self.head_spread(name, latent, x.dtype) for name in names}
        columns = []
        for v, where in zip(self.y_space, self.columns, strict=True):
            spread = None if where is None or v.labels else spreads.get(where[0])
            if where is None or spread is None:
                columns.append(torch.full_like(x[..., 0], torch.nan))
            else:
                columns.append(spread[..., where[1]].to(x.device))
        return torch.stack(columns, -1)

    def _speaking(self) -> list[str]:
        """The heads of columns that are enabled and have learned."""
        silent = {*self.disabled, *self.untrained_heads}
        heads = dict.fromkeys(where[0] for where in self.columns if where is not None)
        return [name for name in heads if name not in silent]
