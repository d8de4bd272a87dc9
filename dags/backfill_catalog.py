"""Build past dates again with the catalog as the shop has it now.

For the day when the catalog of some dates was wrong, or a new one replaced it: stage (export the catalog of every date
anew into a lake of its own, beside copies of the profiles) → rebuild (train and recommend) → compare (who gains or
loses recommendations, which items come and go) → promote (publish in the live lake, partition by partition, each
replacing exactly the one that was compared). Readers see the old dates until the promotion.

**It never mails anybody**, and knows neither the e-mail provider nor the delivery ledger. Dates whose push was planned
are refused: the lake goes on saying what their mails were made from. Switch `promote` off to compare even those.

**When it fails**: the live lake is as it was, unless `promote_backfill` had begun: then some dates are new and the
others old, each whole. Clear the red task to go on. Where its message says that something was published meanwhile,
trigger a new run while no build is running. A comparison that stops because too many users would lose their
recommendations is a catalog to look at, not a limit to raise.

**Not for** a single date that was not sent yet (clear its run of `build_recommendations`), nor for wrong events or
users, which this does not export again. Dates of which the users' partition has expired (15 days) cannot be built.
"""

from airflow.sdk import chain, dag, task

from ryml_airflow.backfill import BACKFILL_PARAMS, BackfillOperator, BackfillSparkOperator
from ryml_airflow.dag_defaults import DEFAULT_ARGS, MACROS, table_asset

PROMOTED = ("catalog", "backtests", "correlations", "product_correlations", "recommendations", "builds")


@dag(
    schedule=None,
    catchup=False,
    max_active_runs=1,
    default_args=DEFAULT_ARGS,
    user_defined_macros=MACROS,
    params=BACKFILL_PARAMS,
    tags=["ryml", "backfill", "by hand"],
    doc_md=__doc__,
)
def backfill_catalog():
    stage_backfill = BackfillOperator(
        task_id="stage_backfill",
        job="stage_backfill",
        takes=["first_date", "last_date", "reason", "promote"],
        settings=["source", "data"],
    )
    rebuild_dates = BackfillSparkOperator(task_id="rebuild_dates", pool="training")
    compare_backfill = BackfillOperator(
        task_id="compare_backfill",
        job="compare_backfill",
        takes=["max_lost_percent"],
        outlets=[table_asset("backfill_comparison")],
    )

    @task.short_circuit
    def may_promote(params=None):
        return params["promote"]

    promote_backfill = BackfillOperator(
        task_id="promote_backfill",
        job="promote_backfill",
        outlets=[table_asset(table) for table in PROMOTED],
    )
    chain(stage_backfill, rebuild_dates, compare_backfill, may_promote(), promote_backfill)


backfill_catalog()
