"""One form for every e-mail address, which addresses may be written to, and which of them are taken for one."""

import contextlib
import unicodedata
from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from jobs.quality.casts import Mask, as_mask, keep

MAX_ADDRESS_LENGTH: Final = 254  # RFC 5321, section 4.5.3.1.3: a path of 256 less its two angle brackets

# ASCII only, the domain too: providers fold letters in ways of their own (the Kelvin sign becomes k), and two people
# must never become one. Domains in other scripts have an ASCII form (xn--…), which is taken. No quoted local parts.
_ADDRESS: Final = (
    r"^[a-z0-9!#$%&'*+/=?^_`{|}~-]+(\.[a-z0-9!#$%&'*+/=?^_`{|}~-]+)*"
    r"@([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"
)
_LONG_LOCAL_PART: Final = r"^[^@]{65}"  # RFC 5321, section 4.5.3.1.1: 64


def canonical(addresses: pa.Array) -> pa.Array:
    """Take surrounding white space off and lower the case of ASCII letters; nothing left is null."""
    trimmed = pc.ascii_lower(pc.ascii_trim_whitespace(addresses))
    return pc.if_else(pc.equal(pc.binary_length(trimmed), 0), pa.scalar(None, pa.string()), trimmed)


def is_address(addresses: pa.Array) -> Mask:
    """Tell which canonical texts are addresses that mail can go to; null is none."""
    shaped = as_mask(pc.match_substring_regex(addresses, _ADDRESS))
    shaped &= ~as_mask(pc.match_substring_regex(addresses, _LONG_LOCAL_PART))
    return shaped & as_mask(pc.less_equal(pc.binary_length(addresses), MAX_ADDRESS_LENGTH))


def collision_key(addresses: pa.Array, bad: Mask) -> pa.Array:
    """Give what canonical addresses are compared by, to find those that a provider might take for one.

    Mail goes to ASCII addresses alone, each its own key. An address with other letters gets none, but it may be the
    twin of one that does: providers and shops fold letters in ways of their own (the Kelvin sign becomes k), and
    password resets have been sent to the wrong of two such people. Which one is meant cannot be known, so the twins
    share a key: compatibility forms, case and dots folded, the domain as its `xn--` form. Null: compared with nobody.
    """
    keys = keep(addresses, ~bad)
    foreign = bad & ~as_mask(pc.string_is_ascii(addresses)) & as_mask(pc.match_substring(addresses, "@"))
    if not foreign.any():
        return keys
    folded = pa.array([_folded(address) for address in addresses.filter(pa.array(foreign)).to_pylist()], pa.string())
    return pc.replace_with_mask(keys, pa.array(foreign), folded)


def _folded(address: str) -> str:
    local, _, domain = address.rpartition("@")
    with contextlib.suppress(UnicodeError):  # too long or malformed: then no provider takes it for another one
        domain = domain.encode("idna").decode()
    return f"{_without_forms(local)}@{_without_forms(domain)}"


def _without_forms(word: str) -> str:
    # Capitals first: they join the dotless i, the long s and the sharp s with those that look like them.
    capitals = unicodedata.normalize("NFKC", word).upper()
    return unicodedata.normalize("NFKC", capitals.casefold()).replace("i\u0307", "i")
