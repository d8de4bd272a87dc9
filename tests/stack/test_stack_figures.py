"""The summary and the progress lines, from fixed answers of Airflow."""

import datetime as dt
import errno
import io
import os
from typing import IO, Any, cast

import pytest
from rich.console import Console

from ryml_airflow.stack.airflow_api import log_lines
from ryml_airflow.stack.run_progress import Stage, following, run_order, stages, upcoming
from ryml_airflow.stack.summary import account_of_rows, summarize_day
from ryml_airflow.stack.terminal import LastingOutput, Terminal, stage_line

NOW = dt.datetime(2026, 11, 2, 3, 10, tzinfo=dt.UTC)
DAY = dt.date(2026, 11, 2)
RETURNED: dict[str, dict[str, Any]] = {
    "export.export_events": {
        "rows": 397_884,
        "read": 541_909,
        "quarantined": 135_080,
        "quarantined_by_reason": {"bad_price": 40, "null_user": 135_040},
        "outside_window": 8_945,
    },
    "export.export_catalog": {"rows": 3_900, "read": 3_900, "quarantined": 0, "quarantined_by_reason": {}},
    "export.export_users": {"rows": 4_372},
    "fold_profiles": {"rows": 4_372},
    "nightly.backtest_models": {"status": "accepted", "chosen": "cooccurrence a=0.5"},
    "nightly.train_correlations": {"rows": 3_665, "pairs": 60_123, "status": "trained"},
    "nightly.recommend_items": {"rows": 4_372, "recommended": 4_100},
    "restocked.recommend_items": {"rows": 4_372, "recommended": 17},
}
SENT: dict[str, dict[str, Any]] = {
    "plan_push": {"rows": 4_372, "upsert": 4_090, "clear": 3, "unchanged": 7, "withheld": 272, "chunks": 5},
    "push.push_chunk": {"instances": 5},
    "reconcile_push": {"rows": 4_093, "delivered": 4_089, "cleared": 3, "quarantined": 1, "requests": 6},
    "schedule_send": {"rows": 1, "status": "triggered", "recipients": 4_096},
}


def instance(task_id: str, state: str | None, *, start: int | None = None, end: int | None = None, map_index: int = -1):
    """One task instance as the API gives it; start and end in seconds before NOW."""

    def moment(seconds: int | None) -> str | None:
        return None if seconds is None else (NOW - dt.timedelta(seconds=seconds)).isoformat().replace("+00:00", "Z")

    return {
        "task_id": task_id,
        "state": state,
        "start_date": moment(start),
        "end_date": moment(end),
        "map_index": map_index,
    }


def test_the_summary_has_every_figure_whatever_group_a_task_is_in() -> None:
    """A campaign's figures are its own, also of a task that another campaign has under the same name."""
    of_campaign = {
        "planned: to recommend": "4,090",
        "planned: to clear": "3",
        "planned: unchanged": "7",
        "planned: withheld": "272",
        "chunks": "5",
        "recommended": "4,089",
        "cleared": "3",
        "rejected by the provider": "1",
        "unknown": "-",
        "requests": "6",
        "recipients": "4,096",
        "send": "triggered",
    }
    found = summarize_day(DAY, RETURNED, {"nightly": SENT, "restocked": {"plan_push": {"upsert": 9}}}).figures
    assert list(found) == [
        ("events", "397,884"),
        ("users", "4,372"),
        ("items in the catalog", "3,900"),
        ("profiles", "4,372"),
        ("nightly", ""),
        ("  model", "cooccurrence a=0.5"),
        ("  training", "trained"),
        ("  items with correlations", "3,665"),
        ("  correlations", "60,123"),
        ("  users with recommendations", "4,100"),
        *((f"  {label}", value) for label, value in of_campaign.items()),
        ("restocked", ""),
        ("  model", "-"),
        ("  training", "-"),
        ("  items with correlations", "-"),
        ("  correlations", "-"),
        ("  users with recommendations", "17"),
        *((f"  {label}", "9" if label == "planned: to recommend" else "-") for label in of_campaign),
    ]


def test_the_last_mail_of_a_night_says_until_when_mails_wait() -> None:
    hours = ("2026-11-03T09:00:00+00:00", "2026-11-03T10:00:00+00:00")
    sent = {hour: {"push.schedule_send": {"send_at": hour}} for hour in hours}
    assert summarize_day(DAY, {}, {**sent, "contacts": SENT}).leave_at == dt.datetime(2026, 11, 3, 10, tzinfo=dt.UTC)
    assert summarize_day(DAY, {}, {"contacts": SENT}).leave_at is None


def test_missing_keys_and_tasks_show_as_missing() -> None:
    figures = summarize_day(DAY, {"fold_profiles": {}}, {"nightly": {"plan_push": {"rows": 3}}}).figures
    assert len(figures) == 4 + 1 + 17
    assert {value for label, value in figures if label != "nightly"} == {"-"}


