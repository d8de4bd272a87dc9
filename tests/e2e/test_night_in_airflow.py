"""One night through Airflow itself: its scheduler's task runner, spark-submit, the triggerer's waits, mapped pushes.

Its first send fails at the provider, in words that hold the key and an address; neither stands anywhere afterwards.
"""

import contextlib
import datetime as dt
import gc
import json
import os
import sqlite3
import sys
import threading
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from airflow_fixture import HOME
from cryptography.fernet import Fernet
from rehearsal_fixture import serve

from jobs import make_demo_shop
from jobs.rehearsal.calls import Answer

ROOT = Path(__file__).resolve().parents[2]
DATE = "2026-11-02"
CANARY = "kanarienvogel"  # in the addresses of a few users

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
    with sqlite3.connect(shop) as connection:
        connection.execute(
            f"UPDATE users SET email = '{CANARY}.' || user_id || '@example.com' WHERE email IS NOT NULL AND user_id IN "  # noqa: S608
            "(SELECT user_id FROM users ORDER BY user_id LIMIT 40)"
        )
    with serve(tmp_path / "rehearsal.sqlite") as provider, key_in_a_connection(provider, monkeypatch):
        monkeypatch.setenv("AIRFLOW_CONN_SPARK_DEFAULT", json.dumps({"conn_type": "spark", "host": "local[2]"}))
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


class ProcessList(threading.Thread):
    """Looks at every process's arguments ten times a second, as everybody on the machine may."""

    def __init__(self):
        super().__init__(daemon=True)
        self.seen, self.over = set(), threading.Event()

    def run(self):
        while not self.over.wait(0.1):
            for path in Path("/proc").glob("[0-9]*/cmdline"):
                with contextlib.suppress(OSError):
                    self.seen.add(path.read_bytes())

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *error):
        self.over.set()
        self.join()


def leaks(secret, folder):
    """Every place that holds a secret and must not; and how many places were looked at.

    Not looked at: the shop, the provider's own file, and the addresses in the table `users`.
    """
    found, looked_at = [], 0
    allowed = {"shop.db", "rehearsal.sqlite"}
    for path in (*HOME.rglob("*"), *folder.rglob("*")):
        if not path.is_file() or any(path.name.startswith(name) for name in allowed):
            continue
        looked_at += 1
        if secret.encode() in path.read_bytes() and not (path.parent.name.startswith("run=") and "users" in path.parts):
            found.append(str(path))
        if path.suffix == ".parquet" and "users" not in path.relative_to(folder).parts[1:2]:
            columns = pq.read_table(path)
            found += [
                f"{path} {field.name}"
                for field in columns.schema
                if pa.types.is_string(field.type) and pc.any(pc.match_substring(columns[field.name], secret)).as_py()
            ]
    return found, looked_at


def states_of(run):
    return {f"{ti.task_id}[{ti.map_index}]": str(ti.state) for ti in run.get_task_instances()}


def test_build_and_send_end_green_with_one_send_and_no_trace_of_key_and_address(dagbag, night, capfd, caplog):
    provider, folder = night
    build = dagbag.dags["build_recommendations"].test(run_conf={"date": DATE})
    assert set(states_of(build).values()) == {"success"}, states_of(build)
    # Building alone reaches nobody.
    assert provider.exchanges == []

    dag, conf = dagbag.dags["send_resources_you_may_like"], {"date": DATE, "ramp_minutes": 0}
    with ProcessList() as processes:
        said = f"{provider.api_key} may not write {CANARY}.1@example.com"
        refusal = Answer(403, {"errors": [{"field": f"contacts {CANARY}.2@example.com", "message": said}]})
        provider.fault = lambda method, path: refusal if (method, path) == ("PUT", "/v3/marketing/contacts") else None
        failed = states_of(dag.test(run_conf=conf))
        assert {state for name, state in failed.items() if name.startswith("push.push_chunk")} == {"failed"}, failed
        provider.fault = lambda method, path: None
        send = dag.test(run_conf=conf)
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
        (canaries,) = connection.execute(f"SELECT count(*) FROM mails WHERE email LIKE '{CANARY}%'").fetchone()  # noqa: S608
    assert mails[0] == mails[1] > 300
    assert canaries >= 5

    printed = "".join(capfd.readouterr()) + caplog.text
    arguments = b"\n".join(processes.seen)
    assert b"jobs/plan_push.py" in arguments
    assert "the provider answered 403" in printed
    for secret in (provider.api_key, CANARY):
        assert secret not in printed
        assert secret.encode() not in arguments
        found, looked_at = leaks(secret, folder)
        assert found == []
        assert looked_at > 100
