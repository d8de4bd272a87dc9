"""The documents say what is there: generated tables are current, and the tests, files and commands they name exist."""

import re
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]


@pytest.mark.airflow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # Airflow's own, at import
def test_the_generated_tables_are_current():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    generator = runpy.run_path(str(ROOT / "docs" / "generate_tables.py"))
    assert generator["dags"]().count("\n") == 1 + len(list((ROOT / "dags").glob("*.py"))) > 3
    assert generator["tables"]() in text
    assert generator["current"](text) == text, "type: make docs"


def test_every_test_that_a_document_names_is_there():
    named = {name for path in DOCUMENTS for name in re.findall(r"tests/\w+/\w+\.py(?:::\w+)?", path.read_text("utf-8"))}
    assert len(named) > 15
    for name in sorted(named):
        path, _, function = name.partition("::")
        assert (ROOT / path).is_file(), name
        assert not function or f"def {function}(" in (ROOT / path).read_text(encoding="utf-8"), name


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_every_link_leads_somewhere(path):
    for target in re.findall(r"\]\(([^)#]+)", path.read_text(encoding="utf-8")):
        assert target.startswith("https://") or (path.parent / target).exists(), target


def test_every_command_that_a_document_names_is_there():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    jobs = {f"{path.parent.name}.{path.stem}" for folder in ("jobs", "bench") for path in (ROOT / folder).glob("*.py")}
    named = 0
    for path in DOCUMENTS:
        text = path.read_text(encoding="utf-8")
        for target in re.findall(r"(?:^ {4}|`|time )make ([a-z][a-z-]*)", text, re.MULTILINE):
            assert target in targets, f"{path.name}: make {target}"
            named += 1
        for job in re.findall(r"python -m ((?:jobs|bench)\.[a-z_]+)", text):
            assert job in jobs, f"{path.name}: {job}"
            named += 1
    assert named > 20


def test_pictures_are_small():
    pictures = sorted((ROOT / "docs" / "images").glob("*.png"))
    assert len(pictures) >= 2
    for picture in pictures:
        assert picture.stat().st_size < 150_000, picture.name
