"""A source whose settings name a connection: its URI reaches the job, and nothing that is kept or shown."""

import pytest

pytestmark = pytest.mark.airflow

SETTINGS = """
kind = "sql"
name = "shop"
history_days = 1
{place}
[events]
query = "SELECT 1 FROM e WHERE t >= :window_start AND t < :window_end ORDER BY 1"
[catalog]
query = "SELECT 1 ORDER BY 1"
[users]
query = "SELECT 1 ORDER BY 1"
"""


@pytest.mark.parametrize(
    ("connection", "expected"),
    [
        ("postgresql://me:p%40ss@db:5432/shop?sslmode=require", "postgres://me:p%40ss@db:5432/shop?sslmode=require"),
        ('{"conn_type": "generic", "extra": {"uri": "grpc+tls://me:x@db:443"}}', "grpc+tls://me:x@db:443"),
    ],
)
def test_the_connection_becomes_an_option_of_the_job(airflow_db, tmp_path, monkeypatch, connection, expected):
    from ryml_airflow.deployment import add_source_uri
    from ryml_airflow.launch import JobOperator

    monkeypatch.setenv("AIRFLOW_CONN_SHOP_DEFAULT", connection)
    path = tmp_path / "shop.toml"
    path.write_text(SETTINGS.format(place='connection = "shop_default"'))
    options = {"source": path}
    add_source_uri(options)
    assert options == {"source": path, "source_uri": expected}
    operator = JobOperator(
        task_id="export_events", job="export_table", arguments={"table": "events"}, settings=["source"]
    )
    assert not any("ss@db" in str(getattr(operator, name)) for name in operator.template_fields)


def test_without_a_connection_nothing_is_added(airflow_db, tmp_path):
    from ryml_airflow.deployment import add_source_uri

    path = tmp_path / "shop.toml"
    path.write_text(SETTINGS.format(place='uri = "sqlite:///x"'))
    options = {"source": path}
    add_source_uri(options)
    assert options == {"source": path}
    none: dict[str, object] = {"table": "events"}
    add_source_uri(none)
    assert none == {"table": "events"}
