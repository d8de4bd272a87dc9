"""Train the hybrid model: from what items and users are, what goes together and what suits whom.

It speaks where there is no history: for new items, whose neighbours it gives, and for new users, for whom it has a
list per combination of what is known of them. Where it diverges or its tables are refused, the last good model stays,
and the answer says so; the night goes on with it for 14 days.

Reads:  profiles, catalog and users of the date, item_index, the campaign's [hybrid] and [training] settings
Writes: hybrid_features (the model), hybrid_items (vectors) and hybrid_users (lists) of the campaign and date
Run:    python -m jobs.train_hybrid --lake LAKE --date 2026-11-02 --run-id by-hand \
            --campaign dags/campaigns/resources_you_may_like.toml
"""

import argparse
import datetime as dt
import functools
import logging
import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from scipy import sparse

from jobs.backtest.split import micros
from jobs.command_line import job_parser, run
from jobs.lake.item_index import read_index, to_items
from jobs.lake.lake import Lake
from jobs.lake.list_columns import flat
from jobs.lake.manifest import Manifest, Window
from jobs.lake.summary import summarise
from jobs.quality.checked_publish import publish_checked
from jobs.quality.figures import observe
from jobs.quality.override import GateOverride
from jobs.ranking.feature_matrix import Features
from jobs.ranking.hybrid import HybridModel, fit
from jobs.ranking.hybrid_sample import Sample, read_sample
from jobs.ranking.hybrid_tables import feature_rows, item_rows, vectors_of_wrong_length
from jobs.ranking.interactions import DAY, Interest
from jobs.ranking.item_features import item_features
from jobs.ranking.item_vectors import whole_vectors
from jobs.ranking.pairs_told_apart import pairs_told_apart
from jobs.ranking.starter_items import most_common, starter_items
from jobs.ranking.trending import UNIT
from jobs.ranking.user_features import Feature, combination_matrix, combinations, shared_features
from schemas.campaign import Campaign, load_campaign
from schemas.contracts import CONTRACTS, CORRELATIONS_MAX_AGE_DAYS
from schemas.errors import EmptyPartitionError, GateError
from schemas.layout import Partition
from schemas.tables import HYBRID_FEATURES, HYBRID_ITEMS, HYBRID_USERS

STATUS = "status"
_TABLES = (HYBRID_FEATURES.name, HYBRID_ITEMS.name, HYBRID_USERS.name)

_ROWS_MADE_ONCE_MORE = 50

log = logging.getLogger(__name__)


def arg_parser() -> argparse.ArgumentParser:
    """Describe the options."""
    return job_parser(__doc__, campaign=True)


def main(
    *, lake: str, date: dt.date, run_id: str, campaign: Path, override: GateOverride | None = None
) -> dict[str, Any]:
    """Publish the date's model, vectors and lists; return what the night goes on with.

    Raises: EmptyPartitionError if no interaction is with an item that has a feature; GateError if the training
    diverged or a table is refused, and there is no last good model.
    """
    opened, settings = Lake.open(lake), load_campaign(campaign)
    inputs = [opened.manifest(Partition(table, date)) for table in ("profiles", "catalog", "users")]
    parameters: dict[str, object] = {
        "hybrid": settings.hybrid.model_parameters(),
        "training": settings.training.table_parameters(),
        "trending": settings.trending.model_dump(mode="json"),
    }
    made = [opened.find(Partition(table, date, settings.name)) for table in _TABLES]
    done = opened.reusable(Partition(_TABLES[0], date, settings.name), inputs=inputs, parameters=parameters)
    if done and all(made) and _belong_together([manifest for manifest in made if manifest]):
        return {**summarise(done), STATUS: "trained"}
    try:
        published = _Training(opened, settings, date, run_id, inputs, parameters, override).train()
    except GateError as error:
        kept = last_good(opened, settings.name, date)
        if kept is None:
            raise
        log.warning("%s. The hybrid model of %s stays", error, kept.partition.date)
        return {**summarise(kept), STATUS: f"kept that of {kept.partition.date}: refused", "why": str(error)}
    return {**summarise(published), STATUS: "trained"}


def last_good(lake: Lake, campaign: str, date: dt.date) -> Manifest | None:
    """Return the newest item vectors of a date or the 14 days before it."""
    return lake.latest(HYBRID_ITEMS.name, up_to=date, campaign=campaign, days=CORRELATIONS_MAX_AGE_DAYS)


def _belong_together(made: list[Manifest]) -> bool:
    """Tell whether vectors and lists were made from the very model that is there now."""
    features, *others = made
    return all(other.inputs.get(str(features.partition)) == features.content_sha256 for other in others)


