"""What a job returns and Airflow keeps: where the partition is and its counts, never rows."""

from typing import Any

from jobs.lake.manifest import Manifest


def summarise(manifest: Manifest) -> dict[str, Any]:
    """Name the partition, its rows, the digest of its content and the counts that its job put into the manifest.

    The figures of its gate stay in the lake: there are thirty of them.
    """
    return {
        "partition": str(manifest.partition),
        "rows": manifest.rows,
        "content": manifest.content_sha256[:12],
        **{name: value for name, value in manifest.metrics.items() if name != "figures"},
    }
