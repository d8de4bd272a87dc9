"""The environment of Airflow's components: everything that differs from airflow.cfg for this run."""

import json
import sys
from collections.abc import Mapping
from pathlib import Path

from ryml_airflow.stack.run_settings import RunSettings

# Of the caller's Airflow settings only these are kept. Any other could point the demo at a real database or provider.
KEPT_AIRFLOW_VARIABLES = (
    "AIRFLOW__CORE__DAGS_FOLDER",
    "AIRFLOW__CORE__PARALLELISM",
    "AIRFLOW__LOGGING__LOGGING_LEVEL",
)
# SPARK_HOME would start another Spark than the one installed; PYTHONDONTWRITEBYTECODE makes every process compile
# Airflow anew (API server: 16 s instead of 8).
_DROPPED = ("SPARK_HOME", "SPARK_CONF_DIR", "PYTHONDONTWRITEBYTECODE", "PYTHONHOME", "PYTHONSTARTUP")
_LOOPBACK = "127.0.0.1,localhost"


def component_environment(settings: RunSettings, *, rehearsal_key: str, inherited: Mapping[str, str]) -> dict[str, str]:
    """Build the environment of every part of the stack."""
    kept = {
        name: value
        for name, value in inherited.items()
        if (not name.startswith("AIRFLOW") or name in KEPT_AIRFLOW_VARIABLES) and name not in _DROPPED
    }
    binaries = str(Path(sys.prefix) / "bin")
    for name in ("NO_PROXY", "no_proxy"):  # tasks report to the API server by HTTP, which no proxy can reach
        kept[name] = ",".join(filter(None, (kept.get(name), _LOOPBACK)))
    return kept | {
        "AIRFLOW_HOME": str(settings.root),
        "AIRFLOW__API__PORT": str(settings.api_port),
        "AIRFLOW__CORE__EXECUTION_API_SERVER_URL": f"{settings.ui_url}/execution/",
        "AIRFLOW__RYML__LAKE": settings.lake,
        "AIRFLOW__RYML__SOURCE": str(settings.source.path),
        "AIRFLOW__RYML__DATA": settings.data,
        "AIRFLOW__RYML__LEDGER": f"sqlite:///{settings.work / 'ledger.db'}",
        "AIRFLOW__RYML__CAMPAIGNS": str(settings.campaigns),
        "AIRFLOW__RYML__REHEARSAL_HOST": settings.rehearsal_url,
        # A DAG that is unpaused starts the last run of its schedule at once, for a day that the demo knows nothing of.
        "AIRFLOW__SCHEDULER__USE_JOB_SCHEDULE": "False",
        # Two cores: one Spark job at a time (pool `spark`) beside Airflow itself.
        "AIRFLOW_CONN_SPARK_DEFAULT": json.dumps({"conn_type": "spark", "host": "local[2]"}),
        "AIRFLOW_CONN_SENDGRID_DEFAULT": json.dumps(
            {"conn_type": "http", "host": settings.rehearsal_url, "password": rehearsal_key}
        ),
        "PATH": f"{binaries}:{kept.get('PATH', '/usr/bin:/bin')}",  # spark-submit is found on PATH only
        "PYTHONPATH": f"{settings.root}:{settings.root / 'plugins'}",
        "PYTHONUNBUFFERED": "1",
        "PYSPARK_PYTHON": sys.executable,
        "PYSPARK_DRIVER_PYTHON": sys.executable,
        "SPARK_LOCAL_IP": "127.0.0.1",  # the driver's ports listen to this machine only
        "SPARK_LOCAL_DIRS": str(settings.work / "spark"),  # not in /tmp: a killed job's files go with `make clean`
    }


def ignored_airflow_variables(inherited: Mapping[str, str]) -> list[str]:
    """Name the caller's Airflow settings that the stack does not take over."""
    return sorted(name for name in inherited if name.startswith("AIRFLOW_") and name not in KEPT_AIRFLOW_VARIABLES)
