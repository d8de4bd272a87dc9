"""Campaign files: what is wrong is said at once, and campaigns that would get into each other's way are refused."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.campaign import MailSettings, clashes, load_campaign
from schemas.errors import ConfigError
from schemas.mail_fields import all_fields, own_field, own_fields

FOLDER = Path(__file__).resolve().parents[2] / "dags" / "campaigns"
LEAST = """
title = "A campaign"
[mail]
subject = "Hello"
suppression_group = "All"
"""


def campaign(tmp_path, text=LEAST, name="one"):
    path = tmp_path / f"{name}.toml"
    path.write_text(text, encoding="utf-8")
    return load_campaign(path)


def test_a_live_campaign_names_its_account(tmp_path):
    path = tmp_path / "one.toml"
    text = 'title = "One"\n[mail]\nsubject = "x"\nsuppression_group = "x"\nlive = true\n'
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=r"mail\.live is true and mail\.account_id is not given"):
        load_campaign(path)
    path.write_text(text + "account_id = 7\n", encoding="utf-8")
    assert load_campaign(path).mail.account_id == 7


def test_the_campaigns_that_ship_are_valid_and_fit_together():
    found = [load_campaign(path) for path in sorted(FOLDER.glob("*.toml"))]
    assert {one.name for one in found} >= {"resources_you_may_like", "back_in_stock"}
    assert {one.candidates.kind for one in found} == {"correlations", "back_in_stock"}
    assert not clashes(found)
    assert not any(one.mail.live for one in found)


def test_every_mistake_is_named_in_one_message(tmp_path):
    text = """
title = ""
slots = 99
colour = "red"
[mail]
subject = "Hello"
suppression_group = "All"
zone = "Mars/Olympus"
hour = 25
field_prefix = "Has Space"
[audience.segments]
any = [{ property = "tier" }, { property = "age", any_of = ["1"], at_least = 3 }]
[experiment]
holdout_share = 0.9
variants = { a = 0.5, b = 0.4 }
"""
    with pytest.raises(ConfigError) as caught:
        campaign(tmp_path, text)
    message = str(caught.value)
    assert str(tmp_path / "one.toml") in message
    expected = [
        "title", "slots", "colour", "mail.zone", "mail.hour", "mail.field_prefix", "audience.segments.any.0",
        "audience.segments.any.1", "experiment.holdout_share",
    ]  # fmt: skip
    for place in expected:
        assert f"{place}: " in message, place


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("[experiment]\nvariants = { a = 0.5, b = 0.4 }", "add up to 0.9; expected 1"),
        ("[experiment]\nvariants = { A = 1.0 }", "match pattern"),
        ("[[audience.segments.all]]\nproperty = 'age'\nat_least = 9\nat_most = 3", "at_least 9 is more than at_most 3"),
        ("[unknown]", "Extra inputs are not permitted"),
    ],
)
def test_what_does_not_fit_is_said(tmp_path, line, said):
    with pytest.raises(ConfigError, match=said):
        campaign(tmp_path, f"{LEAST}\n{line}\n")


@pytest.mark.parametrize("name", ["Has-Hyphen", "1st", "a.b", "x" * 61])
def test_a_file_is_named_as_its_dag_can_be(tmp_path, name):
    with pytest.raises(ConfigError, match="becomes DAG ids"):
        campaign(tmp_path, name=name)


def test_campaigns_with_the_same_fields_clash(tmp_path):
    one, two = campaign(tmp_path), campaign(tmp_path, name="two")
    other = campaign(tmp_path, f'{LEAST}field_prefix = "other"\n', name="three")
    found = clashes([other, two, one])
    assert set(found) == {"one", "two"}
    assert "share field_prefix 'ryml'" in found["one"]
    assert clashes([one, other]) == {}


PREFIXES = st.from_regex(r"\A[a-z][a-z0-9_]{0,29}\Z")


@given(PREFIXES, PREFIXES)
def test_no_field_belongs_to_two_prefixes(first, second):
    MailSettings(subject="x", suppression_group="y", field_prefix=first)
    names = {prefix: {own_field(name, prefix) for name in all_fields(30)} for prefix in (first, second)}
    assert len(names[first]) == len(all_fields(30)) == 5 + 30 * 4
    assert first == second or not names[first] & names[second]


def test_a_template_names_the_fields_of_its_campaign():
    text = (
        '{{#equals ryml_run "d"}}{{{ryml_1_title}}}{{ryml_12_url}} {{ryml_count}} my_ryml_run ryml_other ryml.example'
    )
    assert own_fields(text, "ryml_stock") == (
        '{{#equals ryml_stock_run "d"}}{{{ryml_stock_1_title}}}{{ryml_stock_12_url}} {{ryml_stock_count}} my_ryml_run '
        "ryml_other ryml.example"
    )
    assert own_fields(text, "ryml") == text
    for name in all_fields(30):  # a field that the template does not get the prefix of would be another campaign's
        assert own_fields("{{" + name + "}}", "other") == "{{" + own_field(name, "other") + "}}"


def test_mail_send_needs_a_sender_and_leaves_in_time(tmp_path):
    assert campaign(tmp_path).push.method == "contacts"
    method = LEAST + '[push]\nmethod = "mail_send"\n'
    sender = '[mail_send]\nfrom_email = "shop@example.com"\npostal_address = "1 Example Street"\n'
    with pytest.raises(ConfigError, match=r"mail_send\.from_email and mail_send\.postal_address not given"):
        campaign(tmp_path, method)
    with pytest.raises(ConfigError, match=r"deadline_minutes 240: .* leave 15 minutes after that"):
        campaign(tmp_path, method + sender)
    found = campaign(tmp_path, method + "deadline_minutes = 45\n" + sender)
    assert (found.push.method, found.mail_send.from_email) == ("mail_send", "shop@example.com")
    for wrong in ("größe@example.com", "shop", "a b@example.com"):
        with pytest.raises(ConfigError, match="from_email"):
            campaign(tmp_path, method + "deadline_minutes = 45\n" + sender.replace("shop@example.com", wrong))
    with pytest.raises(ConfigError, match="method"):
        campaign(tmp_path, LEAST + '[push]\nmethod = "post"\n')
    # It writes no contact fields, so that it is in no other campaign's way.
    assert clashes([campaign(tmp_path), campaign(tmp_path, name="two")])
    assert not clashes([found, campaign(tmp_path, name="two")])
