"""Published partitions as Spark DataFrames, for whoever wants to query the lake: exactly what the manifest names."""

from pyspark.sql import DataFrame, SparkSession
from pyspark.sql.pandas.types import from_arrow_schema
from pyspark.sql.types import StructType

from jobs.lake.lake import Lake
from jobs.lake.manifest import Manifest
from schemas.tables import TABLES, Table


def spark_schema(table: Table) -> StructType:
    """Derive a table's Spark types from its Arrow schema, nullability included."""
    return from_arrow_schema(table.schema)


def read_frame(spark: SparkSession, lake: Lake, manifest: Manifest) -> DataFrame:
    """Open one published partition.

    The files are those of the manifest and the types those of the schema: nothing is listed and nothing inferred, so a
    run that is writing beside it is never seen and user `007` stays `007`.
    """
    root = lake.storage.root.replace("s3://", "s3a://")
    files = [f"{root}/{manifest.folder}/{entry.name}" for entry in manifest.files]
    return spark.read.schema(spark_schema(TABLES[manifest.partition.table])).parquet(*files)
