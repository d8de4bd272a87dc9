import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.quality.email_addresses import canonical, is_address


def usable(address: str) -> bool:
    return bool(is_address(canonical(pa.array([address])))[0])


@pytest.mark.parametrize(
    "address",
    ["a@example.com", " A.B+tag@Example.COM\r\n", "o'hara@mail.example.com", "x" * 64 + "@example.com",
     "a@xn--bcher-kva.example.com", "1@2.example.com"],
)  # fmt: skip
def test_addresses_that_mail_goes_to(address):
    assert usable(address)


@pytest.mark.parametrize(
    "address",
    ["", "a", "@example.com", "a@", "a@b@example.com", "a b@example.com", "a@exa mple.com",
     "a@example.com\r\nBcc: b@example.com",
     "a@example", "a@.example.com", "a@example.com.", "a@-a.example.com", ".a@example.com", "a.@example.com",
     "a..b@example.com",
     "\u212aelvin@example.com", "ü@example.com", "a@büch.example.com", '"a"@example.com', "a(b)@example.com",
     "<script>@example.com", "a,b@example.com", "x" * 65 + "@example.com", "a@" + "b." * 126 + "com", "a@[127.0.0.1]",
     "a\u0000@example.com", "a\u200b@example.com", "=HYPERLINK(1)@example.com"],
)  # fmt: skip
def test_addresses_that_it_does_not_go_to(address):
    assert not usable(address)


def test_null_and_blank_are_no_address_at_all():
    assert canonical(pa.array([None, "", " \t"])).to_pylist() == [None] * 3


@given(st.text(max_size=30) | st.from_regex(r"[a-zA-Z0-9.@ +-]{1,30}", fullmatch=True))
def test_the_canonical_form_is_one_line_of_lower_case_ascii_and_stays_so(address):
    form = canonical(pa.array([address]))
    assert canonical(form).equals(form)
    if is_address(form)[0]:
        word = form[0].as_py()
        assert word.isascii()
        assert word == word.lower().strip()
        assert word.isprintable()
        assert word.count("@") == 1
        assert len(word) <= 254
