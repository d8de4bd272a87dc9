"""Great Expectations' answers: what holds, what fails, what raises, and an answer that nobody looked at."""

import json

import pytest

from jobs.quality import gates
from jobs.quality.gates import evaluate
from schemas.checks import Check
from schemas.contracts import CONTRACTS
from schemas.errors import GateError


@pytest.fixture
def suites(tmp_path):
    def write(*expectations):
        body = {"name": "events", "expectations": [dict(item) for item in expectations]}
        (tmp_path / "events.json").write_text(json.dumps(body))
        return tmp_path

    return write


def between(figure, **bounds):
    return Check(figure, "because", **bounds).as_expectation()


def test_bounds_are_inclusive_above_is_not_and_what_is_not_there_fails(suites):
    folder = suites(
        between("low", at_least=1), between("high", at_most=1), between("above", above=1), between("nan", at_least=0)
    )
    frame = {"low": 1, "high": 1, "above": 1, "nan": float("nan")}
    expected = {"low": "holds", "high": "holds", "above": "fails", "nan": "fails"}
    assert evaluate("events", frame, suites=folder) == expected
    assert evaluate("events", {**frame, "low": 0.999, "high": 1.001, "above": 1.001}, suites=folder) == {
        "low": "fails", "high": "fails", "above": "holds", "nan": "fails",
    }  # fmt: skip


def test_an_expectation_that_raises_is_an_error_and_not_a_pass(suites):
    folder = suites(between("rows", at_least=1), between("never_counted", at_least=1))
    assert evaluate("events", {"rows": 5}, suites=folder) == {"rows": "holds", "never_counted": "error"}


def test_a_gate_that_passes_over_exceptions_would_be_caught(suites, monkeypatch):
    """Mutant: exceptions ignored. The overall success of the answer contradicts it, and that stops."""
    folder = suites(between("never_counted", at_least=1))
    assert evaluate("events", {"rows": 5}, suites=folder) == {"never_counted": "error"}
    monkeypatch.setattr(gates, "_read", lambda outcome: "holds")
    with pytest.raises(GateError, match="success=False, but 1 were asked"):
        evaluate("events", {"rows": 5}, suites=folder)


@pytest.mark.parametrize(
    ("info", "raised"),
    [
        (None, False),
        ({}, False),
        ({"raised_exception": False, "exception_message": None}, False),
        ({"raised_exception": True}, True),
        ({"metric a": {"raised_exception": False}, "metric b": {"raised_exception": True}}, True),
        ({"metric a": {"raised_exception": False}}, False),
    ],
)
def test_exceptions_are_found_in_both_of_their_forms(info, raised):
    assert gates.raised_exception(info) is raised


def test_success_with_an_exception_inside_is_an_error():
    class Outcome:
        success = True
        exception_info = {"metric": {"raised_exception": True}}  # noqa: RUF012

    assert gates._read(Outcome()) == "error"


def test_an_answer_about_fewer_expectations_than_were_asked_stops(suites, monkeypatch):
    folder, whole = suites(between("rows", at_least=1), between("more", at_least=1)), gates._validate

    def forgetful(table, expectations, frame):
        return whole(table, expectations[:1], frame)

    monkeypatch.setattr(gates, "_validate", forgetful)
    with pytest.raises(GateError, match="about 1 expectations"):
        evaluate("events", {"rows": 5, "more": 5}, suites=folder)


def test_an_empty_suite_is_no_pass(suites):
    with pytest.raises(GateError, match="about 0 expectations"):
        evaluate("events", {"rows": 5}, suites=suites())


@pytest.mark.parametrize("name", sorted(CONTRACTS))
def test_every_committed_expectation_can_be_evaluated_and_each_bound_bites(name):
    checks = CONTRACTS[name].checks

    def inside(check):
        low = check.above + 0.001 if check.above is not None else check.at_least
        return low if low is not None else check.at_most

    def outside(check):
        return check.at_most + 1 if check.at_most is not None else (check.at_least or check.above or 0) - 0.001

    good = {check.figure: inside(check) for check in checks}
    assert set(evaluate(name, good).values()) == {"holds"}
    outcomes = evaluate(name, {check.figure: outside(check) for check in checks})
    assert set(outcomes.values()) == {"fails"}
    assert set(outcomes) == {check.figure for check in checks}
