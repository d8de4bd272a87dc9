"""Build the night's recommendations.

Exports the day's events, catalog and users from the shop and folds them into the profiles. Then, for each campaign file
in `dags/campaigns/`, compares the campaign's models, correlates the items with the best, and recommends to every user.
Ends in one manifest per table and campaign; the campaigns' `send_…` DAGs start from there.

**A model that is no good does not stop the night.** Where training is not due (`[training] cadence`), or its model or
its table is refused, the last good correlations stay for up to 14 days; `train_correlations` says so in its result, and
so do the page *Nights* and the report of the backtest.

**It never mails anybody**, so it can be run again, cleared or backfilled for any date at any time.

Each table is checked **before** it is published: readers never see one whose checks fail. The page *Nights* shows every
check with what was observed and expected.

**When it fails**: read the last lines of the red task. Its message says what is wrong, what was expected and what to
do. Whatever was published before stays; clear the task to go on from there. One campaign's red group does not hold up
the others. If a check is wrong about good data (a
sale, a new range), trigger the date again with `override_gates_by` and `override_gates_reason`; both are kept.

**Not for** a new catalog for many past dates: use `backfill_catalog`, which compares before it promotes.
"""

from airflow.sdk import CronDataIntervalTimetable, TaskGroup, chain, dag, task_group

from ryml_airflow.campaigns import load_all, names
from ryml_airflow.dag_defaults import DATE_PARAM, DEFAULT_ARGS, GATE_PARAMS, MACROS, table_asset
from ryml_airflow.launch import JobOperator, ReadCampaignOperator, SparkJobOperator
from ryml_airflow.training import TrainingOperator
from schemas.campaign import Campaign


def campaign_tasks(campaign: Campaign):
    # A pool of its own: training takes neither a slot of the send's Spark jobs nor of anything else, and one at a time.
    training = {"campaign": campaign.name, "pool": "training"}
    train = []
    if campaign.candidates.kind == "correlations":  # a wishlist needs no model
        backtest_models = JobOperator(
            task_id="backtest_models", job="backtest_models", outlets=[table_asset("backtests")], **training
        )
        train_hybrid = JobOperator(
            task_id="train_hybrid",
            job="train_hybrid",
            is_gated=True,
            outlets=[table_asset("hybrid_items")],
            **training,
        )
        rank_trending = JobOperator(
            task_id="rank_trending",
            job="rank_trending",
            campaign=campaign.name,
            is_gated=True,
            outlets=[table_asset("trending")],
        )
        train_correlations = TrainingOperator(
            task_id="train_correlations",
            job="train_correlations",
            published="correlations",
            is_gated=True,
            outlets=[table_asset("correlations"), table_asset("product_correlations")],
            **training,
        )
        train = [[backtest_models, train_hybrid, rank_trending], train_correlations]
    recommend_items = SparkJobOperator(
        task_id="recommend_items",
        job="recommend_items",
        published="recommendations",
        is_gated=True,
        campaign=campaign.name,
        pool="spark",
        outlets=[table_asset("recommendations")],
    )
    finish_build = JobOperator(
        task_id="finish_build", job="finish_build", campaign=campaign.name, outlets=[table_asset("builds")]
    )
    return [*train, recommend_items, finish_build]


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
        arguments={"mailed_by": ",".join(names())},
        needs_ledger=True,
        is_gated=True,
        pool="spark",
        outlets=[table_asset("profiles")],
    )
    chain(export(), fold_profiles)

    for name, campaign in load_all().items():
        with TaskGroup(name, tooltip="One campaign: its model, a list for every user, and the end of its build"):
            if isinstance(campaign, Campaign):
                chain(fold_profiles, *campaign_tasks(campaign))
            else:
                fold_profiles >> ReadCampaignOperator(task_id="read_campaign", campaign=name)


build_recommendations()
