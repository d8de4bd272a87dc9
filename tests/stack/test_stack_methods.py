"""A night by another method: the copies of the campaigns, and the mails that wait for their time."""

import datetime as dt
import shutil
from pathlib import Path

import pytest
from rehearsal_fixture import RehearsalServer

from jobs.rehearsal.mail_counts import mail_counts
from ryml_airflow.stack.__main__ import arg_parser
from ryml_airflow.stack.campaign_files import write_campaigns
from ryml_airflow.stack.environment import component_environment
from ryml_airflow.stack.run_settings import RunSettings, Source
from ryml_airflow.stack.waiting_mails import counted_when_left
from schemas.campaign import load_campaign
from schemas.errors import ConfigError

SHIPPED = Path(__file__).resolve().parents[2] / "dags" / "campaigns"
SMALL = 'title = "Small"\n[mail]\nsubject = "Hi"\nsuppression_group = "Small"\n'


@pytest.mark.parametrize("method", ["csv_import", "mail_send", "contacts"])
def test_copies_differ_from_the_campaigns_in_the_push_alone(tmp_path: Path, method: str) -> None:
    source, folder = tmp_path / "source", tmp_path / "copies"
    shutil.copytree(SHIPPED, source)
    (source / "small.toml").write_text(SMALL)  # without a table [push]
    (source / "other.toml").write_text(f'{SMALL}[push] # pace\nmethod = "csv_import" # once\nrequests_per_second = 9\n')
    (source / "broken.toml").write_text("title = ")
    folder.mkdir()
    (folder / "gone.toml").touch()
    write_campaigns(source, folder, method)  # type: ignore[arg-type]
    copies = sorted(path.name for path in folder.iterdir())
    assert copies == sorted(path.name for path in source.iterdir())
    assert len(copies) == 5
    assert (folder / "broken.toml").read_text() == "title = "
    for name in set(copies) - {"broken.toml"}:
        before, after = (load_campaign(place / name) for place in (source, folder))
        assert after.push.method == method
        changed = {"push": after.push, "mail_send": after.mail_send}
        assert after == before.model_copy(update=changed)
        settings = {"method": method}
        if method == "mail_send":
            settings |= {"deadline_minutes": 45}
            assert after.mail_send.postal_address
        assert after.push == before.push.model_copy(update=settings)
        assert (folder / name).read_text().count("method = ") == (name == "other.toml" or method != "contacts")


def test_a_file_that_says_it_in_another_way_is_no_silent_copy(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "small.toml").write_text(f"push = {{ requests_per_second = 2.0 }}\n{SMALL}")
    with pytest.raises(ConfigError, match=r"copies/small\.toml"):
        write_campaigns(source, tmp_path / "copies", "mail_send")


def settings(root: Path, **more: object) -> RunSettings:
    source = Source(root / "shop.toml", "demo_shop", None, None)
    day = dt.date(2026, 11, 4)
    return RunSettings(root, source, 100, (day,), "", 1, 2, leaves_after_batch=True, **more)  # type: ignore[arg-type]


def test_a_night_by_another_method_has_a_folder_and_campaigns_of_its_own(tmp_path: Path) -> None:
    plain, other, bad = (
        settings(tmp_path, **more) for more in ({}, {"method": "mail_send"}, {"method": "csv_import", "fault_seed": 3})
    )
    assert plain.campaigns == tmp_path / "dags/campaigns"
    assert other.work == tmp_path / ".airflow/work/demo_shop-100-by-mail_send"
    assert bad.work == tmp_path / ".airflow/work/demo_shop-100-by-csv_import-faults-3"
    for one in (plain, other, bad):
        given = component_environment(one, rehearsal_key="key", inherited={"AIRFLOW__RYML__CAMPAIGNS": "/elsewhere"})
        assert given["AIRFLOW__RYML__CAMPAIGNS"] == str(one.campaigns)
    assert other.campaigns == other.work / "campaigns"


def test_the_command_takes_the_three_methods_and_nothing_else(capsys: pytest.CaptureFixture[str]) -> None:
    parser = arg_parser()
    given = [parser.parse_args(["up", "--method", text]).method for text in ("", "contacts", "csv_import", "mail_send")]
    assert given == [None, "contacts", "csv_import", "mail_send"]
    with pytest.raises(SystemExit):
        parser.parse_args(["up", "--method", "csv"])
    assert "'csv' given; expected one of contacts, csv_import, mail_send" in capsys.readouterr().err


def hand_over(server: RehearsalServer, batch: str, send_at: dt.datetime, *people: str) -> None:
    body = {
        "from": {"email": "shop@example.com"}, "subject": "x", "content": [{"type": "text/plain", "value": "x"}],
        "batch_id": batch, "send_at": int(send_at.timestamp()),
        "personalizations": [{"to": [{"email": f"{name}@example.com"}]} for name in people],
    }  # fmt: skip
    with server.http() as api:
        assert api.post("/v3/mail/send", json=body).status_code == 202


def test_mails_that_wait_leave_and_the_clock_is_put_back(rehearsal_server: RehearsalServer) -> None:
    send_at = dt.datetime.now(dt.UTC).replace(microsecond=0) + dt.timedelta(hours=1)
    with rehearsal_server.http() as api:
        batches = [api.post("/v3/mail/batch").json()["batch_id"] for _ in range(3)]
        held = api.post("/v3/user/scheduled_sends", json={"batch_id": batches[2], "status": "pause"})
        assert held.status_code == 201
    hand_over(rehearsal_server, batches[0], send_at, "ann", "bob")
    hand_over(rehearsal_server, batches[1], send_at, "ann")
    hand_over(rehearsal_server, batches[2], send_at, "cem")  # of a run that nobody released
    state = rehearsal_server.state_path
    assert mail_counts(state).waiting == 2

    def leave(at: dt.datetime | None) -> tuple[int, int, int]:
        counts = counted_when_left(
            url=rehearsal_server.host, key=rehearsal_server.api_key, state=state, leave_at=at,
            pause=lambda seconds: rehearsal_server.wait_until_idle(),
        )  # fmt: skip
        return counts.mails, counts.twice, counts.waiting

    assert leave(send_at) == (3, 0, 0)  # two batches are two sends: ann has one mail of each
    assert abs(rehearsal_server.provider.clock() - dt.datetime.now(dt.UTC)) < dt.timedelta(minutes=1)
    hand_over(rehearsal_server, batches[0], send_at, "bob")
    assert leave(send_at) == (4, 1, 0)
