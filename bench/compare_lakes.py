"""Whether two lakes hold the same night to the byte, such as one on S3 and one in a folder.

Run:  PYTHONPATH=. .venv/bin/python -m bench.compare_lakes s3://shop/night .airflow/work/lake 2026-11-04 CAMPAIGN
"""

import datetime as dt
import sys

from jobs.lake.lake import Lake
from schemas.layout import UNDATED, Partition
from schemas.tables import TABLES


def main(first: str, second: str, date: dt.date, campaign: str) -> None:
    """Print each table that either lake has of the date; end in an error where one differs."""
    lakes, same, different = (Lake.open(first), Lake.open(second)), 0, 0
    for table in TABLES.values():
        partition = Partition(table.name, date if table.dated else UNDATED, campaign if table.per_campaign else None)
        found = [lake.find(partition) for lake in lakes]
        if not any(found):
            continue
        hashes = [[entry.sha256 for entry in manifest.files] if manifest else None for manifest in found]
        rows = [sum(entry.rows for entry in manifest.files) if manifest else None for manifest in found]
        is_same = hashes[0] == hashes[1]
        same, different = same + is_same, different + (not is_same)
        print(f"{partition.path:<60} {'same' if is_same else 'DIFFERENT'} {rows[0]} {rows[1]}")
    print(f"{same} tables the same, {different} different")
    if different or not same:
        sys.exit(1)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], dt.date.fromisoformat(sys.argv[3]), sys.argv[4])
