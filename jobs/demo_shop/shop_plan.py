"""How large the shop is on which day. Days are numbered from 1970-01-01, in UTC."""

import datetime as dt
from dataclasses import dataclass
from typing import Final

from schemas.errors import ConfigError

EPOCH: Final = dt.date(1970, 1, 1)
DAY_US: Final = 86_400_000_000
HOUR_US: Final = 3_600_000_000
MINUTE_US: Final = 60_000_000
SECOND_US: Final = 1_000_000

# Users are made in blocks of this size, each with its own random numbers: the unit of memory and of parallel work. Part
# of the model: another size is another shop.
BLOCK: Final = 131_072

NEW_USERS_SHARE: Final = 0.001  # per day of the users on the first date: about 44 % a year, a shop that does well
NEW_ITEMS_SHARE: Final = 0.005  # per day of the items on the first date
USERS_PER_ITEM: Final = 5
ITEMS_FLOOR: Final = 600  # ten items for each of about sixty leaf categories
ITEMS_CAP: Final = 200_000

COLLECTOR_STRIDE: Final = 100  # one user in a hundred collects; the demonstration needs 0.5 to 1 %
COLLECTION_SIZE: Final = 10
COLLECTORS_PER_COLLECTION: Final = 16  # enough for two neighbours in a collection to share several collectors
COLLECTIONS_FLOOR: Final = 3  # one for each day of the sell-out cycle
ITEMS_PER_COLLECTION: Final = 250  # at least so many items of the catalog for each collection: 4 % are collectibles
USERS_FLOOR: Final = 100  # below, collections have no collectors


def day_number(date: dt.date) -> int:
    """Count the days from 1970-01-01."""
    return (date - EPOCH).days


def day_date(day: int) -> dt.date:
    """Turn a day number into the date."""
    return EPOCH + dt.timedelta(days=day)


@dataclass(frozen=True)
class Shop:
    """One shop: what it is made from, and the sizes that follow.

    `users` and `items` are how many there are on the evening of the first date; both grow by a fixed number a day.
    """

    seed: int
    users: int
    first_date: dt.date
    items: int

    @classmethod
    def plan(cls, *, seed: int, users: int, first_date: dt.date, items: int | None = None) -> "Shop":
        """Check the arguments, and size the catalog by the users unless its size is given.

        Raises: ConfigError for a size or seed that no shop can have; all problems at once.
        """
        sized = min(max(users // USERS_PER_ITEM, ITEMS_FLOOR), ITEMS_CAP) if items is None else items
        problems = []
        if seed < 0:
            problems.append(f"seed is {seed}, expected 0 or more")
        if users < USERS_FLOOR:
            problems.append(f"users is {users}, expected {USERS_FLOOR} or more")
        if sized < ITEMS_FLOOR:
            problems.append(f"items is {sized}, expected {ITEMS_FLOOR} or more")
        if problems:
            raise ConfigError(f"no such demo shop: {'; '.join(problems)}. Change the options.")
        return cls(seed=seed, users=users, first_date=first_date, items=sized)

    @property
    def first_day(self) -> int:
        """The first day's number."""
        return day_number(self.first_date)

    @property
    def new_users_per_day(self) -> int:
        """How many users join on each day after the first."""
        return max(1, round(self.users * NEW_USERS_SHARE))

    @property
    def new_items_per_day(self) -> int:
        """How many items are new on each day after the first."""
        return max(1, round(self.items * NEW_ITEMS_SHARE))

    @property
    def collector_stride(self) -> int:
        """Users whose number divided by this leaves 7 are collectors; small shops get at least about a dozen."""
        return min(COLLECTOR_STRIDE, max(8, self.users // 12))

    @property
    def collections(self) -> int:
        """How many collections there are; their items are the first of the catalog."""
        collectors = self.users // self.collector_stride
        wanted = min(collectors // COLLECTORS_PER_COLLECTION, self.items // ITEMS_PER_COLLECTION)
        return max(COLLECTIONS_FLOOR, wanted)

    def users_on(self, day: int) -> int:
        """How many users have joined by the end of the day."""
        return self.users + (day - self.first_day) * self.new_users_per_day

    def items_on(self, day: int) -> int:
        """How many items have been created by the end of the day."""
        return self.items + (day - self.first_day) * self.new_items_per_day

    def blocks_on(self, day: int) -> int:
        """How many blocks the users of the day fill."""
        return -(-self.users_on(day) // BLOCK)
