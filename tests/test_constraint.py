"""Constraints: what their words mean, what is linear, what is refused."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from genopt import Constraint, GenoptError, Space, Variable
from genopt.constraint import read_constraints

SPACE = Space(
    (
        Variable("a", 0.1, 1.0),
        Variable("b", 0.1, 5.0),
        Variable("mass fraction", 0.0, 1.0),
        Variable("count", 0, 9, kind="integer"),
        Variable("solvent", kind="categorical", labels=("water", "oil")),
    )
)
POINTS = torch.tensor([[0.5, 2.0, 0.25, 3.0, 0.0], [0.9, 0.3, 0.75, 7.0, 1.0]]).double()


def by_python(text: str) -> list[float]:
    """The expression at the points by Python's own arithmetic."""
    names = {
        "sqrt": math.sqrt, "exp": math.exp, "log": math.log, "log10": math.log10, "abs": abs,
        "sin": math.sin, "cos": math.cos, "tan": math.tan, "tanh": math.tanh, "min": min,
        "max": max, "pi": math.pi, "e": math.e,
    }  # fmt: skip
    return [eval(text, {**names, "a": x[0], "b": x[1], "count": x[3]}) for x in POINTS.tolist()]


@pytest.mark.parametrize(
    "text",
    [
        "a + 2 * b - 3",
        "a * b ** 2 / (1 + count)",
        "-(a - b) + +a",
        "sqrt(a) * exp(-b) + log(b) - log10(a) + abs(a - b)",
        "sin(pi * a) + cos(b) * tan(a) - tanh(e * a)",
        "max(a, b, 0.5) - min(a, b) ** 2",
        "2 ** a - a ** b",
    ],
)
def test_an_expression_means_what_python_means(text):
    expected = torch.tensor(by_python(text)).double()
    for sign, turn in (("<=", 1), (">=", -1)):
        rule = Constraint(f"{text} {sign} 0.25", SPACE)
        torch.testing.assert_close(rule.residual(POINTS)[..., 0], turn * (expected - 0.25))
        assert rule.kind == "inequality"
    rule = Constraint(f"{text} == 0.25", SPACE)
    torch.testing.assert_close(rule.violation(POINTS), (expected - 0.25).abs())


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(-5, 5), min_size=4, max_size=4))
def test_linear_rules_are_known_with_their_coefficients(numbers):
    p, q, r, s = numbers
    rule = Constraint(f"{p!r} * a - (b * {q!r} + {r!r}) / 4 + 2 ** 3 * a >= {s!r} - a", SPACE)
    if rule.linear:
        at = POINTS @ rule.coefficients[0] + rule.constants[0]
        torch.testing.assert_close(at, rule.residual(POINTS)[..., 0], atol=1e-12, rtol=1e-12)
    else:
        raise AssertionError(rule)


@pytest.mark.parametrize("text", ["a * b <= 1", "1 / a <= 3", "a ** 2 <= 1", "abs(a) <= 1"])
def test_what_bends_is_not_linear(text):
    assert not Constraint(text, SPACE).linear


def test_a_chain_holds_both_ends():
    rule = Constraint("0.2 <= a * b <= 0.9", SPACE)
    assert rule.count == 2
    # a b is 1 and .27
    torch.testing.assert_close(rule.violation(POINTS), torch.tensor([0.1, 0.0]).double())


def test_names_that_are_no_words_stand_in_backticks():
    rule = Constraint("`mass fraction` + a <= 1", SPACE)
    torch.testing.assert_close(rule.violation(POINTS), torch.tensor([0.0, 0.65]).double())


