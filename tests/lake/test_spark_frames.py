"""Spark reads what Arrow wrote: the same rows, types derived from the same schema, for every table."""

import datetime as dt
from decimal import Decimal

import pyarrow as pa
import pytest

from jobs.lake.lake import Lake
from jobs.lake.spark_frames import read_frame, spark_schema
from schemas.layout import UNDATED, Partition
from schemas.tables import TABLES

pytestmark = pytest.mark.spark
AT = dt.datetime(2026, 11, 2, 23, 59, 59, 999_999, tzinfo=dt.UTC)


def example(kind):
    """A telling value of an Arrow type."""
    if pa.types.is_list(kind):
        return [example(kind.value_type)]
    if pa.types.is_map(kind):
        return {"color": "blue", "ü": ""}
    for matches, value in (
        (pa.types.is_string, "007 ü"),
        (pa.types.is_boolean, True),
        (pa.types.is_integer, 7),
        (pa.types.is_floating, 0.5),
        (pa.types.is_decimal, Decimal("12.3400")),
        (pa.types.is_timestamp, AT),
        (pa.types.is_date, AT.date()),
    ):
        if matches(kind):
            return value
    raise AssertionError(f"no example of {kind}")


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_spark_sees_the_rows_that_were_published(spark, tmp_path, table):
    spark.conf.set("spark.sql.session.timeZone", "UTC")
    lake = Lake.open(str(tmp_path), buckets=2)
    partition = Partition(table.name, AT.date() if table.dated else UNDATED, "c" if table.per_campaign else None)
    row = {field.name: example(field.type) for field in table.schema}
    empty = {field.name: None if field.nullable else example(field.type) for field in table.schema}
    attempt = lake.attempt(partition, "run")
    files = [attempt.write(pa.Table.from_pylist([content], schema=table.schema), bucket=n) for n, content in
             enumerate((row, empty))]  # fmt: skip
    # What a run that never published left beside it must not be seen.
    lake.attempt(partition, "another").write(pa.Table.from_pylist([row] * 5, schema=table.schema))
    frame = read_frame(spark, lake, attempt.publish(files, inputs=[], parameters={}))
    assert frame.schema.names == spark_schema(table).names == table.schema.names
    got = [found.asDict(recursive=True) for found in frame.collect()]
    assert len(got) == 2
    for name, value in row.items():
        values = [found[name] for found in got]
        expected = AT.replace(tzinfo=None) if isinstance(value, dt.datetime) else value
        if isinstance(value, list) and isinstance(value[0], dt.datetime):
            expected = [expected_at.replace(tzinfo=None) for expected_at in value]
        seen = [naive(found) for found in values]
        assert expected in seen, name


def naive(value):
    """Spark hands instants out in the local zone of this process."""
    if isinstance(value, list):
        return [naive(part) for part in value]
    if isinstance(value, dt.datetime):
        return value.astimezone(dt.UTC).replace(tzinfo=None)
    return value
