"""Great Expectations over one partition: the suite of its table in schemas/expectations/ must hold.

The only module that imports great_expectations (3 to 5 s of import). A result is never taken unread: the gate stops on
`success` false and on any exception inside a result, and its message holds counts and column names, never values.
"""

import json
import logging
import os
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

from jobs.lake.list_columns import lengths
from schemas.errors import GateError

_SUITES = Path(__file__).resolve().parents[2] / "schemas" / "expectations"


def frame(table: str, rows: pa.Table) -> pd.DataFrame:
    """Lay a partition out for its suite: lists become their lengths, decimals numbers, free properties go."""
    data: pd.DataFrame = _columns(table, rows).to_pandas()
    return data


def _columns(table: str, rows: pa.Table) -> pa.Table:
    if table == "correlations":
        scores = rows["score"].combine_chunks()
        best = scores.flatten().take(scores.offsets[: len(rows)]) if len(rows) else scores.flatten()
        columns = {"item": rows["item"], "others": pa.array(lengths(rows["other_item"])), "best_score": best}
        return pa.table(columns)
    if table == "recommendations":
        columns = {"user_id": rows["user_id"], "items": pa.array(lengths(rows["item"])), "outcome": rows["outcome"]}
        return pa.table(columns)
    plain = rows.drop_columns([name for name in ("properties",) if name in rows.column_names])
    if "price" in plain.column_names:
        place = plain.column_names.index("price")
        plain = plain.set_column(place, "price", plain["price"].cast(pa.float64()))
    return plain


def validate(table: str, rows: pa.Table) -> dict[str, int]:
    """Hold a partition against its table's suite.

    Returns the number of expectations that were held.
    Raises: GateError naming every expectation that failed or could not be evaluated.
    """
    os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")
    # Before the import, which itself logs two hundred lines.
    logging.getLogger("great_expectations").setLevel(logging.WARNING)
    import great_expectations as gx

    suite = gx.ExpectationSuite(**json.loads((_SUITES / f"{table}.json").read_text(encoding="utf-8")))
    context = gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False}  # type: ignore[assignment]
    asset = context.data_sources.add_pandas("lake").add_dataframe_asset(table)
    batch = asset.add_batch_definition_whole_dataframe("partition").get_batch({"dataframe": frame(table, rows)})
    # BOOLEAN_ONLY: every other format may quote values of the rows, addresses among them.
    result = batch.validate(suite, result_format="BOOLEAN_ONLY")
    problems = [_describe(outcome) for outcome in result.results if _is_bad(outcome)]
    if problems or not result.success or len(result.results) != len(suite.expectations):
        raise GateError(
            f"{table}: {len(problems)} of {len(suite.expectations)} expectations do not hold: {'; '.join(problems)}. "
            f"The night stops here; look at the source, or at schemas/expectations/{table}.json if the rule is wrong"
        )
    return {"expectations": len(result.results)}


def _is_bad(outcome: Any) -> bool:
    raised = outcome.exception_info or {}
    return not outcome.success or any(
        info.get("raised_exception") for info in (raised.values() if _is_nested(raised) else [raised])
    )


def _is_nested(raised: dict[str, Any]) -> bool:
    """Newer releases key the exceptions by metric; older ones have one flat dict."""
    return bool(raised) and "raised_exception" not in raised


def _describe(outcome: Any) -> str:
    arguments = {name: value for name, value in outcome.expectation_config.kwargs.items() if name != "batch_id"}
    return f"{outcome.expectation_config.type} {json.dumps(arguments, default=str)}"
