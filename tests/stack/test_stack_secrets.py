"""Secrets are made once, readable by their owner only, and stay out of what is not theirs."""

import base64
import configparser
import datetime as dt
import json
import os
import stat
from pathlib import Path

import pytest

from ryml_airflow.stack.environment import component_environment, ignored_airflow_variables
from ryml_airflow.stack.run_settings import RunSettings, Source
from ryml_airflow.stack.secret_files import _write, ensure_key, ensure_secrets

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture
def permissive_umask():
    """The most careless setting: whatever is private then is private by our doing."""
    previous = os.umask(0)
    yield
    os.umask(previous)


@pytest.mark.usefixtures("permissive_umask")
def test_secrets_are_private_and_stay(tmp_path: Path) -> None:
    folder = tmp_path / "secrets"
    password = ensure_secrets(folder)
    key = ensure_key(tmp_path / "work" / "rehearsal_key")
    files = {path.name: path for path in folder.iterdir()} | {"key": tmp_path / "work" / "rehearsal_key"}
    assert set(files) == {"fernet_key", "api_secret", "jwt_secret", "passwords.json", "key"}
    assert {stat.S_IMODE(path.stat().st_mode) for path in files.values()} == {0o600}
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    before = {name: path.read_text() for name, path in files.items()}
    assert (ensure_secrets(folder), ensure_key(files["key"])) == (password, key)
    assert {name: path.read_text() for name, path in files.items()} == before
    assert len(base64.urlsafe_b64decode(before["fernet_key"])) == 32
    assert json.loads(before["passwords.json"])["admin"] == password
    assert len({*before.values(), password}) == len(before) + 1
    _write(tmp_path / "other", "value")  # private from its first moment, not made so afterwards
    assert stat.S_IMODE((tmp_path / "other").stat().st_mode) == 0o600


@pytest.mark.usefixtures("permissive_umask")
def test_secrets_that_were_opened_are_closed_and_torn_ones_replaced(tmp_path: Path) -> None:
    ensure_secrets(tmp_path)
    (tmp_path / "jwt_secret").chmod(0o644)
    (tmp_path / "api_secret").write_text("")
    ensure_secrets(tmp_path)
    assert stat.S_IMODE((tmp_path / "jwt_secret").stat().st_mode) == 0o600
    assert len((tmp_path / "api_secret").read_text()) == 32


def test_a_password_that_somebody_chose_stays(tmp_path: Path) -> None:
    (tmp_path / "passwords.json").write_text('{"admin": "chosen", "someone": "else"}')
    assert ensure_secrets(tmp_path) == "chosen"
    assert set(json.loads((tmp_path / "passwords.json").read_text())) == {"admin", "someone", "viewer"}


def test_airflow_cfg_reads_exactly_these_files(tmp_path: Path) -> None:
    ensure_secrets(tmp_path)
    configuration = configparser.ConfigParser(interpolation=None)
    assert configuration.read(REPOSITORY / "airflow.cfg")
    values = [value for section in configuration.sections() for value in dict(configuration[section]).values()]
    named = {value.rpartition("/secrets/")[2].strip("\"'") for value in values if "/secrets/" in value}
    assert named == {path.name for path in tmp_path.iterdir()}
    everything = (REPOSITORY / "airflow.cfg").read_text()
    assert "{AIRFLOW_HOME}" not in everything.replace("${AIRFLOW_HOME}", "")  # without the $ it is a folder's name


def settings(root: Path) -> RunSettings:
    source = Source(root / "docs/examples/demo_shop.toml", "demo_shop", None, None)
    return RunSettings(
        root=root,
        source=source,
        users=100,
        dates=(dt.date(2026, 11, 4),),
        data=str(root / "shop.db"),
        api_port=18080,
        rehearsal_port=18085,
        leaves_after_batch=True,
    )


def test_components_get_this_runs_settings_and_nobody_elses(tmp_path: Path) -> None:
    inherited = {
        "HOME": "/home/someone",
        "PATH": "/usr/bin",
        "AIRFLOW_HOME": "/elsewhere",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN": "postgresql://production.example.com/airflow",
        "AIRFLOW_CONN_SENDGRID_DEFAULT": "http://live.example.com",
        "AIRFLOW__RYML__LAKE": "s3://production/lake",
        "AIRFLOW__CORE__PARALLELISM": "4",
        "SPARK_HOME": "/opt/spark-2",
        "PYTHONDONTWRITEBYTECODE": "1",
        "NO_PROXY": "intranet.example.com",
    }
    given = component_environment(settings(tmp_path), rehearsal_key="secret-key", inherited=inherited)
    assert given["AIRFLOW_HOME"] == str(tmp_path)
    assert given["AIRFLOW__RYML__LAKE"] == str(tmp_path / ".airflow/work/demo_shop-100/lake")
    assert given["AIRFLOW__RYML__LEDGER"] == f"sqlite:///{tmp_path}/.airflow/work/demo_shop-100/ledger.db"
    assert given["AIRFLOW__CORE__EXECUTION_API_SERVER_URL"] == "http://127.0.0.1:18080/execution/"
    assert given["AIRFLOW__CORE__PARALLELISM"] == "4"
    assert given["NO_PROXY"] == "intranet.example.com,127.0.0.1,localhost"
    assert given["HOME"] == "/home/someone"
    assert json.loads(given["AIRFLOW_CONN_SENDGRID_DEFAULT"]) == {
        "conn_type": "http",
        "host": "http://127.0.0.1:18085",
        "password": "secret-key",
    }
    assert json.loads(given["AIRFLOW_CONN_SPARK_DEFAULT"])["host"] == "local[2]"
    assert not {"SPARK_HOME", "PYTHONDONTWRITEBYTECODE", "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"} & set(given)
    assert not any("production" in value or "live.example.com" in value for value in given.values())
    assert ignored_airflow_variables(inherited) == [
        "AIRFLOW_CONN_SENDGRID_DEFAULT",
        "AIRFLOW_HOME",
        "AIRFLOW__DATABASE__SQL_ALCHEMY_CONN",
        "AIRFLOW__RYML__LAKE",
    ]


def test_every_ryml_setting_of_the_launcher_is_one_of_airflow_cfg(tmp_path: Path) -> None:
    configuration = configparser.ConfigParser(interpolation=None)
    configuration.read(REPOSITORY / "airflow.cfg")
    given = component_environment(settings(tmp_path), rehearsal_key="key", inherited={})
    own = [name.removeprefix("AIRFLOW__RYML__").lower() for name in given if name.startswith("AIRFLOW__RYML__")]
    assert len(own) >= 5
    assert [option for option in own if not configuration.has_option("ryml", option)] == []
    assert configuration.has_option("api", "port")
    assert configuration.has_option("core", "execution_api_server_url")
