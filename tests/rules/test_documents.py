"""The documents say what is there: generated tables are current, and the tests, files and commands they name exist."""

import re
import runpy
import tomllib
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
    assert generator["campaign_keys"]() in (ROOT / "docs" / "campaigns.md").read_text(encoding="utf-8")
    for document in generator["DOCUMENTS"]:
        text = document.read_text(encoding="utf-8")
        assert generator["current"](text) == text, f"{document.name}: type: make docs"


def test_every_key_of_the_campaigns_that_ship_is_explained():
    """By the files, not by the classes: what somebody reads there has its row."""
    explained = {row[0] for row in runpy.run_path(str(ROOT / "docs" / "campaign_keys.py"))["keys"]()}
    assert len(explained) > 100
    used = set()
    for path in (ROOT / "dags" / "campaigns").glob("*.toml"):
        for section, value in tomllib.loads(path.read_text(encoding="utf-8")).items():
            used |= {f"{section}.{key}" for key in value} if isinstance(value, dict) else {section}
    assert len(used) > 30
    # Whole sections, such as the segments, stand as their keys.
    assert {key for key in used if not any(row == key or row.startswith(f"{key}.") for row in explained)} == set()


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
