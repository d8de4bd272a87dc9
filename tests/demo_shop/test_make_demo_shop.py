"""The command: options in, one JSON line out, one paragraph and an exit status when something is wrong."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def command(*options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "jobs.make_demo_shop", *options], cwd=ROOT, capture_output=True, text=True, check=False
    )


def test_makes_extends_and_refuses(tmp_path: Path) -> None:
    path = ("--path", str(tmp_path / "shop.sqlite"), "--users", "300")
    first = command(*path, "--last-date", "2026-09-05")
    assert first.returncode == 0, first.stderr
    made = json.loads(first.stdout)
    assert made == {"users": 301, "items": 603, "events": made["events"], "last_date": "2026-09-05", "days_added": 2}
    assert json.loads(command(*path, "--last-date", "2026-09-06").stdout)["days_added"] == 1
    refused = command(*path, "--last-date", "2026-09-06", "--seed", "8")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert refused.stderr.startswith("ConfigError: ")
    assert "seed is 7 there" in refused.stderr


def test_writes_parquet(tmp_path: Path) -> None:
    done = command("--parquet", str(tmp_path / "shop"), "--users", "500", "--workers", "1")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["users"] == 500
    assert sorted(path.name for path in (tmp_path / "shop").iterdir()) == ["events", "items", "users"]


def test_needs_a_last_date(tmp_path: Path) -> None:
    refused = command("--path", str(tmp_path / "shop.sqlite"))
    assert refused.returncode == 2
    assert "--last-date" in refused.stderr
