"""A small shop's night through Airflow's own task runner: built once for all tests, sent by each from a copy."""

import contextlib
import datetime as dt
import gc
import json
import os
import shutil
import sqlite3
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from cryptography.fernet import Fernet
from rehearsal_fixture import RehearsalServer, serve

from jobs import make_demo_shop
from jobs.lake.lake import Lake
from ryml_airflow.stack.campaign_files import write_campaigns

ROOT = Path(__file__).resolve().parents[2]
DATE = dt.date(2026, 11, 2)
CAMPAIGN = "resources_you_may_like"
CANARY = "kanarienvogel"  # in the addresses of a few users
USERS = 600


@dataclass
class AirflowNight:
    """One provider, one ledger and one lake: a copy of what the shop's build published."""

    shop: Path
    built: Path
    folder: Path
    provider: RehearsalServer
    patch: pytest.MonkeyPatch

    def build(self, dagbag):
        """Build the date with the DAG unless another test has, and take a copy."""
        if not self.built.exists():
            begun = self.built.with_name("begun")
            self.set("lake", begun)
            run = dagbag.dags["build_recommendations"].test(run_conf={"date": str(DATE)})
            assert set(states_of(run).values()) == {"success"}, states_of(run)
            # Building alone reaches nobody.
            assert self.provider.exchanges == []
            begun.rename(self.built)
        shutil.copytree(self.built, self.folder / "lake")
        self.set("lake", self.folder / "lake")

    def use(self, method):
        """Have all campaigns pushed by a method, as `make run METHOD=` does."""
        write_campaigns(ROOT / "dags" / "campaigns", self.folder / "campaigns", method)
        self.set("campaigns", self.folder / "campaigns")

    def run(self, dagbag, verb, **conf):
        """Run the campaign's DAG that sends, or that measures."""
        return dagbag.dags[f"{verb}_{CAMPAIGN}"].test(run_conf={"date": str(DATE), **conf})

    def set(self, option, value):
        """Set an option of [ryml]."""
        self.patch.setenv(f"AIRFLOW__RYML__{option.upper()}", str(value))

    @property
    def lake(self):
        return Lake.open(str(self.folder / "lake"))

    @property
    def ledger(self):
        return f"sqlite:///{self.folder}/ledger.db"


def states_of(run):
    """The state of each task instance of a run."""
    return {f"{ti.task_id}[{ti.map_index}]": str(ti.state) for ti in run.get_task_instances()}


@pytest.fixture(scope="session")
def shop(tmp_path_factory):
    """The shop's database; the lake of its build comes to lie beside it."""
    path = tmp_path_factory.mktemp("shop") / "shop.db"
    make_demo_shop.main(
        path=path, parquet=None, users=USERS, items=None, seed=7, first_date=dt.date(2026, 10, 20), last_date=DATE,
        days=1, workers=1, image_base_url="http://127.0.0.1:8085/images",
    )  # fmt: skip
    with sqlite3.connect(path) as connection:
        connection.execute(
            f"UPDATE users SET email = '{CANARY}.' || user_id || '@example.com' WHERE email IS NOT NULL AND user_id IN "  # noqa: S608
            "(SELECT user_id FROM users ORDER BY user_id LIMIT 40)"
        )
    return path


@pytest.fixture
def night(shop, tmp_path, airflow_db, monkeypatch):
    """A night before its build, with a provider of its own."""
    with serve(tmp_path / "rehearsal.sqlite") as provider, key_in_a_connection(provider, monkeypatch):
        made = AirflowNight(shop, shop.parent / "lake", tmp_path, provider, monkeypatch)
        monkeypatch.setenv("AIRFLOW_CONN_SPARK_DEFAULT", json.dumps({"conn_type": "spark", "host": "local[2]"}))
        settings = {
            "source": ROOT / "docs" / "examples" / "demo_shop.toml", "data": shop, "ledger": made.ledger, "buckets": 3,
        }  # fmt: skip
        for name, value in settings.items():
            made.set(name, value)
        monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
        monkeypatch.setenv("PYSPARK_PYTHON", sys.executable)
        monkeypatch.setenv("SPARK_LOCAL_IP", "127.0.0.1")
        yield made
    # Airflow's Spark hook leaves the pipes of spark-submit to the collector: collect them where that is expected.
    gc.collect()


@contextlib.contextmanager
def key_in_a_connection(provider, monkeypatch):
    """The key where it belongs: in Airflow's database, encrypted."""
    from airflow.models.connection import Connection
    from airflow.models.crypto import get_fernet
    from airflow.utils.session import create_session

    monkeypatch.setenv("AIRFLOW__CORE__FERNET_KEY", Fernet.generate_key().decode())
    get_fernet.cache_clear()
    made = Connection(conn_id="sendgrid_default", conn_type="http", host=provider.host, password=provider.api_key)
    assert made.is_encrypted
    with create_session() as session:
        session.add(made)
    yield
    with create_session() as session:
        session.query(Connection).filter(Connection.conn_id == "sendgrid_default").delete()
    get_fernet.cache_clear()
