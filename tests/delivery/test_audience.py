"""Who may be mailed, who is held out, who gets which variant: properties of the hash, and conditions by an oracle."""

import numpy as np
import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from jobs.delivery.addresses import canonical_address, canonical_addresses
from jobs.delivery.audience import is_held_out, is_in_segments, is_of_locale, variants
from schemas.audience import AudienceSettings, ExperimentSettings, SegmentSettings, UserCondition
from schemas.tables import USERS

ADDRESSES = pa.array([f"user{number}@example.com" for number in range(20_000)])
SHARES = {"plain": 0.25, "pictures": 0.5, "short": 0.25}


def held_out(share, family="ryml", addresses=ADDRESSES):
    return is_held_out(addresses, ExperimentSettings(family=family, holdout_share=share))


def test_the_holdout_is_as_large_as_asked_and_grows_without_letting_anybody_go():
    before = held_out(0.0)
    assert not before.any()
    for share in (0.01, 0.05, 0.2, 0.5):
        now = held_out(share)
        # 5 standard deviations of a binomial: a fair hash of 20,000 misses that once in a million.
        assert abs(now.mean() - share) < 5 * np.sqrt(share * (1 - share) / len(ADDRESSES))
        assert (now >= before).all()
        before = now


people = st.text("abcxyz019.+-_", min_size=1, max_size=20).map("{}@example.com".format)


@settings(max_examples=100, deadline=None)
@given(
    st.lists(people, min_size=1, max_size=6),
    st.sampled_from([" {}", "{}\t", " {} "]),
    st.randoms(),
)
def test_two_accounts_of_one_address_never_split(addresses, dressed, random):
    """However the address is written, whoever is beside it in the batch, and in whatever order."""
    experiment = ExperimentSettings(holdout_share=0.5, variants=SHARES)
    written = [dressed.format("".join(random.choice([c.upper(), c.lower()]) for c in one)) for one in addresses]
    both = pa.array(addresses + written)
    for group in (is_held_out(both, experiment), variants(both, experiment)):
        first, second = np.split(group, 2)
        assert (first == second).all()
        one_by_one = [
            is_held_out(pa.array([one]), experiment)[0]
            if group.dtype == bool
            else variants(pa.array([one]), experiment)[0]
            for one in addresses
        ]
        assert one_by_one == first.tolist()
    assert canonical_addresses(pa.array(written)).to_pylist() == [canonical_address(one) for one in written]


def test_nobody_ever_changes_sides():
    """Pinned: a changed key or hash would mail those who were held out for a year."""
    chosen = held_out(0.3, addresses=ADDRESSES[:24])
    assert "".join("x" if one else "." for one in chosen) == "x.....xxxx...x...x.x...."
    experiment = ExperimentSettings(variants=SHARES)
    assert [name[:2] for name in variants(ADDRESSES[:12], experiment)] == [
        "pl",
        "pi",
        "pl",
        "pi",
        "sh",
        "pi",
        "sh",
        "pl",
        "sh",
        "pi",
        "pl",
        "pl",
    ]


def test_families_hold_out_different_people_and_variants_are_a_draw_of_their_own():
    one, other = held_out(0.5), held_out(0.5, family="other")
    names = variants(ADDRESSES, ExperimentSettings(holdout_share=0.5, variants=SHARES))
    bound = 5 * 0.5 / np.sqrt(len(ADDRESSES))
    assert abs((one == other).mean() - 0.5) < bound
    for name, share in SHARES.items():
        assert abs((names == name).mean() - share) < bound
        assert abs(one[names == name].mean() - 0.5) < 5 * 0.5 / np.sqrt((names == name).sum())
    assert set(variants(ADDRESSES, ExperimentSettings())) == {""}


def users(rows):
    full = [{"user_id": str(number), "is_subscribed": True, **row} for number, row in enumerate(rows)]
    return pa.Table.from_pylist(full, schema=USERS.schema)


def test_locales_take_their_regions_and_nothing_else():
    found = ["de", "de-AT", "de_CH", "DE-de", "den", "en-GB", "en-US", "en", None, ""]
    table = users([{"locale": locale} for locale in found])
    assert is_of_locale(table, AudienceSettings(locales=("de", "en-GB"))).tolist() == [True] * 4 + [
        False, True, False, False, False, False,
    ]  # fmt: skip
    assert is_of_locale(table, AudienceSettings()).all()


NAMES = ["country", "age"]
VALUES = ["DE", "AT", "3", "4.5", "-7", "1e3", "", "4,5", " 4"]
properties = st.none() | st.dictionaries(st.sampled_from(NAMES), st.sampled_from(VALUES))
limits = st.none() | st.sampled_from([-10.0, 3.0, 4.5, 10.0])


@st.composite
def conditions(draw):
    name = draw(st.sampled_from(NAMES))
    if draw(st.booleans()):
        return UserCondition(property=name, any_of=tuple(draw(st.lists(st.sampled_from(VALUES), min_size=1))))
    low, high = draw(limits), draw(limits)
    if (low is None and high is None) or (low is not None and high is not None and low > high):
        low, high = 3.0, None
    return UserCondition(property=name, at_least=low, at_most=high)


lists_of_conditions = st.lists(conditions(), max_size=3).map(tuple)


def meets(found, condition):
    """The oracle: one user, one condition, in plain Python."""
    value = (found or {}).get(condition.property)
    if value is None:
        return False
    if condition.any_of:
        return value in condition.any_of
    if value not in ("3", "4.5", "-7"):
        return False
    low = -1e9 if condition.at_least is None else condition.at_least
    high = 1e9 if condition.at_most is None else condition.at_most
    return low <= float(value) <= high


@settings(max_examples=150, deadline=None)
@given(st.lists(properties, max_size=12), lists_of_conditions, lists_of_conditions, lists_of_conditions)
def test_segments_equal_a_plain_oracle(found, every, some, none):
    settings_ = SegmentSettings(all=every, any=some, none=none)
    expected = [
        all(meets(one, condition) for condition in every)
        and (not some or any(meets(one, condition) for condition in some))
        and not any(meets(one, condition) for condition in none)
        for one in found
    ]
    assert (
        is_in_segments(users([{"properties": one and list(one.items())} for one in found]), settings_).tolist()
        == expected
    )
