"""Run type x lateness x first, cleared, again, backfilled, as real runs of Airflow: exactly one of all these sends."""

import datetime as dt
import json
import shutil
import sqlite3

import pytest
import small_night
from rehearsal_fixture import serve

from jobs.delivery.chunk_push import push_chunk
from jobs.delivery.ledger import Ledger, Run
from jobs.delivery.run_context import Delivery
from jobs.delivery.sendgrid_client import SendGridProvider
from jobs.delivery.timing import REAL_TIME, utc_now
from jobs.lake.lake import Lake
from jobs.reconcile_push import reconcile
from schemas.campaign import load_campaign

pytestmark = [
    pytest.mark.airflow,
    pytest.mark.filterwarnings("ignore"),  # Airflow's own: deprecations, and files left to the collector
]
DAG_ID, TASKS = "send_spring", ("pull_suppressions", "schedule_send")
ACCOUNT = 42
RUN_TYPES = ("scheduled", "manual", "operator_triggered", "asset_triggered", "asset_materialization", "backfill")
LATENESS = {"on_time": 0, "late": 5}  # hours; the campaign allows four
STEPS = ("first", "cleared", "again", "backfilled")
CAMPAIGN = """
title = "Spring"
slots = 2
min_items = 1
[mail]
hour = {hour}
subject = "Spring"
suppression_group = "Spring"
live = true
account_id = {account}
max_lateness_minutes = 240
{more}
[push]
requests_per_second = 1000.0
"""


class World:
    """A campaign whose push is done, before its send, at a provider that counts as live; the DAG in Airflow."""

    def __init__(self, folder, hours_late, patch, more=""):
        due_at = dt.datetime.now(dt.UTC).replace(minute=0, second=0, microsecond=0) - dt.timedelta(hours=hours_late)
        self.folder, self.due_at, self.patch = folder, due_at, patch
        campaigns = folder / "campaigns"
        campaigns.mkdir(parents=True)
        text = CAMPAIGN.format(hour=due_at.hour, account=ACCOUNT, more=more)
        (campaigns / "spring.toml").write_text(text, encoding="utf-8")
        patch.setenv("AIRFLOW__RYML__CAMPAIGNS", str(campaigns))
        patch.setattr("jobs.delivery.provider_address._LOOPBACK", ())  # this machine stands for a live provider's
        # Otherwise the campaign's new hour reaches the database half a minute later.
        patch.setenv("AIRFLOW__CORE__MIN_SERIALIZED_DAG_UPDATE_INTERVAL", "0")
        from airflow_runs import put_into_database

        self.dag = put_into_database()[DAG_ID]
        self.campaign = load_campaign(campaigns / "spring.toml")
        self._push(folder / "base", self.campaign.mail.send_time.date_of(due_at))

    def _push(self, base, date):
        self.patch.setattr(small_night, "DATE", date)
        self.patch.setattr(small_night, "RUN", Run("spring", date))
        base.mkdir()
        lake = small_night.make_lake(base / "lake")
        small_night.write_catalog(lake, date=date)
        with serve(base / "rehearsal.sqlite") as provider:
            ledger, client = Ledger(f"sqlite:///{base}/ledger.db", utc_now), SendGridProvider("key", provider.host)
            client._api_key = provider.api_key
            delivery = Delivery(
                Lake.open(str(base / "lake")), self.campaign, small_night.RUN, ledger, client, "base", REAL_TIME
            )
            small_night.freeze(delivery)
            for chunk in small_night.chunk_plans(lake):
                push_chunk(delivery, chunk.chunk)
            assert reconcile(delivery)["delivered"] >= 5
            ledger._engine.dispose()

    def cell(self, name):
        """A copy of the world for one row of the matrix; its provider answers as the account that is named."""
        from airflow_runs import forget_runs, put_into_database

        forget_runs(DAG_ID)
        put_into_database()
        return Cell(self, shutil.copytree(self.folder / "base", self.folder / name))


