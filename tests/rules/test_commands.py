"""Every job is a command: it explains itself, and what is foreseen ends in one paragraph and its exit status."""

import contextlib
import io
import re
import runpy
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
JOBS = sorted(path.stem for path in (ROOT / "jobs").glob("*.py") if "def main(" in path.read_text(encoding="utf-8"))


def run(*arguments):
    return subprocess.run(
        [sys.executable, "-m", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )


def test_there_are_jobs():
    assert len(JOBS) >= 14


def _help_of(job, results):
    """What `python -m jobs.JOB --help` does, in a process that has its imports already."""
    sys.argv, status, said = [job, "--help"], None, io.StringIO()
    warnings.simplefilter("ignore")  # that the module is there already, in some
    with contextlib.redirect_stdout(said):
        try:
            runpy.run_module(f"jobs.{job}", run_name="__main__", alter_sys=True)
        except SystemExit as end:
            status = end.code
    results.put((status, said.getvalue()))


@pytest.mark.parametrize("job", JOBS)
def test_help_says_what_is_read_written_and_how_to_run(job, forks):
    results = forks.SimpleQueue()
    process = forks.Process(target=_help_of, args=(job, results))
    process.start()
    process.join(60)
    assert process.exitcode == 0
    status, said = results.get()
    assert status == 0
    for word in ("Reads:", "Writes:", "Run:", f"python -m jobs.{job}"):
        assert word in said
    assert re.fullmatch(r"[a-z]+_[a-z_]+", job)


def test_a_date_without_data_is_one_paragraph_with_the_remedy(tmp_path):
    done = run("jobs.fold_profiles", "--lake", str(tmp_path), "--date", "2026-01-01", "--run-id", "x")
    assert done.returncode == 4
    assert "Traceback" not in done.stderr
    assert "run build_recommendations for 2026-01-01 first" in done.stderr


def test_an_unknown_campaign_key_is_named_with_its_file(tmp_path):
    path = tmp_path / "spring.toml"
    path.write_text('title = "Spring"\nslotz = 6\n[mail]\nsubject = "Hi"\nsuppression_group = "x"\nhour = 24\n')
    done = run(
        "jobs.recommend_items",
        "--lake",
        str(tmp_path),
        "--date",
        "2026-01-01",
        "--run-id",
        "x",
        "--campaign",
        str(path),
    )
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    for part in ("spring.toml", "slotz", "mail.hour", "24"):
        assert part in done.stderr
