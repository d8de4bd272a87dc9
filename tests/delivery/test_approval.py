"""A person's approval in real Airflow: one click sends, a no skips the send, silence until the deadline is red."""

import pytest
from test_live_fence_matrix import DAG_ID, World

pytestmark = [
    pytest.mark.airflow,
    pytest.mark.filterwarnings("ignore"),  # Airflow's own: deprecations, and files left to the collector
]


@pytest.fixture(scope="module")
def world(tmp_path_factory, airflow_db):
    with pytest.MonkeyPatch.context() as patch:
        yield World(tmp_path_factory.mktemp("approval"), 0, patch, "approval = true\napproval_minutes = 30")
        from airflow_runs import forget_runs

        forget_runs(DAG_ID)


@pytest.fixture
def waiting(world, request):
    """A scheduled run of today that waits for an answer."""
    from airflow_runs import execute, state_of

    with world.cell(request.node.name) as cell:
        run_id = cell.start("scheduled")
        states = execute(world.dag, run_id, ["compare_plan", "approve_send"])
        assert states == {"compare_plan": "success", "approve_send": "awaiting_input"}
        assert state_of(DAG_ID, run_id, "schedule_send") == "None"
        yield cell, run_id


def go_on(world, run_id):
    from airflow_runs import execute

    return execute(world.dag, run_id, ["approve_send"], is_resumed=True)["approve_send"]


def test_only_the_send_waits_for_the_answer(world):
    task = world.dag.get_task("approve_send")
    assert task.upstream_task_ids == {"reconcile_push"}
    assert task.downstream_task_ids == {"schedule_send"}
    assert world.dag.get_task("compare_plan").downstream_task_ids == {"list_chunks"}


def test_one_click_sends(world, waiting):
    from airflow_runs import answer, asked, execute

    cell, run_id = waiting
    subject, body = asked(DAG_ID, run_id, "approve_send")
    date = world.campaign.mail.send_time.date_of(world.due_at)
    assert subject == f"Send “Spring” of {date}?"
    assert "users** would be mailed" in body
    assert "Title of item" in body
    assert "example.com" not in body
    assert cell.sends() == 0
    answer(DAG_ID, run_id, "approve_send", "Approve")
    assert go_on(world, run_id) == "success"
    assert execute(world.dag, run_id, ["schedule_send"]) == {"schedule_send": "success"}
    assert cell.sends() == 1


def test_a_no_skips_the_send(world, waiting):
    from airflow_runs import answer, state_of

    cell, run_id = waiting
    answer(DAG_ID, run_id, "approve_send", "Reject")
    assert go_on(world, run_id) == "success"
    assert state_of(DAG_ID, run_id, "schedule_send") == "skipped"
    assert cell.sends() == 0


def test_silence_until_the_deadline_sends_nothing_and_is_red(world, waiting):
    from airflow_runs import let_time_pass, state_of

    cell, run_id = waiting
    let_time_pass(DAG_ID, run_id, "approve_send", 29)
    assert state_of(DAG_ID, run_id, "approve_send") == "awaiting_input"
    let_time_pass(DAG_ID, run_id, "approve_send", 2)
    assert state_of(DAG_ID, run_id, "approve_send") == "scheduled"
    assert go_on(world, run_id) == "failed"  # and not up for another try, which would ask again
    assert state_of(DAG_ID, run_id, "schedule_send") == "None"
    assert cell.sends() == 0
