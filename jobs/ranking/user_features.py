"""What is known of a user beside their history: the locale and the free attributes, one by one and combined.

A combination is a text such as `{"country": "DE", "locale": "de-DE"}`, keys in byte order; `{}` is a user of whom
nothing is known that others share.
"""

import json
from collections.abc import Collection
from typing import Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from scipy import sparse

from jobs.ranking.feature_matrix import Features

NOTHING_KNOWN: Final = "{}"
_MAX_VALUES: Final = 100  # different values of a key; more are numbers, dates or free text, not groups of people

Feature = tuple[str, str]


def user_columns(users: pa.Table) -> dict[str, pa.StringArray]:
    """Lay out what is known of each user, one column a key, in byte order of the keys."""
    columns = {"locale": users["locale"].combine_chunks()}
    properties = users["properties"]
    keys: set[str] = set()
    for chunk in properties.chunks:
        keys.update(pc.unique(chunk.keys).to_pylist())
    for key in keys - {"locale"}:
        found = [pc.map_lookup(chunk, query_key=key, occurrence="first") for chunk in properties.chunks]
        columns[key] = pa.chunked_array(found, pa.string()).combine_chunks()
    return {key: columns[key] for key in sorted(columns)}


def shared_features(users: pa.Table, *, min_users: int) -> list[Feature]:
    """Name the keys and values that at least so many users share."""
    shared: list[Feature] = []
    for key, column in user_columns(users).items():
        counts = pc.value_counts(column.drop_null())
        values, users_of = counts.field(0), counts.field(1).to_numpy()
        kept = values.filter(pa.array(users_of >= min_users)).to_pylist()
        if len(values) <= _MAX_VALUES:
            shared.extend((key, value) for value in sorted(kept))
    return shared


def combinations(users: pa.Table, known: Collection[Feature]) -> pa.StringArray:
    """Write down each user's combination of the features that are known."""
    columns = user_columns(users)
    names: list[list[Feature]] = []
    codes = [np.empty((len(users), 0), np.int64)]
    for key, column in columns.items():
        values = sorted(value for known_key, value in known if known_key == key)
        if values:
            code = pc.fill_null(pc.index_in(column, value_set=pa.array(values, pa.string())), -1)
            codes.append(code.to_numpy().astype(np.int64)[:, None])
            names.append([(key, value) for value in values])
    table = np.concatenate(codes, axis=1)
    distinct, place = np.unique(table, axis=0, return_inverse=True)
    texts = [
        json.dumps(dict(names[n][code] for n, code in enumerate(row) if code >= 0), ensure_ascii=False, sort_keys=True)
        for row in distinct.tolist()
    ]
    return pa.array(texts, pa.string()).take(pa.array(place.reshape(-1)))


def features_in(texts: Collection[str]) -> list[Feature]:
    """Name every feature that stands in some combinations, in order."""
    return sorted({feature for text in texts for feature in json.loads(text).items()})


def combination_matrix(texts: pa.StringArray, known: list[Feature]) -> Features:
    """Lay combinations out as rows of features, each weighing 1.

    Shapes: (combinations, known features).
    """
    place = {feature: number for number, feature in enumerate(known)}
    encoded = texts.dictionary_encode()
    lists = [[place[f] for f in json.loads(text).items() if f in place] for text in encoded.dictionary.to_pylist()]
    counts = np.array([len(columns) for columns in lists], np.int32)
    indices = np.array([column for columns in lists for column in columns], np.int32)
    indptr = np.concatenate(([0], np.cumsum(counts))).astype(np.int32)
    distinct = sparse.csr_array((np.ones(len(indices), np.float32), indices, indptr), shape=(len(lists), len(known)))
    rows: npt.NDArray[np.int32] = encoded.indices.to_numpy()
    names = pa.array([json.dumps([key, value], ensure_ascii=False) for key, value in known], pa.string())
    return Features(names, distinct[rows])
