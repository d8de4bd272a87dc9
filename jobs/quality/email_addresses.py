"""One form for every e-mail address, and which addresses may be written to at all."""

from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

from jobs.quality.casts import Mask, as_mask

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
