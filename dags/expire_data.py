"""Delete what is past its keeping time and reachable from nothing live.

`list_expired` looks through the lake and writes down what may go; `delete_expired` deletes exactly that list, each
manifest before its files. How long each table is kept, and why, is in `schemas/retention.py`: whatever tells who was
mailed what for 15 days, what a month can be built again from for 35. Always kept: the newest partition of every table
and campaign, what it was made from, and the item index.

**To look before anything goes**, trigger it with `delete` switched off: `list_expired` returns the counts and the
list's place in the lake, and `delete_expired` is skipped.

**When it fails**: nothing is half deleted for a reader. `delete_expired` refuses the whole list if one entry of it was
published or written to since it was listed: clear `list_expired`, and both run again. A message about a torn manifest
names the partition to rebuild first.

**Not for** making room at once: shorten a keeping time in `schemas/retention.py`, in a reviewed change.
"""

from airflow.sdk import CronDataIntervalTimetable, Param, chain, dag, task

from ryml_airflow.dag_defaults import DEFAULT_ARGS, MACROS
from ryml_airflow.launch import JobOperator


@dag(
    # After the build, which makes what was the newest until then the second newest; before the send.
    schedule=CronDataIntervalTimetable("0 5 * * *", timezone="UTC"),
    catchup=False,
    max_active_runs=1,
    default_args=DEFAULT_ARGS,
    user_defined_macros=MACROS,
    # No param for the date: ages count from the run's own, and a mistyped one would empty the lake.
    params={
        "delete": Param(
            True, type="boolean", title="Delete", description="Off: only list what may go, and leave everything."
        )
    },
    tags=["ryml", "expire", "nightly"],
    doc_md=__doc__,
)
def expire_data():
    list_expired = JobOperator(task_id="list_expired", job="expire_data", arguments={"step": "list"})

    @task.short_circuit
    def may_delete(params=None):
        return params["delete"]

    delete_expired = JobOperator(task_id="delete_expired", job="expire_data", arguments={"step": "delete"})
    chain(list_expired, may_delete(), delete_expired)


expire_data()
