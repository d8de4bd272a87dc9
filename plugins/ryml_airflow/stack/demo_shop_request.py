"""Which demo shop a run needs, and whether it is there already.

The shop's days are a function of seed, users and first date, so one that reaches further than asked serves as well.
"""

import json
import sys
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path

from ryml_airflow.stack.run_settings import SHOP_SEED, RunSettings


@dataclass(frozen=True)
class ShopRequest:
    """What the shop generator is asked for; dates are the first and last day with events."""

    users: int
    first_date: str
    last_date: str
    seed: int
    image_base_url: str

    def is_met_by(self, other: "ShopRequest") -> bool:
        """Tell whether a shop made for the other request has every day of this one, the same way."""
        return self.last_date <= other.last_date and self.alike(other)

    def alike(self, other: "ShopRequest") -> bool:
        """Tell whether both ask for the same shop up to its last day."""
        return (self.users, self.first_date, self.seed, self.image_base_url) == (
            other.users,
            other.first_date,
            other.seed,
            other.image_base_url,
        )


def missing_shop(settings: RunSettings) -> ShopRequest | None:
    """Say which shop has to be made for this run; None if the one that is there will do."""
    wanted = ShopRequest(
        users=settings.users,
        first_date=settings.shop_first_date.isoformat(),
        last_date=settings.dates[-1].isoformat(),
        seed=SHOP_SEED,
        image_base_url=f"{settings.rehearsal_url}/images",
    )
    made = _made(settings.work)
    if made is None or not Path(settings.data).exists():
        return wanted
    if wanted.is_met_by(made):
        return None
    # Days that were made stay, even if this run needs fewer: another run used them.
    last_date = max(date.fromisoformat(wanted.last_date), date.fromisoformat(made.last_date))
    return ShopRequest(**{**asdict(wanted), "last_date": last_date.isoformat()})


def make_command(request: ShopRequest, path: Path) -> list[str]:
    """Give the command that makes the shop."""
    return [
        *(sys.executable, "-m", "jobs.make_demo_shop"),
        *("--users", str(request.users)),
        *("--first-date", request.first_date),
        *("--last-date", request.last_date),
        *("--path", str(path)),
        *("--seed", str(request.seed)),
        *("--image-base-url", request.image_base_url),
    ]


def write_made(work: Path, request: ShopRequest) -> None:
    """Write down which shop is there, once it is complete."""
    draft = _stamp(work).with_suffix(".draft")
    draft.write_text(json.dumps(asdict(request), indent=1))
    draft.replace(_stamp(work))


def _stamp(work: Path) -> Path:
    return work / "shop.json"


def _made(work: Path) -> ShopRequest | None:
    try:
        return ShopRequest(**json.loads(_stamp(work).read_text()))
    except (OSError, ValueError, TypeError):
        return None
