"""Training in Airflow: Spark starts only where there is something to train, and the answer says what the night uses."""

import datetime as dt
from pathlib import Path
from typing import Any

from airflow.sdk import Context

from ryml_airflow.launch import SparkJobOperator, publish_counts


class TrainingOperator(SparkJobOperator):
    """Run `jobs/train_correlations.py` if training is due and its backtest let a model through.

    The task is green with the last good correlations too: its result, the page *Nights* and the summary of `make run`
    say that they stay, and why. It is red where there are none of the last 14 days.
    """

    def execute(self, context: Context) -> Any:
        """Look whether there is something to do, do it, and read from the lake what came of it."""
        from jobs.backtest.training_outcome import needs_training
        from jobs.lake.lake import Lake
        from schemas.campaign import load_campaign

        options = self.options()
        campaign = load_campaign(Path(options["--campaign"]))
        if needs_training(Lake.open(options["--lake"]), campaign, dt.date.fromisoformat(options["--date"])):
            return super().execute(context)
        result = self.result(options)
        publish_counts(self, context, result)
        return result

    def result(self, options: dict[str, str]) -> dict[str, Any]:
        """Say what recommending starts from."""
        from jobs.backtest.training_outcome import outcome
        from jobs.lake.lake import Lake
        from schemas.campaign import load_campaign

        campaign = load_campaign(Path(options["--campaign"]))
        return outcome(Lake.open(options["--lake"]), campaign, dt.date.fromisoformat(options["--date"]))
