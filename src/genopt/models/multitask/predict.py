"""What can be asked of an encoder and its heads: features, predictions in raw units, properties."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from genopt.errors import GenoptError
from genopt.models.multitask.labels import as_tensor, check_finite
from genopt.models.multitask.spec import check_same_columns
from genopt.nn.heads import AutoencoderHead, ClassificationHead, RegressionHead
from genopt.space import Space

_CHUNK = 65_536
_OWN_HEADS = (RegressionHead, ClassificationHead, AutoencoderHead)


class MultiTaskPrediction(nn.Module):
    """The predicting half of a `FlexibleMultiTaskModel`, which sets the parts.

    Either the encoder or a head may have been replaced by a module of one's own.
    """

    encoder: nn.Module
    task_heads: nn.ModuleDict
    x_space: Space
    y_space: Space
    columns: tuple[tuple[str, int] | None, ...]
    label_widths: dict[str, int]

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
        if isinstance(head, _OWN_HEADS):
            return head(latent, dtype)
        out: Tensor = head(latent)
        return out.to(dtype or latent.dtype)

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

    def predict(self, x: Any) -> dict[str, Any]:
        """Every head's prediction, in raw units.

        Args:
            x: designs (N, P), or one design (P,).

        Returns:
            By head: (N,) for a scalar property, (N, T) for a vector, probabilities (N, C) for
            classes, designs (N, P) for a reconstruction. Tensors for a tensor (without gradients,
            in its dtype), else numpy arrays.

        Raises:
            GenoptError: if x has the wrong shape or is not finite.
        """
        designs = as_tensor(x, "x")
        if designs.ndim == 0 or designs.shape[-1] != self.x_space.dim:
            raise GenoptError(
                f"x has shape {tuple(designs.shape)}; expected (N, {self.x_space.dim})"
            )
        leading = designs.shape[:-1]
        flat = designs.reshape(-1, self.x_space.dim)
        check_finite(flat, self.x_space, "x")
        parts: dict[str, list[Tensor]] = {name: [] for name in self.task_heads}
        with self.evaluating(), torch.no_grad():
            for chunk in flat.split(_CHUNK):
                latent = self.encoder(chunk.to(self.home))[1]
                for name in parts:
                    parts[name].append(self.head_output(name, latent, designs.dtype))
        out: dict[str, Any] = {}
        for name, pieces in parts.items():
            value = torch.cat(pieces).to(designs.device)
            scalar = self.label_widths[name] == 1 and value.shape[-1] == 1
            value = value.reshape(leading if scalar else (*leading, value.shape[-1]))
            out[name] = value if isinstance(x, Tensor) else value.numpy()
        return out

    def predict_y(self, x: Tensor) -> Tensor:
        """The columns of the y Space: numbers in raw units, classes as their most likely code.

        Args:
            x: designs (..., P).

        Returns:
            Properties (..., K) in the dtype of x, differentiable in x; NaN for a column without a
            head.
        """
        self.x_space.check(x)
        with self.evaluating():
            latent = self.encoder(x.to(self.home))[1]
            outputs = {
                name: self.head_output(name, latent, x.dtype)
                for name in dict.fromkeys(w[0] for w in self.columns if w is not None)
            }
        columns = []
        for v, where in zip(self.y_space, self.columns, strict=True):
            if where is None:
                columns.append(torch.full_like(x[..., 0], torch.nan))
            elif v.labels:
                columns.append(outputs[where[0]].argmax(-1).to(x))
            else:
                columns.append(outputs[where[0]][..., where[1]].to(x.device))
        return torch.stack(columns, -1)