def test_rows_are_accounted_for_and_the_reasons_listed() -> None:
    assert summarize_day(DAY, RETURNED, {}).quarantine == (
        "events: 541,909 read = 397,884 used + 135,080 quarantined (null_user 135,040, bad_price 40)"
        " + 8,945 of other days",
    )
    assert account_of_rows("users", {"rows": 2, "quarantined": 1}) == "users: 3 read = 2 used + 1 quarantined"


@pytest.mark.parametrize(
    "wrong",
    [
        {"rows": 2, "read": 4, "quarantined": 1},
        {"rows": 2, "read": 3, "quarantined": 1, "quarantined_by_reason": {"null_user": 2}},
    ],
)
def test_rows_that_do_not_add_up_are_pointed_out(wrong: dict[str, Any]) -> None:
    assert account_of_rows("users", wrong).endswith("THIS DOES NOT ADD UP")


def test_tasks_come_in_the_order_in_which_they_run() -> None:
    downstream = {"send": [], "a": ["fold"], "train": ["send"], "fold": ["train"], "b": ["fold"]}
    assert run_order(downstream) == ["a", "b", "fold", "train", "send"]


def test_stages_sum_their_instances_up() -> None:
    order = ["plan", "wait", "push", "list", "reconcile"]
    instances = [
        instance("plan", "success", start=60, end=48),
        *(instance("push", state, start=20, end=end, map_index=index) for index, (state, end) in enumerate(
            [("success", 15), ("running", None), (None, None)]
        )),
        *(instance("wait", state, start=30, end=20, map_index=index) for index, state in enumerate(
            ["success", "skipped", "failed"]
        )),
        instance("list", "up_for_retry", start=5, end=4),
        instance("reconcile", None),
    ]  # fmt: skip
    found = stages(order, instances, NOW)
    assert found == [
        Stage("plan", "success", 1, 1, 12.0, False),
        Stage("wait", "failed", 3, 3, 10.0, True),
        Stage("push", "running", 1, 3, 20.0, True),
        Stage("list", "retrying", 0, 1, 5.0, False),
        Stage("reconcile", "waiting", 0, 1, None, False),
    ]
    assert upcoming(found) == "reconcile"
    assert following(found) == "push, list"
    assert following([found[0], found[4]]) == "reconcile"
    assert following([found[0]]) is None


def test_a_task_without_instances_waits() -> None:
    assert stages(["push"], [], NOW) == [Stage("push", "waiting", 0, 0, None, False)]


def plain(text: str) -> str:
    console = Console(file=io.StringIO(), width=200)
    console.print(text, end="", soft_wrap=True)
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_stage_lines() -> None:
    done = Stage("export.export_events", "success", 1, 1, 2.34, False)
    assert plain(stage_line(done, number=1, total=9, rows=5_000, following="fold_profiles")) == (
        "  ✓  1/9  export_events                    5,000 rows     2.3 s  next fold_profiles"
    )
    pushed = Stage("push.push_chunk", "success", 4, 4, 61.0, True)
    assert "4 instances    61.0 s" in plain(stage_line(pushed, number=2, total=9, rows=None, following=None))
    failed = Stage("fold_profiles", "upstream_failed", 1, 1, None, False)
    assert plain(stage_line(failed, number=3, total=9, rows=None, following="x")).endswith("upstream failed")


def test_output_that_is_no_terminal_gets_plain_lines() -> None:
    output = io.StringIO()
    terminal = Terminal(Console(file=output, width=60))
    with terminal.live():
        for seconds in range(5):
            terminal.doing("starting", seconds=seconds)
        terminal.stages_running([Stage("fold", "running", 0, 1, 1.0, False)], "train")
    terminal.line("[not markup] " + "x" * 100)
    terminal.summary([summarize_day(DAY, RETURNED, {}), summarize_day(DAY + dt.timedelta(days=1), {}, {})])
    text = output.getvalue()
    assert "\x1b" not in text
    assert text.count("starting") == 1
    assert f"[not markup] {'x' * 100}\n" in text
    assert "2026-11-02  2026-11-03" in text
    assert "2026-11-02: events: 541,909 read" in text


class Gone(io.StringIO):
    """An output that fails as the system says."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number
        self.attempts = 0

    def write(self, _text: str) -> int:
        self.attempts += 1
        raise OSError(self.number, os.strerror(self.number))


def test_a_closed_terminal_is_no_error() -> None:
    gone = Gone(errno.EIO)
    terminal = Terminal(Console(file=cast(IO[str], LastingOutput(gone)), force_terminal=True))
    with terminal.live():
        terminal.doing("starting")
    terminal.line("x")
    terminal.summary([summarize_day(DAY, RETURNED, {})])
    assert gone.attempts >= 3
    with pytest.raises(OSError, match="No space"):
        LastingOutput(Gone(errno.ENOSPC)).write("x")


def test_logs_become_lines_with_the_exception() -> None:
    content = [
        {"event": "::group::Pre Execute"},
        {"event": "one\ntwo", "level": "info"},
        "plain",
        {"event": "Task failed", "error_detail": [{"exc_type": "GateError", "exc_value": "what; expected; do"}]},
        {"event": "::endgroup::"},
    ]
    assert log_lines(content) == ["one", "two", "plain", "Task failed", "GateError: what; expected; do"]
