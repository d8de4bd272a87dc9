"""Build the night's recommendations.

Exports the day's events, catalog and users from the shop, folds them into the profiles, compares the campaign's models
and correlates the items with the best, and recommends to every user. Ends in one manifest per table;
`send_recommendations` starts from there.

**A model that is no good does not stop the night.** Where training is not due (`[training] cadence`), or its model or
its table is refused, the last good correlations stay for up to 14 days; `train_correlations` says so in its result, and
so do the page *Nights* and the report of the backtest.

**It never mails anybody**, so it can be run again, cleared or backfilled for any date at any time.

Each table is checked **before** it is published: readers never see one whose checks fail. The page *Nights* shows every
check with what was observed and expected.

**When it fails**: read the last lines of the red task. Its message says what is wrong, what was expected and what to
do. Whatever was published before stays; clear the task to go on from there. If a check is wrong about good data (a
sale, a new range), trigger the date again with `override_gates_by` and `override_gates_reason`; both are kept.

**Not for** a new catalog for many past dates: use `backfill_catalog`, which compares before it promotes.
"""

from airflow.sdk import CronDataIntervalTimetable, chain, dag, task_group

from ryml_airflow.dag_defaults import DATE_PARAM, DEFAULT_ARGS, GATE_PARAMS, MACROS, table_asset
from ryml_airflow.launch import JobOperator, SparkJobOperator
from ryml_airflow.training import TrainingOperator

CAMPAIGN = "resources_you_may_like"


@dag(
    # Explicit: the default timetable of a cron string has an interval of no length, and would export nothing.
    schedule=CronDataIntervalTimetable("0 3 * * *", timezone="UTC"),
    catchup=False,
    max_active_runs=1,
    default_args=DEFAULT_ARGS,
    user_defined_macros=MACROS,
    params={"date": DATE_PARAM, **GATE_PARAMS},
    tags=["ryml", "build", "nightly"],
    doc_md=__doc__,
)
def build_recommendations():
    @task_group(tooltip="The day's rows from the shop, split into good and quarantined")
    def export():
        tables = [
            JobOperator(
                task_id=f"export_{table}",
                job="export_table",
                arguments={"table": table},
                settings=["source", "data", "buckets"],
                is_gated=True,
                outlets=[table_asset(table)],
            )
            for table in ("events", "catalog", "users")
        ]
        tables >> JobOperator(task_id="index_items", job="index_items", outlets=[table_asset("item_index")])

    fold_profiles = SparkJobOperator(
        task_id="fold_profiles",
        job="fold_profiles",
        published="profiles",
        is_gated=True,
        pool="spark",
        outlets=[table_asset("profiles")],
    )
    # A pool of its own: training takes neither a slot of the send's Spark jobs nor of anything else, and one at a time.
    backtest_models = JobOperator(
        task_id="backtest_models",
        job="backtest_models",
        campaign=CAMPAIGN,
        pool="training",
        outlets=[table_asset("backtests")],
    )
    train_correlations = TrainingOperator(
        task_id="train_correlations",
        job="train_correlations",
        published="correlations",
        campaign=CAMPAIGN,
        is_gated=True,
        pool="training",
        outlets=[table_asset("correlations"), table_asset("product_correlations")],
    )
    recommend_items = SparkJobOperator(
        task_id="recommend_items",
        job="recommend_items",
        published="recommendations",
        is_gated=True,
        campaign=CAMPAIGN,
        pool="spark",
        outlets=[table_asset("recommendations")],
    )
    finish_build = JobOperator(
        task_id="finish_build", job="finish_build", campaign=CAMPAIGN, outlets=[table_asset("builds")]
    )
    chain(export(), fold_profiles, backtest_models, train_correlations, recommend_items, finish_build)


build_recommendations()
