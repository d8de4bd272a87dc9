"""E-mail addresses in delivery: one canonical form, and keyed hashes where the address itself must not stand."""

from typing import Final

import pyarrow as pa
import pyarrow.compute as pc

# Names of the ledger's secret keys. Different ones, so that a hash in a mail says nothing about one in the lake.
ADDRESS_KEY: Final = "address"
UID_KEY: Final = "uid"
LINK_KEY: Final = "link"  # of the tokens in links
MAIL_KEY: Final = "mail"  # of the tokens that name a run and a request in the events of Mail Send


def canonical_address(address: str) -> str:
    """Write an address the way the export does and the provider stores it: trimmed, lower case."""
    return address.strip().lower()


def canonical_addresses(addresses: pa.StringArray) -> pa.StringArray:
    """Do the same for many."""
    return pc.utf8_lower(pc.utf8_trim_whitespace(addresses))