def test_classes_are_compared_with_labels():
    held = Constraint("solvent == 'water'", SPACE)
    assert held.violation(POINTS).tolist() == [0.0, 1.0]
    assert Constraint("solvent != 'water'", SPACE).violation(POINTS).tolist() == [1.0, 0.0]
    # hotter in oil
    rule = Constraint("a <= 0.4 + 0.5 * (solvent == 'oil')", SPACE)
    torch.testing.assert_close(rule.violation(POINTS), torch.tensor([0.1, 0.0]).double())


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a + cout <= 1", "did you mean 'count'"),
        ("sqr(a) <= 1", "did you mean 'sqrt'"),
        ("a + b", "compares nothing"),
        ("a +* b <= 1", "cannot be read"),
        ("a == b <= 1", "write two constraints"),
        ("1 <= 2", "depends on no column of a"),
        ("a * 0 <= 2", "depends on no column"),
        ("a != 2", "only <=, >= and =="),
        ("solvent <= 1", "compare it with a label, solvent == 'water'"),
        ("solvent == 'mud'", "unknown class"),
        ("a == 'water'", "only a class column"),
        ("min(a) <= 1", "two or more"),
        ("sqrt(a, b) <= 1", "one argument"),
        ("1e999 * a <= 1", "overflow"),
        ("10 ** 400 * a <= 1", "overflow"),
        ("a <= " + "1 + " * 200 + "1", "import path"),
        ("", "cannot be read"),
    ],
)
def test_words_that_say_nothing_are_refused(text, words):
    with pytest.raises(GenoptError, match=words.replace("+", r"\+")):
        Constraint(text, SPACE)


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').getpid() <= 1",
        "(lambda: a)() <= 1",
        "a.real <= 1",
        "[a][0] <= 1",
        "(a if a else b) <= 1",
        "a <= (b := 1)",
        "sum(a for a in b) <= 1",
        "f'{a}' <= 1",
        "True * a <= 1",
        "a @ b <= 1",
        "max(*a) <= 1",
    ],
)
def test_no_code_is_run(text):
    with pytest.raises(GenoptError):
        Constraint(text, SPACE)


def volume(x: torch.Tensor) -> torch.Tensor:
    return x[..., 0] * x[..., 1] - 0.5


def test_functions_and_import_paths_are_rules():
    for rule in (volume, f"{__name__}.volume"):
        made = Constraint(rule, kind="inequality")
        torch.testing.assert_close(made.violation(POINTS), torch.tensor([0.5, 0.0]).double())
        assert not made.linear
    (found,) = read_constraints(
        {"function": volume, "kind": "equality", "differentiable": False, "name": "size"}, SPACE
    )
    assert (found.name, found.kind, found.differentiable) == ("size", "equality", False)


def test_a_rule_that_is_not_defined_is_not_kept():
    rule = Constraint("sqrt(a - 0.6) <= 1", SPACE)
    assert rule.violation(POINTS).tolist() == [math.inf, 0.0]


@pytest.mark.parametrize(
    ("rules", "words"),
    [
        ([volume], "a Constraint, or a mapping"),
        ({"kind": "equality"}, "name a function"),
        ({"function": volume}, "say kind=equality"),
        ({"function": volume, "kind": "equal"}, "did you mean 'equality'"),
        ({"function": volume, "kinds": "equality"}, "did you mean 'kind'"),
        ({"function": "math.nothing", "kind": "equality"}, "cannot import 'math.nothing'"),
        ({"function": "math.pi", "kind": "equality"}, "neither text nor a function"),
        (3, "give a list"),
        ([Constraint("z <= 1", Space.of(z=(0, 2)))], "made for columns z"),
    ],
)
def test_rules_that_cannot_be_used_are_refused(rules, words):
    with pytest.raises(GenoptError, match=words):
        read_constraints(rules, SPACE)


def test_text_needs_its_columns_and_no_other_kind():
    with pytest.raises(GenoptError, match="give the Space"):
        Constraint("a <= 1")
    with pytest.raises(GenoptError, match="drop kind=equality"):
        Constraint("a <= 1", SPACE, kind="equality")


def test_a_function_gives_one_number_for_each_design():
    rule = Constraint(lambda x: x[..., :2], kind="inequality", name="pair")
    with pytest.raises(GenoptError, match=r"pair returns shape \(2, 2\).*one number each, \(2,\)"):
        rule.residual(POINTS)
    flat = Constraint(lambda x: x[..., :1] - 1, kind="inequality")
    assert flat.residual(POINTS).shape == (2, 1)
