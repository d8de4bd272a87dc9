"""One night through Airflow itself: its scheduler's task runner, spark-submit, the triggerer's waits, mapped pushes.

Its first send fails at the provider, in words that hold the key and an address; neither stands anywhere afterwards.
"""

import contextlib
import sqlite3
import threading
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from airflow_fixture import HOME
from e2e.airflow_night import CANARY, DATE, states_of

from jobs.rehearsal.calls import Answer

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.airflow,
    # Airflow's own: deprecations at import, and files that its task runner leaves to the collector.
    pytest.mark.filterwarnings("ignore"),
]


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


def test_build_and_send_end_green_with_one_send_and_no_trace_of_key_and_address(dagbag, night, capfd, caplog):
    provider, folder = night.provider, night.folder
    night.build(dagbag)
    with ProcessList() as processes:
        said = f"{provider.api_key} may not write {CANARY}.1@example.com"
        refusal = Answer(403, {"errors": [{"field": f"contacts {CANARY}.2@example.com", "message": said}]})
        provider.fault = lambda method, path: refusal if (method, path) == ("PUT", "/v3/marketing/contacts") else None
        failed = states_of(night.run(dagbag, "send", ramp_minutes=0))
        assert {state for name, state in failed.items() if name.startswith("push.push_chunk")} == {"failed"}, failed
        provider.fault = lambda method, path: None
        states = states_of(night.run(dagbag, "send", ramp_minutes=0))
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
