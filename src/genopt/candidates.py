"""Candidates: the designs that a routine returns, what is claimed and what is verified of them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from genopt.errors import GenoptError, UnknownNameError
from genopt.files import whole, write_whole
from genopt.goal import Goal
from genopt.modes import cluster_stats
from genopt.space import Space

if TYPE_CHECKING:
    import pandas as pd

_PER_CANDIDATE = (
    "y_predicted", "y_spread", "y_verified", "loss", "feasible", "log_density", "ood", "converged",
)  # fmt: skip
_DISTANCE = 0.05


@dataclass(frozen=True)
class Candidates:
    """Designs for B goals, R each, in raw units.

    Args:
        x: designs (B, R, P).
        x_space: the Space of the designs.
        y_space: the Space of the properties.
        y_predicted: what the model claims (B, R, K); NaN where it claims nothing.
        loss: the goal's loss of the claim (B, R); lower is better, NaN is worst.
        feasible: bool (B, R): the design lies in the x Space and the claim satisfies the goal.
        y_verified: what the simulator says (B, R, K); NaN where there is none.
        y_spread: standard deviation of the claim (B, R, K), NaN for a column without one, if the
            model gives it.
        log_density: log density of the design under the model (B, R), if the routine gives it.
        ood: how far from the training data the design or its goal is (B, R), if the routine gives
            it.
        converged: bool (B, R): whether the solver that gave the design came to its end, if the
            routine runs one.
        trajectory: designs along the search (B, R, S, P), if asked for.
        goal: the goal's specification.
        header: further facts worth keeping; plain data. A study adds ``numbers`` (name to
            number) to its metrics and the sentences ``says`` to its verdict.

    Raises:
        GenoptError: if the shapes do not fit together; the message names the field.
    """

    x: Tensor
    x_space: Space
    y_space: Space
    y_predicted: Tensor
    loss: Tensor
    feasible: Tensor
    y_verified: Tensor = field(default_factory=lambda: torch.empty(0))
    y_spread: Tensor | None = None
    log_density: Tensor | None = None
    ood: Tensor | None = None
    converged: Tensor | None = None
    trajectory: Tensor | None = None
    goal: Mapping[str, Any] = field(default_factory=dict)
    header: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.x.ndim != 3:
            raise GenoptError(
                f"x has shape {tuple(self.x.shape)}; expected (B, R, {self.x_space.dim})"
            )
        self.x_space.check(self.x)
        leading = tuple(self.x.shape[:2])
        if self.y_verified.numel() == 0 and leading[0] * leading[1] * self.y_space.dim > 0:
            empty = torch.full((*leading, self.y_space.dim), torch.nan, dtype=torch.float64)
            object.__setattr__(self, "y_verified", empty)
        for name in _PER_CANDIDATE:
            value = getattr(self, name)
            if value is None:
                continue
            shape = (*leading, self.y_space.dim) if name.startswith("y_") else leading
            if tuple(value.shape) != shape:
                raise GenoptError(f"{name} has shape {tuple(value.shape)}; expected {shape}")
        if self.trajectory is not None and (
            self.trajectory.ndim != 4 or tuple(self.trajectory.shape[:2]) != leading
        ):
            raise GenoptError(
                f"trajectory has shape {tuple(self.trajectory.shape)}; expected "
                f"{(*leading, 'S', 'P')}"
            )

    @classmethod
    def from_claims(cls, goal: Goal, x: Tensor, y_predicted: Tensor, **extra: Any) -> Candidates:
        """Candidates with loss and feasibility worked out from the goal.

        Args:
            goal: what was asked, B goals.
            x: designs (B, R, P).
            y_predicted: claims (B, R, K).
            **extra: further fields of Candidates.

        Returns:
            The Candidates.
        """
        x, y_predicted = x.detach().to(torch.float64), y_predicted.detach().to(torch.float64)
        return cls(
            x=x,
            x_space=goal.x_space,
            y_space=goal.y_space,
            y_predicted=y_predicted,
            loss=goal.loss(y_predicted),
            feasible=goal.satisfied(y_predicted) & goal.x_space.contains(x),
            goal=goal.spec,
            **extra,
        )

    # -- selection -------------------------------------------------------------------------------
    @property
    def shape(self) -> tuple[int, int]:
        """(B, R)."""
        return self.x.shape[0], self.x.shape[1]

    def __len__(self) -> int:
        return self.x.shape[0] * self.x.shape[1]

    def take(self, index: Tensor) -> Candidates:
        """Some candidates of each goal.

        Args:
            index: positions (B, n) along R.

        Returns:
            Candidates with R = n, in that order.
        """
        rows = torch.arange(self.x.shape[0])[:, None]
        picked = {
            name: value[rows, index]
            for name in ("x", *_PER_CANDIDATE, "trajectory")
            if (value := getattr(self, name)) is not None
        }
        return replace(self, **picked)

    @property
    def verified(self) -> bool:
        """Whether a simulator has said anything of them."""
        return bool(torch.isfinite(self.y_verified).any())

    def order(self, by: str | None = None) -> Tensor:
        """Positions along R from best to worst.

        Designs that reach the goal and lie in the Space come first, then the loss decides; NaN is
        last. Where claims have a spread it is their expected loss: of two that meet the goal the
        surer one is better.

        Args:
            by: ``claimed`` or ``verified``; None for verified where there is a simulator.

        Returns:
            Positions (B, R).

        Raises:
            UnknownNameError: if ``by`` is another word.
        """
        if by not in (None, "claimed", "verified"):
            raise UnknownNameError("order by", by, ("claimed", "verified"))
        loss, feasible = self.loss, self.feasible
        goal = Goal(self.goal, self.x_space, self.y_space)
        if by != "verified" and (by == "claimed" or not self.verified):
            if self.y_spread is not None:
                loss = goal.expected_loss(self.y_predicted, self.y_spread)
        else:
            loss = goal.loss(self.y_verified)
            feasible = goal.satisfied(self.y_verified) & self.x_space.contains(self.x)
        loss = torch.where(torch.isnan(loss), torch.inf, loss)
        by_loss = loss.argsort(dim=1, stable=True)
        infeasible = (~feasible).gather(1, by_loss).to(torch.int8)
        return by_loss.gather(1, infeasible.argsort(dim=1, stable=True))

    def best(self, by: str | None = None) -> Candidates:
        """The best candidate of each goal: R = 1.

        Args:
            by: as in `order`.

        Returns:
            The Candidates.
        """
        return self.take(self.order(by)[:, :1])

    def top(self, n: int, diverse: bool = True, distance: float | None = None) -> Candidates:
        """The best n candidates of each goal, by what is verified where there is a simulator.

        Args:
            n: how many; fewer come back where there are not so many (or not so many distinct ones
                for every goal).
            diverse: whether a candidate must differ from every better one kept.
            distance: how much it must differ: root mean square over the columns of the unit box
                (classes one-hot); None for what the routine called distinct, else .05.

        Returns:
            Candidates with R <= n, the best first.
        """
        order = self.order()
        if distance is None:
            distance = float(self.header.get("distance", _DISTANCE))
        if not diverse:
            return self.take(order[:, :n])
        unit = self.x_space.encode(self.x)
        chosen = []
        there = torch.isfinite(self.x).all(-1)
        for b in range(self.x.shape[0]):
            if not bool(there[b].any()):
                # no designs at all: the goal must not cost the others theirs
                chosen.append(order[b, :n].tolist())
                continue
            kept: list[int] = []
            for i in order[b].tolist():
                if len(kept) == n:
                    break
                gaps = (unit[b, kept] - unit[b, i]).square().mean(-1).sqrt()
                if bool((gaps >= distance).all()):
                    kept.append(i)
            chosen.append(kept)
        width = min((len(kept) for kept in chosen), default=0)
        return self.take(
            torch.tensor([kept[:width] for kept in chosen], dtype=torch.long).reshape(-1, width)
        )

    def modes(self, eps: float = 0.05, min_samples: int = 10) -> list[list[dict[str, Any]]]:
        """Clusters of the designs of each goal, found in the unit box of the x Space.

        Args:
            eps: radius of a neighbourhood in the unit box.
            min_samples: neighbours that make a core point.

        Returns:
            For each goal, the modes as `genopt.cluster_stats` gives them, with ``mean`` and ``std``
            in raw units.
        """
        found = []
        for b in range(self.x.shape[0]):
            finite = torch.isfinite(self.x[b]).all(-1)
            raw = self.x[b][finite].numpy()
            modes = cluster_stats(self.x_space.encode(self.x[b][finite]).numpy(), eps, min_samples)
            for mode in modes:
                members = raw[mode["indices"]]
                mode["mean"], mode["std"] = members.mean(0), members.std(0)
            found.append(modes)
        return found

    def verified_by(self, y: Tensor) -> Candidates:
        """The same candidates with the simulator's answer beside the claim.

        Args:
            y: true properties (B, R, K).

        Returns:
            Candidates with ``y_verified`` set.
        """
        return replace(self, y_verified=y.detach().to(torch.float64))

    # -- tables and files --------------------------------------------------------------------------
    def to_frame(self) -> pd.DataFrame:
        """One row a candidate: design (classes as text), claim, verified values, loss, flags."""
        import pandas as pd

        goals, ranks = self.shape
        columns: dict[str, Any] = {
            "goal": np.repeat(np.arange(goals), ranks),
            "candidate": np.tile(np.arange(ranks), goals),
        }
        flat = self.x.reshape(-1, self.x_space.dim).numpy()
        for i, v in enumerate(self.x_space):
            codes = flat[:, i]
            # a goal that a routine abstained from has no designs
            named = [None if np.isnan(c) else v.labels[int(c)] for c in codes] if v.labels else None
            columns[v.name] = codes if named is None else named
        for i, name in enumerate(self.y_space.names):
            columns[f"{name}_predicted"] = self.y_predicted[..., i].reshape(-1).numpy()
            if self.y_spread is not None:
                columns[f"{name}_spread"] = self.y_spread[..., i].reshape(-1).numpy()
            columns[f"{name}_verified"] = self.y_verified[..., i].reshape(-1).numpy()
        columns["loss"] = self.loss.reshape(-1).numpy()
        columns["feasible"] = self.feasible.reshape(-1).numpy()
        for name in ("log_density", "ood", "converged"):
            value = getattr(self, name)
            if value is not None:
                columns[name] = value.reshape(-1).numpy()
        return pd.DataFrame(columns)

    def save(self, path: str | Path) -> Path:
        """Write a Parquet table, a JSON header beside it and, for a trajectory, an ``.npz`` file.

        Args:
            path: the Parquet file; its suffix becomes ``.parquet``.

        Returns:
            The Parquet file's path.
        """
        path = Path(path).with_suffix(".parquet")
        header = {
            "format": "genopt candidates 1",
            "shape": list(self.shape),
            "x_space": self.x_space.to_dict(),
            "y_space": self.y_space.to_dict(),
            "goal": dict(self.goal),
            "header": dict(self.header),
        }
        if self.trajectory is not None:
            with whole(path.with_suffix(".npz")) as part:
                np.savez_compressed(part, trajectory=self.trajectory.numpy())
        write_whole(path.with_suffix(".json"), json.dumps(header, indent=2))
        # last: where the table is there, so is what belongs to it
        with whole(path) as part:
            self.to_frame().to_parquet(part, index=False)
        return path

    @classmethod
    def load(cls, path: str | Path) -> Candidates:
        """Read what `save` wrote.

        Args:
            path: the Parquet file.

        Returns:
            The Candidates.

        Raises:
            GenoptError: if the file or its header is missing.
        """
        import pandas as pd

        path = Path(path).with_suffix(".parquet")
        for needed in (path, path.with_suffix(".json")):
            if not needed.exists():
                raise GenoptError(
                    f"{needed} does not exist: give the .parquet file that Candidates.save wrote"
                )
        header = json.loads(path.with_suffix(".json").read_text())
        frame = pd.read_parquet(path)
        x_space, y_space = Space.from_dict(header["x_space"]), Space.from_dict(header["y_space"])
        goals, ranks = header["shape"]

        def grid(names: list[str]) -> Tensor:
            values = frame[names].to_numpy(dtype=float).reshape(goals, ranks, len(names))
            return torch.from_numpy(values.copy())

        for v in x_space:
            if v.labels:
                frame[v.name] = [
                    np.nan if pd.isna(label) else float(v.code(label)) for label in frame[v.name]
                ]
        spreads = [f"{n}_spread" for n in y_space.names]
        trajectory = None
        if path.with_suffix(".npz").exists():
            with np.load(path.with_suffix(".npz")) as arrays:
                trajectory = torch.from_numpy(arrays["trajectory"])
        return cls(
            x=grid(list(x_space.names)),
            x_space=x_space,
            y_space=y_space,
            y_predicted=grid([f"{n}_predicted" for n in y_space.names]),
            y_verified=grid([f"{n}_verified" for n in y_space.names]),
            y_spread=grid(spreads) if set(spreads) <= set(frame.columns) else None,
            loss=grid(["loss"])[..., 0],
            feasible=grid(["feasible"])[..., 0].bool(),
            log_density=grid(["log_density"])[..., 0] if "log_density" in frame else None,
            ood=grid(["ood"])[..., 0] if "ood" in frame else None,
            converged=grid(["converged"])[..., 0].bool() if "converged" in frame else None,
            trajectory=trajectory,
            goal=header["goal"],
            header=header["header"],
        )
