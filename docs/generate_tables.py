"""Write the tables of DAGs, of the lake and of campaign keys into their documents, between markers (`make docs`)."""

import os
import runpy
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
DOCUMENTS = (ROOT / "README.md", ROOT / "docs" / "campaigns.md")

# May past dates be run again? A DAG file that is not named here is an error.
PAST_DATES = {
    "backfill_catalog": "is what it is for",
    "build_recommendations": "any, at any time",
    "expire_data": "no: ages count from the run's own day",
    "measure_campaigns": "as long as their receipts are kept",
    "send_campaigns": "with the rehearsal provider; never with a live one",
}


def table(head: list[str], rows: list[list[str]]) -> str:
    """Lay rows out as a Markdown table."""
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [head, ["---"] * len(head), *rows])


def dags() -> str:
    """One row per file in dags/: id, schedule, the first line of its text, past dates.

    A file that makes a DAG for each campaign has one row too: another campaign changes nothing here.
    """
    os.environ.setdefault("AIRFLOW_HOME", tempfile.mkdtemp(prefix="ryml-docs-"))  # read at Airflow's import
    from ryml_airflow.campaigns import load, names

    rows = []
    for path in sorted((ROOT / "dags").glob("*.py")):
        module, verb = runpy.run_path(str(path)), path.stem.removesuffix("_campaigns")
        if verb == path.stem:
            dag = module[path.stem]()
            minute, hour, *rest = str(getattr(dag.timetable, "expression", "- - by hand")).split()
            schedule = f"daily {int(hour):02}:{int(minute):02} UTC" if rest == ["*", "*", "*"] else " ".join(rest)
            name = dag.dag_id
        else:
            dag = module[f"{verb}_dag"](load(names()[0]))
            name, schedule = dag.dag_id.replace(names()[0], "CAMPAIGN"), "daily, by the campaign's hour and zone"
        rows.append([f"`{name}`", schedule, dag.doc_md.splitlines()[0], PAST_DATES[path.stem]])
    return table(["DAG", "schedule", "what it does", "past dates"], rows)


def tables() -> str:
    """One row per table of schemas/tables.py: name, grain, key, and for how long a date is kept."""
    from schemas.retention import keep_days
    from schemas.tables import TABLES

    kept = {name: f"{days} days" for name, days in keep_days().items()}
    rows = [[f"`{t.name}`", t.grain, ", ".join(t.key), kept.get(t.name, "for good")] for t in TABLES.values()]
    return table(["table", "grain", "key", "kept"], rows)


def campaign_keys() -> str:
    """One row per key of a campaign's file."""
    return str(runpy.run_path(str(ROOT / "docs" / "campaign_keys.py"))["table"]())


def current(text: str) -> str:
    """Give the text of a document with every generated part as it should be now."""
    for name, make in {"dags": dags, "tables": tables, "keys": campaign_keys}.items():
        if f"<!-- {name}: made by" not in text:
            continue
        part = make()
        before, start, rest = text.partition(f"<!-- {name}: made by `make docs` -->\n")
        _, end, after = rest.partition(f"<!-- end of {name} -->\n")
        text = f"{before}{start}{part}\n{end}{after}"
    return text


if __name__ == "__main__":
    sys.path[:0] = [str(ROOT), str(ROOT / "plugins")]
    for document in DOCUMENTS:
        document.write_text(current(document.read_text(encoding="utf-8")), encoding="utf-8")
