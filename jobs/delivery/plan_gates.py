"""Hold a plan against what was sent before, before the first contact is touched."""

import statistics
from collections.abc import Mapping, Sequence

from schemas.delivery_gates import DeliveryGates

SENDS_COMPARED = 7
_LEAST_SENDS = 3


def strange_in_plan(
    counts: Mapping[str, int], *, holders: int, recipients_before: Sequence[int], gates: DeliveryGates
) -> list[str]:
    """Say everything that is outside its band; nothing if all is as usual.

    `holders` are the users whose contacts are known to hold items; `recipients_before` those of the last sends.
    """
    found, cleared = [], counts["clear"]
    if holders and cleared > max(gates.cleared_users_free, gates.cleared_share_max * holders):
        found.append(
            f"{cleared} of {holders} users who hold items would be cleared ({cleared / holders:.0%}, limit "
            f"{gates.cleared_share_max:.0%})"
        )
    if len(recipients_before) >= _LEAST_SENDS:
        usual = statistics.median(recipients_before)
        if not gates.audience_least * usual <= counts["upsert"] <= gates.audience_most * usual:
            found.append(
                f"{counts['upsert']} users would be mailed, {usual:.0f} usually were; expected "
                f"{gates.audience_least:g} to {gates.audience_most:g} times as many"
            )
    return found
