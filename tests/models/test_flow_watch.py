"""Which weights a flow keeps: those under which held-out designs are likeliest."""

from __future__ import annotations

import math

import pytest
import torch

from genopt.models.flow.conditional import ConditionalFlow
from genopt.models.flow.watch import HELD_OUT_NLL, KEPT, Watch, is_due, row_densities
from genopt.problems.linear_gaussian import LinearGaussian
from genopt.problems.two_moons import TwoMoons
from genopt.space import Space, Variable

torch.set_num_threads(1)
SMALL = {"network": {"kind": "adaln", "width": 32, "depth": 2, "embedding": 32}}


def test_the_density_is_measured_often_first_and_always_last():
    due = [number for number in range(1, 61) if is_due(number, 60)]
    assert due[:10] == [1, 2, 3, 4, 5, 6, 8, 10, 12, 15]
    assert due[-1] == 60
    assert len(due) < 20
    assert is_due(1, 1)


@pytest.mark.parametrize("columns", [3, 6])
def test_an_untrained_flow_has_the_density_of_its_noise(columns):
    space = Space(tuple(Variable(f"x{i}") for i in range(columns)))
    flow = ConditionalFlow(space, Space((Variable("y"),)), **SMALL)
    z = torch.randn(200, columns, generator=torch.Generator().manual_seed(0))
    embedded = flow.average.embed(torch.zeros(200, flow.conditions.dim))
    expected = -0.5 * (z.square() + math.log(2 * math.pi)).sum(1).double()
    found = row_densities(flow.average, z, embedded)
    torch.testing.assert_close(found, expected, atol=0.05, rtol=1e-3)


def test_weights_are_better_where_rows_or_rows_and_loss_say_so():
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(100, generator=generator, dtype=torch.float64)
    noise = torch.randn(100, generator=generator, dtype=torch.float64)
    noise -= noise.mean()
    watch = Watch()
    assert watch.sees(rows, 1.0, 1) == pytest.approx(-float(rows.mean()))
    # a gain of half its standard error, first with a higher loss, then with a lower one
    watch.sees(rows + noise + 0.05, 1.1, 2)
    assert watch.epoch == 1
    watch.sees(rows + noise + 0.05, 0.9, 3)
    assert watch.epoch == 3
    watch.sees(rows, 0.1, 4)
    assert watch.epoch == 3
    watch.sees(rows + noise + 0.3, 2.0, 5)
    assert watch.epoch == 5
    again = Watch.of(watch.state())
    again.sees(rows + noise + 0.2, 0.0, 6)
    assert again.epoch == 5
    # the weight of a row decides with it
    half = torch.where(torch.arange(100) < 50, 1.0, 0.0)
    weight = half[:, None] + 1e-9
    assert Watch().sees(rows, 1.0, 1, weight) == pytest.approx(-float(rows[:50].mean()), abs=1e-6)


def test_it_falls_as_much_as_the_density_of_designs_rises():
    """Up to the map's constant and the small share of a Gaussian it is minus `log_prob`."""
    problem = TwoMoons()
    rows, held = problem.table(600, seed=0), problem.table(200, seed=1)
    figures = []
    for epochs in (1, 40):
        flow = ConditionalFlow(problem.x_space, problem.y_space, **SMALL)
        flow.fit(rows.x, rows.y, epochs=epochs, batch_size=32, validation=0.0)
        values, mask = flow.conditions.encode(held.y)
        embedded = flow.average.embed(flow.conditions.join(values, mask))
        z, slopes = flow.transform.encode(held.x)
        own = -float(row_densities(flow.average, z.float(), embedded).mean())
        exact = -float((flow.log_prob(held.x, held.y) - slopes).mean())
        figures.append((own, exact))
    for own, exact in figures:
        assert own == pytest.approx(exact, abs=0.1)
    assert figures[1][1] < figures[0][1] - 0.5


def test_the_weights_that_are_kept_are_those_of_a_high_density():
    """Thirty noisy rows for each column are soon learned by heart."""
    problem = LinearGaussian(6)
    rows = problem.table(180, seed=0)
    flow = ConditionalFlow(problem.x_space, problem.y_space, learning_rate=3e-3)
    flow.fit(rows.x, rows.y, epochs=60)
    figures = {e["epoch"]: e[HELD_OUT_NLL] for e in flow.history if HELD_OUT_NLL in e}
    best, last = min(figures.values()), figures[max(figures)]
    assert best < last - 1.0
    kept_epoch = flow.history[-1][KEPT] - 1.0
    assert figures[kept_epoch] < last - 1.0
    fresh = problem.table(300, seed=9)
    kept = float(flow.log_prob(fresh.x, fresh.y).mean())
    flow.fit(rows.x, rows.y, epochs=60, validation=0.0)
    assert kept > float(flow.log_prob(fresh.x, fresh.y).mean()) + 1.0


def test_rows_that_no_validation_watches_leave_the_last_weights():
    problem = TwoMoons()
    rows = problem.table(30, seed=0)
    flow = ConditionalFlow(problem.x_space, problem.y_space, **SMALL, epochs=2)
    assert not any(HELD_OUT_NLL in entry for entry in flow.fit(rows.x, rows.y).history)
