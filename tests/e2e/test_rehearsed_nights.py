"""`make rehearse METHOD=… FAULTS=…`: the whole stack, in a checkout of its own, at a provider that goes wrong."""

import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from stack.test_stack_preflight import free_ports

from jobs.rehearsal.history import fault_counts
from jobs.rehearsal.mail_counts import mail_counts

ROOT = Path(__file__).resolve().parents[2]
USERS = 1_000

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.airflow,
    pytest.mark.spark,
    pytest.mark.scoreboard,
    pytest.mark.timeout(2400),
]


@pytest.mark.parametrize("seed", [3, 7])
@pytest.mark.parametrize("method", ["csv_import", "mail_send"])
def test_a_rehearsed_night(tmp_path, method, seed, scoreboard):
    root = tmp_path / "checkout"
    for name in ("dags", "docs", "jobs", "plugins", "schemas"):
        shutil.copytree(ROOT / name, root / name)
    shutil.copy(ROOT / "airflow.cfg", root)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
    api_port, rehearsal_port = free_ports(2)
    done = subprocess.run(
        [
            *(sys.executable, "-m", "ryml_airflow.stack", "--root", str(root), "up", "--exit", "--users", str(USERS)),
            *("--api-port", str(api_port), "--rehearsal-port", str(rehearsal_port)),
            *("--method", method, "--faults", str(seed)),
        ],
        cwd=root, env={**environment, "PYTHONPATH": f"{root}:{root / 'plugins'}"}, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    work = root / ".airflow" / "work" / f"demo_shop-{USERS}-by-{method}-faults-{seed}"
    met = sum(count for name, count in fault_counts(work / "rehearsal.db-history").items() if name != "requests")
    counts = mail_counts(work / "rehearsal.db")
    with closing(sqlite3.connect(work / "ledger.db")) as connection:
        methods = connection.execute("SELECT DISTINCT method FROM plans").fetchall()
        delivered, unknown = connection.execute(
            "SELECT sum(json_extract(counts, '$.delivered')), coalesce(sum(json_extract(counts, '$.unknown')), 0) "
            "FROM requests WHERE state IN ('confirmed', 'unknown')"
        ).fetchone()
    assert methods == [(method,)]
    assert met >= 5
    assert (counts.twice, counts.waiting) == (0, 0)
    assert counts.mails > USERS / 2
    assert delivered <= counts.mails <= delivered + unknown
    assert unknown == 0 or method == "mail_send"
    name = f"make rehearse METHOD={method} FAULTS={seed} USERS={USERS}"
    scoreboard.add(f"{name}: faults met", str(met))
    scoreboard.add(f"{name}: mails, unknown", f"{counts.mails}, {unknown}")
    scoreboard.add(f"{name}: people with two mails", str(counts.twice))