class Cell:
    """One row: what is started in it shares ledger and provider."""

    def __init__(self, world, folder):
        self.world, self.folder = world, folder
        self._served = serve(folder / "rehearsal.sqlite")

    def __enter__(self):
        self.provider = self._served.__enter__()
        self.provider.provider.behaviour = self.provider.provider.behaviour.model_copy(update={"user_id": ACCOUNT})
        connection = {"conn_type": "http", "host": self.provider.host, "password": self.provider.api_key}
        values = {
            "AIRFLOW_CONN_SENDGRID_DEFAULT": json.dumps(connection),
            "AIRFLOW__RYML__LAKE": str(self.folder / "lake"),
            "AIRFLOW__RYML__LEDGER": f"sqlite:///{self.folder}/ledger.db",
        }
        for name, value in values.items():
            self.world.patch.setenv(name, value)
        return self

    def __exit__(self, *error):
        return self._served.__exit__(*error)

    def start(self, run_type):
        """Make a run; return its id."""
        from airflow_runs import start_backfill, start_by_asset, start_scheduled, start_triggered

        due_at = self.world.due_at
        if run_type == "scheduled":
            return start_scheduled(DAG_ID, due_at)
        if run_type == "backfill":
            return start_backfill(DAG_ID, due_at)
        start = start_by_asset if run_type.startswith("asset") else start_triggered
        return start(DAG_ID, due_at, run_type)

    def step(self, step, run_type, run_id):
        """Do one step of a row; return the run's id and what became of its tasks."""
        from airflow_runs import clear, execute, run_of, start_backfill, start_triggered

        if step == "first":
            run_id = self.start(run_type)
        elif step == "cleared":
            clear(DAG_ID, run_id)
        elif step == "again":
            date = self.world.campaign.mail.send_time.date_of(self.world.due_at)
            run_id = start_triggered(DAG_ID, self.world.due_at, "manual", {"date": date.isoformat()})
        else:
            run_id = start_backfill(DAG_ID, self.world.due_at)
        expected = {"again": "manual", "backfilled": "backfill"}.get(step, run_type)
        assert str(run_of(DAG_ID, run_id).run_type) == expected
        return run_id, execute(self.world.dag, run_id, TASKS)

    def sends(self):
        with sqlite3.connect(self.folder / "rehearsal.sqlite") as connection:
            (count,) = connection.execute("SELECT count(*) FROM single_sends WHERE status != 'draft'").fetchone()
        return count

    def changes(self):
        """Requests that change something at the provider."""
        asked = ("/search", "/search/emails")
        exchanges = self.provider.exchanges
        return [one.path for one in exchanges if one.method != "GET" and not one.path.endswith(asked)]


@pytest.fixture(scope="module")
def world(request, tmp_path_factory, airflow_db):
    with pytest.MonkeyPatch.context() as patch:
        yield request.param, World(tmp_path_factory.mktemp(request.param), LATENESS[request.param], patch)
        from airflow_runs import forget_runs

        forget_runs(DAG_ID)


def go_through(world, run_type):
    """All steps of one run type in one lateness; each has to come out as the matrix says."""
    lateness, made = world
    run_id = None
    with made.cell(run_type) as cell:
        for step in STEPS:
            sends, changes = cell.sends(), len(cell.changes())
            run_id, states = cell.step(step, run_type, run_id)
            is_allowed = (run_type, lateness) == ("scheduled", "on_time") and step in ("first", "cleared")
            assert set(states.values()) == {"success" if is_allowed else "failed"}, (step, states)
            expected = int(is_allowed and step == "first")
            assert cell.sends() - sends == expected, (run_type, lateness, step)
            if not expected:
                assert len(cell.changes()) == changes, "who may not send changes nothing either"
        assert cell.sends() == int((run_type, lateness) == ("scheduled", "on_time"))


SAMPLE = [("late", "scheduled"), ("on_time", "scheduled"), ("on_time", "manual")]


@pytest.mark.parametrize(("world", "run_type"), SAMPLE, indirect=["world"])
def test_only_the_first_scheduled_run_in_time_sends(world, run_type):
    go_through(world, run_type)


@pytest.mark.scoreboard
@pytest.mark.parametrize("run_type", RUN_TYPES)
@pytest.mark.parametrize("world", LATENESS, indirect=True)
def test_of_the_whole_matrix_one_row_sends(world, run_type, scoreboard):
    go_through(world, run_type)
    is_it = (run_type, world[0]) == ("scheduled", "on_time")
    scoreboard.add(f"sends of a {run_type} run, {world[0]}: first, cleared, again, backfilled", str(int(is_it)))


@pytest.mark.parametrize("world", ["on_time"], indirect=True)
def test_without_the_fence_a_run_by_hand_would_send(world, monkeypatch):
    """Planted bug: the matrix is not green because nothing could be sent in it."""
    _, made = world
    monkeypatch.setattr("ryml_airflow.provider_jobs.refuse_wrong_run", lambda **_: None)
    monkeypatch.setattr("jobs.delivery.provider_calls.ProviderCalls.is_late", False)
    with made.cell("no-fence") as cell:
        cell.step("first", "manual", None)
        assert cell.sends() == 1


@pytest.mark.parametrize("world", ["on_time"], indirect=True)
def test_the_key_of_another_account_is_refused_before_anything_is_changed(world):
    _, made = world
    with made.cell("account") as cell:
        cell.provider.provider.behaviour = cell.provider.provider.behaviour.model_copy(update={"user_id": ACCOUNT + 1})
        _, states = cell.step("first", "scheduled", None)
        assert set(states.values()) == {"failed"}
        assert [one.path for one in cell.provider.exchanges] == ["/v3/user/username"] * len(TASKS)
        assert cell.sends() == 0
