"""What has a contract is published through its gate and in no other way."""

import ast
from pathlib import Path

from schemas.contracts import CONTRACTS

ROOT = Path(__file__).resolve().parents[2]
# Who may publish without a gate, and what: tables without a contract, or copies of what went through one.
WITHOUT_A_GATE = {
    "jobs/backtest_models.py": "backtests",
    "jobs/backfill/promotion.py": "item_index",
    "jobs/finish_build.py": "builds",
    "jobs/lake/copy_partition.py": "copies of what was checked",
    "jobs/lake/item_index.py": "item_index",
    "jobs/delivery/reconcile_mails.py": "receipts",
    "jobs/measure_campaign.py": "funnel",
    "jobs/plan_push.py": "chunks",
    "jobs/pull_suppressions.py": "suppressions",
    "jobs/pull_recent_events.py": "recent_events",
    "jobs/reconcile_push.py": "receipts, mirror",
}
# The gate itself, and the export, which publishes its quarantine between the gate and the data.
GATES = {"jobs/quality/checked_publish.py", "jobs/export/partition_writer.py"}


def calls(path):
    """The names of all functions and methods that a file calls."""
    nodes = (node.func for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))) if isinstance(node, ast.Call))
    return {node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", "") for node in nodes}


def test_only_those_publish_without_a_gate_that_have_no_contract():
    called = {str(path.relative_to(ROOT)): calls(path) for path in (ROOT / "jobs").rglob("*.py")}
    assert len(called) > 80
    assert {path for path, names in called.items() if "publish" in names} == set(WITHOUT_A_GATE) | GATES
    assert {path for path, names in called.items() if "publish_checked" in names} == {
        "jobs/fold_profiles.py",
        "jobs/rank_trending.py",
        "jobs/train_correlations.py",
        "jobs/train_hybrid.py",
        "jobs/recommend_items.py",
    }
    assert "check_export" in called["jobs/export/partition_writer.py"]
    assert not {table for tables in WITHOUT_A_GATE.values() for table in tables.split(", ")} & set(CONTRACTS)
