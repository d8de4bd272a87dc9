"""Who may import what: schemas <- jobs <- plugins/ryml_airflow <- dags, and one module per vendor."""

import ast
import functools
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LAYERS = {"schemas": "schemas", "jobs": "jobs", "plugins": "ryml_airflow", "dags": "dags"}
# What each layer may not import, from the architecture's table.
FORBIDDEN = {
    "schemas": {"airflow", "jobs", "ryml_airflow", "dags", "pyspark", "boto3", "sendgrid"},
    "jobs": {"airflow", "ryml_airflow", "dags"},
    "plugins": {"dags"},
    "dags": {"pyspark", "pandas", "boto3", "numpy", "pyarrow", "sqlalchemy", "jobs", "os", "subprocess"},
}
# The vendors that stand in one module each.
ONE_MODULE = {
    "matplotlib": "jobs/backtest/plots.py",
    "sendgrid": "jobs/delivery/sendgrid_client.py",
    "boto3": "jobs/lake/s3_storage.py",
    "great_expectations": "jobs/quality/gates.py",
    "lightfm": "jobs/ranking/hybrid.py",
    "numba": "jobs/compiled.py",
}


def python_files(folder):
    return [path for path in (ROOT / folder).rglob("*.py") if "__pycache__" not in path.parts]


@functools.cache
def imports_of(path_or_source):
    """The top-level names of every import, wherever in the file it stands."""
    text = path_or_source if isinstance(path_or_source, str) else path_or_source.read_text(encoding="utf-8")
    names = set()
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            names.add((node.module or "").split(".")[0])
    return names


@pytest.mark.parametrize("layer", LAYERS)
def test_a_layer_imports_only_what_stands_below_it(layer):
    files = python_files(layer)
    assert files
    broken = {str(path.relative_to(ROOT)): found for path in files if (found := imports_of(path) & FORBIDDEN[layer])}
    assert broken == {}


def test_a_broken_rule_is_seen():
    assert imports_of("def f():\n    from airflow.sdk import dag\n    import jobs.lake.lake as x\n") == {
        "airflow",
        "jobs",
    }


def test_each_vendor_stands_in_one_module():
    files = [path for layer in LAYERS for path in python_files(layer)]
    assert len(files) > 50
    for vendor, module in ONE_MODULE.items():
        users = {str(path.relative_to(ROOT)) for path in files if vendor in imports_of(path)}
        assert users == {module}, vendor


def test_no_file_is_named_after_something_that_python_or_a_dependency_calls_its_own():
    """Airflow and spark-submit put folders on the path: such a file would replace the module for everybody."""
    locked = (ROOT / "requirements.txt").read_text(encoding="utf-8")
    packages = {line.split("==")[0].replace("-", "_") for line in locked.splitlines() if "==" in line}
    taken = {name for name in (*sys.stdlib_module_names, *packages) if name}
    assert {"sendgrid", "pyspark", "json"} <= taken
    stems = {path.stem for layer in LAYERS for path in python_files(layer)} - {"__init__", "__main__"}
    top = {path.name for path in ROOT.iterdir() if path.is_dir()} - {"tests"}
    assert stems & taken == set()
    assert top & taken == set()
    assert stems & {"utils", "helpers", "misc", "common"} == set()


def test_dag_files_are_wiring():
    files = python_files("dags")
    assert len(files) >= 2
    for path in files:
        text = path.read_text(encoding="utf-8")
        assert len(text.splitlines()) <= 130, path.name
        assert "environ" not in text, path.name
        assert "Variable" not in text, path.name
        assert "{{ ds }}" not in text, path.name


def test_jobs_never_patch_the_path_and_never_use_sparks_own_writers():
    for path in python_files("jobs"):
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"sys\.path\b", text), path.name
        assert ".mode(" not in text, f"{path.name}: append and overwrite lose or tear data when killed"
