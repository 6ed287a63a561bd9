"""Heads under the names of a user's columns, which may be words that torch keeps for itself."""

from __future__ import annotations

from collections.abc import ItemsView, Iterator, KeysView, Mapping

from torch import nn

_TAKEN = frozenset(dir(nn.ModuleDict()))


class HeadDict(nn.ModuleDict):
    """A ``ModuleDict`` that takes any name, such as ``type``, ``values`` or ``yield.1``.

    Such a name has another key inside, and in a checkpoint: a dot is written ``%2E``, and a word
    that is an attribute of the dictionary gets a ``%`` at its end.

    Args:
        heads: the heads by name.
    """

    def __init__(self, heads: Mapping[str, nn.Module] | None = None) -> None:
        super().__init__()
        for name, head in (heads or {}).items():
            self[name] = head

    @staticmethod
    def key(name: str) -> str:
        """The key of a name in a checkpoint.

        Args:
            name: the head.

        Returns:
            The key, without dots.
        """
        key = name.replace("%", "%25").replace(".", "%2E")
        return f"{key}%" if key in _TAKEN else key

    def __getitem__(self, name: str) -> nn.Module:
        return super().__getitem__(self.key(name))

    def __setitem__(self, name: str, head: nn.Module) -> None:
        super().__setitem__(self.key(name), head)

    def __delitem__(self, name: str) -> None:
        super().__delitem__(self.key(name))

    def __contains__(self, name: str) -> bool:
        return super().__contains__(self.key(name))

    def __iter__(self) -> Iterator[str]:
        for key in self._modules:
            plain = key[:-1] if key.endswith("%") else key
            yield plain.replace("%2E", ".").replace("%25", "%")

    def keys(self) -> KeysView[str]:
        """The names, in order."""
        return dict.fromkeys(self).keys()

    def items(self) -> ItemsView[str, nn.Module]:
        """Names and heads, in order."""
        return {name: self[name] for name in self}.items()

    def pop(self, name: str) -> nn.Module:
        """Take a head out.

        Args:
            name: the head.

        Returns:
            The head.
        """
        head = self[name]
        del self[name]
        return head
