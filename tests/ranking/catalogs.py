"""Small catalogs and shops for tests of what speaks for items and users without history."""

import decimal

import numpy as np
import pyarrow as pa
from scipy import sparse

from schemas.tables import CATALOG, USERS


def catalog_of(rows):
    """A catalog from dicts; what is not given is the same for all items."""
    every = {
        "url": "https://a.example/",
        "image_url": "https://a.example/",
        "price": "10",
        "currency": "EUR",
        "stock": 1,
    }
    whole = [{**every, "title": row["item_id"], **row} for row in rows]
    for row in whole:
        row["price"] = decimal.Decimal(row["price"])
        row["properties"] = list(row["properties"].items()) if row.get("properties") else None
    return pa.Table.from_pylist(whole, schema=CATALOG.schema)


def users_of(rows):
    """A users table from (locale, properties) pairs."""
    return pa.Table.from_pylist(
        [
            {"user_id": f"u{n}", "is_subscribed": True, "locale": locale, "properties": list(properties.items())}
            for n, (locale, properties) in enumerate(rows)
        ],
        schema=USERS.schema,
    )


KINDS = 6
ITEMS_A_KIND = 20


def kinds_of_goods():
    """A catalog of six kinds: items of a kind share category, brand, word and color; the last of each is new."""
    return catalog_of(
        [
            {
                "item_id": f"{kind}-{n}",
                "title": f"kind{kind} word{n % 4} nr{n}",
                "category": f"Top{kind % 2} > Kind{kind}",
                "brand": f"brand{kind}",
                "properties": {"color": f"color{(kind + n) % 5}"},
            }
            for kind in range(KINDS)
            for n in range(ITEMS_A_KIND)
        ]
    )


def tastes(users=300, seed=1, of_user=None):
    """Interactions of users who each like one kind; the last item of every kind has none."""
    random = np.random.default_rng(seed)
    kind = np.arange(users) % KINDS if of_user is None else of_user
    rows = np.repeat(np.arange(users), 6)
    within = random.integers(0, ITEMS_A_KIND - 1, len(rows))
    columns = kind[rows] * ITEMS_A_KIND + within
    matrix = sparse.coo_array(
        (np.ones(len(rows), np.float32), (rows, columns)), shape=(users, KINDS * ITEMS_A_KIND)
    ).tocsr()
    matrix.data[:] = 1
    return matrix
