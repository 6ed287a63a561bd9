import pytest
import torch

from genopt import GenoptError
from genopt.data.batches import BatchLoader


def test_every_row_comes_once_an_epoch_in_a_new_order():
    rows = torch.arange(103.0)
    loader = BatchLoader((rows, rows * 2), batch_size=10, block=3, seed=5)
    epochs = [[torch.cat(parts) for parts in zip(*loader, strict=True)] for _ in range(2)]
    for a, b in epochs:
        assert sorted(a.tolist()) == rows.tolist()
        assert torch.equal(b, a * 2)
    assert not torch.equal(epochs[0][0], epochs[1][0])
    assert loader.steps == 11
    assert len(loader) == 4


def test_bad_sizes_are_refused():
    with pytest.raises(GenoptError, match="one, positive number of rows"):
        BatchLoader((torch.zeros(3), torch.zeros(4)), 2)
    with pytest.raises(GenoptError, match="batch_size and block must be positive"):
        BatchLoader((torch.zeros(3),), 0)
