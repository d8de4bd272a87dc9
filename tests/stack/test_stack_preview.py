import datetime as dt
from pathlib import Path

import pytest

from ryml_airflow.stack import preview as preview_module
from ryml_airflow.stack.preview import CAMPAIGN, PreviewOptions, preview
from schemas.errors import ConfigError

ROOT = Path(__file__).resolve().parents[2]


def options(root: Path, source: Path, date: dt.date | None = None) -> PreviewOptions:
    return PreviewOptions(root=root, source=source, users=100, date=date, lake=None, user="42", out=root / "preview")


def source_file(folder: Path) -> Path:
    path = folder / "shop.toml"
    path.write_text("name = 'demo_shop'\n", "utf-8")
    return path


def test_nothing_built_is_one_paragraph_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"ledger.db: no such file; expected .* make run"):
        preview(options(tmp_path, source_file(tmp_path)))


@pytest.mark.parametrize("date", [None, dt.date(2026, 11, 9)])
def test_the_variables_of_make_run_find_its_lake(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, date: dt.date | None
) -> None:
    work = tmp_path / ".airflow/work/demo_shop-100"
    work.mkdir(parents=True)
    (work / "ledger.db").touch()
    asked = {}

    def main(**given: object) -> dict[str, object]:
        asked.update(given)
        return {"rows": 6, "html": "preview.html", "text": "preview.txt"}

    monkeypatch.setattr(preview_module.preview_mail, "main", main)
    assert preview(options(tmp_path, source_file(tmp_path), date)) == "6 items: preview.html and preview.txt"
    assert asked["lake"] == str(work / "lake")
    assert asked["ledger"] == f"sqlite:///{work / 'ledger.db'}"
    assert asked["date"] == (date or dt.date(2026, 11, 4))
    assert asked["user"] == "42"
    assert (ROOT / CAMPAIGN).exists()
