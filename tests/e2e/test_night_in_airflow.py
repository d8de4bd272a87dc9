"""One night through Airflow itself: its scheduler's task runner, spark-submit, the triggerer's waits, mapped pushes."""

import datetime as dt
import gc
import json
import os
import sqlite3
import sys
from pathlib import Path

import pytest
from rehearsal_fixture import serve

from jobs import make_demo_shop

ROOT = Path(__file__).resolve().parents[2]
DATE = "2026-11-02"

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.airflow,
    # Airflow's own: deprecations at import, and files that its task runner leaves to the collector.
    pytest.mark.filterwarnings("ignore"),
]


@pytest.fixture
def night(tmp_path, airflow_db, monkeypatch):
    shop = tmp_path / "shop.db"
    make_demo_shop.main(
        path=shop, parquet=None, users=600, items=None, seed=7, first_date=dt.date(2026, 10, 20),
        last_date=dt.date.fromisoformat(DATE), days=1, workers=1, image_base_url="http://127.0.0.1:8085/images",
    )  # fmt: skip
    with serve(tmp_path / "rehearsal.sqlite") as provider:
        connections = {
            "SPARK_DEFAULT": {"conn_type": "spark", "host": "local[2]"},
            "SENDGRID_DEFAULT": {"conn_type": "http", "host": provider.host, "password": provider.api_key},
        }
        for name, connection in connections.items():
            monkeypatch.setenv(f"AIRFLOW_CONN_{name}", json.dumps(connection))
        settings = {
            "lake": tmp_path / "lake",
            "source": ROOT / "docs" / "examples" / "demo_shop.toml",
            "data": shop,
            "ledger": f"sqlite:///{tmp_path}/ledger.db",
            "buckets": 3,
        }
        for name, value in settings.items():
            monkeypatch.setenv(f"AIRFLOW__RYML__{name.upper()}", str(value))
        monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}:{os.environ['PATH']}")
        monkeypatch.setenv("PYSPARK_PYTHON", sys.executable)
        monkeypatch.setenv("SPARK_LOCAL_IP", "127.0.0.1")
        yield provider, tmp_path
    # Airflow's Spark hook leaves the pipes of spark-submit to the collector: collect them where that is expected.
    gc.collect()


def states_of(run):
    return {f"{ti.task_id}[{ti.map_index}]": str(ti.state) for ti in run.get_task_instances()}


def test_build_and_send_end_green_with_one_send_and_mapped_chunks(dagbag, night):
    provider, folder = night
    build = dagbag.dags["build_recommendations"].test(run_conf={"date": DATE})
    assert set(states_of(build).values()) == {"success"}, states_of(build)
    # Building alone reaches nobody.
    assert provider.exchanges == []

    send = dagbag.dags["send_resources_you_may_like"].test(run_conf={"date": DATE, "ramp_minutes": 0})
    states = states_of(send)
    assert set(states.values()) == {"success"}, states
    assert {name for name in states if name.startswith("push.push_chunk")} == {
        f"push.push_chunk[{number}]" for number in range(3)
    }
    provider.wait_until_idle()
    with sqlite3.connect(folder / "rehearsal.sqlite") as connection:
        assert connection.execute("SELECT name, status FROM single_sends").fetchall() == [
            (f"ryml resources_you_may_like {DATE}", "triggered")
        ]
        mails = connection.execute("SELECT count(*), count(DISTINCT email) FROM mails").fetchone()
    assert mails[0] == mails[1] > 300