class _Training:
    """One training of one date, from reading to publishing."""

    def __init__(
        self,
        lake: Lake,
        settings: Campaign,
        date: dt.date,
        run_id: str,
        inputs: list[Manifest],
        parameters: dict[str, object],
        override: GateOverride | None,
    ) -> None:
        self._lake, self._settings, self._date, self._run_id = lake, settings, date, run_id
        self._inputs, self._parameters, self._override = inputs, parameters, override

    def train(self) -> Manifest:
        """Train, and publish the three tables, the model first."""
        hybrid, index = self._settings.hybrid, read_index(self._lake)
        profiles, catalog_manifest, users = self._inputs
        catalog = self._lake.read(catalog_manifest)
        found = item_features(catalog, min_items=hybrid.min_items, max_features=hybrid.max_features)
        described = np.flatnonzero(np.diff(found.matrix.indptr))
        item = to_items(index, catalog["item_id"]).to_numpy()[described].astype(np.int64)
        features = Features(found.names, found.matrix[described])
        sample = read_sample(
            self._lake, profiles, users, interest=self._interest(), trending=self._settings.trending, items=len(index),
            limit=hybrid.max_interactions,
        )  # fmt: skip
        interactions = sparse.csr_array(sample.interactions[:, item])
        if interactions.nnz == 0:
            raise EmptyPartitionError(
                f"nobody showed interest in one of the {len(item):,} items of the catalog of {self._date} that share a "
                "feature with another; check that catalog and events name items by the same ids, and that the catalog "
                "has titles, categories or brands"
            )
        known = shared_features(sample.users, min_users=hybrid.min_users)
        texts = combinations(sample.users, known)
        user_matrix = combination_matrix(texts, known)
        model = fit(interactions, features.matrix, user_matrix.matrix, hybrid)
        published = self._publish_model(model, features, user_matrix, sample)
        self._publish_items(published, model, features, item, interactions)
        self._publish_users(published, model, features, item, sample.demand[item], known, texts)
        return published

    def _interest(self) -> Interest:
        until, training = micros(Window.of_days(self._date, self._date).end_at), self._settings.training
        return Interest.of(training, since=until - training.max_window_days * DAY, until=until)

    def _publish_model(self, model: HybridModel, items: Features, users: Features, sample: Sample) -> Manifest:
        rows = feature_rows(model, items.names, users.names)
        numbers = np.concatenate([flat(rows["vector"]), rows["bias"].to_numpy()])
        return self._publish_table(
            HYBRID_FEATURES.name,
            rows,
            self._inputs,
            metrics={"interactions": int(sample.interactions.nnz), "users": int(sample.interactions.shape[0])},
            figures={
                "vectors_of_wrong_length": vectors_of_wrong_length(rows, self._settings.hybrid.components),
                "largest_number": float(np.abs(numbers).max()),
            },
        )

    def _publish_items(
        self,
        published: Manifest,
        model: HybridModel,
        features: Features,
        item: npt.NDArray[np.int64],
        interactions: sparse.csr_array,
    ) -> None:
        vectors = whole_vectors(features.matrix @ model.item_vectors)
        rows, size = item_rows(item, vectors), len(read_index(self._lake))
        told_apart = pairs_told_apart(interactions, vectors)
        figures = {
            "items_not_in_index": int((item >= size).sum()),
            "vectors_of_wrong_length": vectors_of_wrong_length(rows, self._settings.hybrid.components),
            **self._made_once_more(rows, model, features, item),
            **({} if told_apart is None else {"pairs_told_apart": told_apart}),
        }
        self._publish_table(
            HYBRID_ITEMS.name,
            rows,
            [published, self._inputs[1]],
            metrics={"items": len(item)},
            figures=figures,
            missing={"pairs_told_apart": "fewer than 50 users have two items"},
        )

    def _made_once_more(
        self, rows: pa.Table, model: HybridModel, features: Features, item: npt.NDArray[np.int64]
    ) -> dict[str, float]:
        """Make some of the rows anew, one feature at a time: vectors that stand at other items are garbage."""
        sample = np.unique(np.linspace(0, len(rows) - 1, _ROWS_MADE_ONCE_MORE).astype(np.int64))
        place = {int(number): row for row, number in enumerate(item)}
        different = 0
        for row in rows.take(pa.array(sample)).to_pylist():
            start, end = features.matrix.indptr[place[row["item"]] :][:2]
            parts = zip(features.matrix.indices[start:end], features.matrix.data[start:end], strict=True)
            vector = sum(float(weight) * model.item_vectors[feature].astype(np.float64) for feature, weight in parts)
            # Off by one where single precision rounded a component the other way.
            apart = whole_vectors(np.asarray(vector)[None, :]).astype(np.int64)[0] - np.array(row["vector"])
            different += bool(np.abs(apart).max() > 1)
        return {"rows_made_once_more": len(sample), "rows_made_differently": different}

    def _publish_users(
        self,
        published: Manifest,
        model: HybridModel,
        features: Features,
        item: npt.NDArray[np.int64],
        demand: npt.NDArray[np.int64],
        known: list[Feature],
        texts: pa.StringArray,
    ) -> None:
        hybrid = self._settings.hybrid
        kept = most_common(texts, hybrid.max_combinations)
        rows = starter_items(kept, known, model, features.matrix, item, demand / UNIT, depth=hybrid.list_items)
        nothing_known = sum(key == "{}" for key in kept.to_pylist())
        outside = int((~np.isin(flat(rows["item"]), item)).sum())
        self._publish_table(
            HYBRID_USERS.name,
            rows,
            [published, *self._inputs[1:]],
            metrics={"combinations": len(rows)},
            figures={"rows_of_nothing_known": nothing_known, "items_not_in_catalog": outside},
        )

    def _publish_table(
        self,
        table: str,
        rows: pa.Table,
        inputs: list[Manifest],
        *,
        metrics: dict[str, int],
        figures: dict[str, float],
        missing: dict[str, str] | None = None,
    ) -> Manifest:
        attempt = self._lake.attempt(Partition(table, self._date, self._settings.name), self._run_id)
        return publish_checked(
            attempt,
            [attempt.write(rows)],
            observe(CONTRACTS[table], rows),
            inputs=inputs,
            parameters=self._parameters,
            metrics=metrics,
            figures=figures,
            missing=missing,
            override=self._override,
        )


if __name__ == "__main__":
    run(functools.partial(main, override=GateOverride.from_environment(os.environ)), arg_parser())
