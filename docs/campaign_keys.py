"""The table of a campaign file's keys for docs/campaigns.md: from the settings classes and the comments in them.

A key without a comment is explained here, and one without either is an error: no key goes unexplained.
"""

import inspect
import re
import typing
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from schemas.campaign import Campaign

# Settings that lists are made of: explained once, under the name by which the table refers to them.
ELEMENTS = {
    "UserCondition": "USER CONDITION",
    "Condition": "CONDITION",
    "Conditions": "CONDITIONS",
    "BoostSettings": "BOOST",
    "CooccurrenceModel": "MODEL",
    "EaseModel": "MODEL",
}
EXPLAINED = {
    "title": "what people read in Airflow",
    "slots": "items in a mail, at most",
    "min_items": "with fewer than this: no mail",
    "history.weights": "how loudly each kind of interest speaks; what is left out is not listened to",
    "candidates.kind": "`correlations`: what goes with the recent items; `back_in_stock`: wishes that came back",
    "candidates.neighbours": "how many correlated items of each recent one speak at first; a short list takes all",
    "exclude.bought_days": "bought within so many days, or `for_ever`; 0: off. A refund undoes it",
    "exclude.wishlisted_days": "on the wishlist, put there within so many days; 0: off",
    "exclude.in_cart_days": "in the cart, put there within so many days; 0: off",
    "exclude.seen_days": "looked at within so many days; 0: off",
    "exclude.mailed_days": "mailed on at least `mailed_times` dates of the last so many; 0: off",
    "exclude.mailed_times": "see `mailed_days`",
    "exclude.twins.property": "items with the same value of this property are variants of one another",
    "catalog.in_stock": "only what can be bought on the day",
    "catalog.min_price": "in the item's own currency",
    "catalog.max_price": "in the item's own currency",
    "catalog.has_image": "only items with an image",
    "catalog.include": "field → values: an item has to have one of them in every field named",
    "catalog.exclude": "field → values that rule an item out; wins over `include`",
    "catalog.where": "any test of any field, nested as needed",
    "boosts": "multiply the scores of the items that meet the conditions",
    "diversity.max_per_category": "items of one category in a list, at most",
    "diversity.max_per_brand": "items of one brand in a list, at most",
    "fallback.steps": "what fills short lists, in turn; [] for nothing",
    "audience.segments.all": "the user meets every one of these",
    "audience.segments.any": "the user meets at least one of these, if there are some",
    "audience.segments.none": "the user meets none of these",
    "gates.cleared_share_max": "a plan that clears a greater share of those who hold items is stopped",
    "gates.cleared_users_free": "so many may be cleared whatever their share",
    "gates.audience_least": "times the median of the last seven sends; fewer stop the plan. Nothing before three sends",
    "gates.audience_most": "times the same; more stop the plan",
    "gates.compared_users_least": "both plans have to mail so many users, or they are not compared",
    "experiment.family": "campaigns of one family hold out the same people and assign variants alike",
    "experiment.holdout_share": "recommended to and not mailed; a larger share keeps whom a smaller one had",
    "experiment.variants": "name → share, 1 in all: each mailed user's is written into the plan",
    "training.min_records": "records of interest that the window has to hold",
    "training.window_days": "the window at first; widened day by day until it holds `min_records`",
    "training.max_window_days": "widened up to this",
    "training.weights": "what a record of each kind counts",
    "training.candidates": "the models that the backtest compares",
    "training.cadence": "how often a model is trained",
    "MODEL.kind": "which model",
    "MODEL.popularity": "how much of popularity every item recommends beside its own; 1: as much as all else together",
    "MODEL.cooccurrence": "a co-occurrence that is added to it: the keys of that model",
    "MODEL.cooccurrence_share": "what of the sum the co-occurrence is",
    "MODEL.user_exponent": "how much less a user with many interactions counts",
    "MODEL.regularisation": "of the ridge regression: more trusts rare items less",
    "hybrid.components": "numbers per item vector",
    "hybrid.epochs": "passes over the interactions",
    "hybrid.learning_rate": "of the gradient descent",
    "hybrid.seed": "the same seed gives the same vectors",
    "hybrid.max_interactions": "interactions that are learned from; a larger shop is sampled by users",
    "trending.weights": "what each kind of interest counts",
    "mail.subject": "the mail's subject",
    "mail.account_id": "the `user_id` that the live provider has to answer the key with; needed where `live = true`",
    "mail.max_lateness_minutes": "a live send later than this is given up",
    "push.chunk_users": "users that one task pushes, at most; of `csv_import` see `file_users`",
    "push.ramp_minutes": "minutes over which the rate rises. No retry, clear or restart shifts a chunk's place",
    "push.start_users_per_second": "users a second at the start of the ramp; none: 5 % of the full rate",
    "push.full_users_per_second": "at its end; none: what `requests_per_second` allows, which alone paces after it",
    "push.clear_with": "what unused slots and cleared users get: `empty` text, `null`, or a `dash`; see docs/mail.md",
    "USER CONDITION.property": "a property that the users' export carries",
    "USER CONDITION.any_of": "it has one of these values …",
    "USER CONDITION.at_least": "… or is a number from this",
    "USER CONDITION.at_most": "… to this",
    "CONDITION.field": "a column of the catalog, or `properties.NAME`",
    "CONDITION.any_of": "it has one of these texts; a category also if it lies under one",
    "CONDITION.none_of": "it has none of these texts",
    "CONDITION.at_least": "it is a number from this",
    "CONDITION.at_most": "it is a number up to this",
    "CONDITION.is_present": "it has a value (true), or none (false)",
    "CONDITIONS.all": "every one of these holds",
    "CONDITIONS.any": "at least one of these holds, if there are some",
    "CONDITIONS.none": "none of these holds",
    "BOOST.all": "as in CONDITIONS",
    "BOOST.any": "as in CONDITIONS",
    "BOOST.none": "as in CONDITIONS",
    "BOOST.multiply_by": "what scores are multiplied by",
}
_SIGNS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<", "min_length": "length ≥", "max_length": "length ≤"}


def table() -> str:
    """Lay all keys out as a Markdown table."""
    rows = [row for _, *row in keys()]
    head = ["key", "default", "bounds", "what it is"]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [head, ["---"] * len(head), *rows])


def keys() -> list[tuple[str, str, str, str, str]]:
    """Each key: its plain name, and the cells of its row. Keys of list elements come last."""
    found: dict[str, tuple[str, str, str, str, str]] = {}
    elements: dict[str, list[type[BaseModel]]] = {}
    for row in _keys(Campaign, "", elements):
        found.setdefault(row[0], row)
    while elements:
        name, models = elements.popitem()
        for model in models:
            for row in _keys(model, f"{name}.", {}):
                found.setdefault(row[0], row)
            for deeper in (one for field in model.model_fields.values() for one in _models(field.annotation)):
                if (other := ELEMENTS.get(deeper.__name__)) and not any(key.startswith(f"{other}.") for key in found):
                    elements.setdefault(other, []).append(deeper)
    return list(found.values())


def _keys(
    model: type[BaseModel], prefix: str, elements: dict[str, list[type[BaseModel]]]
) -> Iterator[tuple[str, str, str, str, str]]:
    said = _comments(model)
    for name, field in model.model_fields.items():
        key = prefix + name
        if key == "name":  # the file's own
            continue
        inner = _models(field.annotation)
        referred = sorted({ELEMENTS[one.__name__] for one in inner if one.__name__ in ELEMENTS})
        if inner and not referred:
            for one in inner:
                yield from _keys(one, f"{key}.", elements)
            continue
        for one in inner:
            if one.__name__ in ELEMENTS and one not in elements.setdefault(ELEMENTS[one.__name__], []):
                elements[ELEMENTS[one.__name__]].append(one)
        text = EXPLAINED.get(key) or said.get(name)
        if not text:
            raise SystemExit(f"the key {key} has no comment in {model.__name__} and no text in {__file__}; give it one")
        listed = "a list of " if typing.get_origin(field.annotation) is tuple else ""
        kind = f"{listed}{' or '.join(referred)}: " if referred else ""
        yield key, f"`{key}`", _default(field), _bounds(field), kind + text


def _models(annotation: Any) -> list[type[BaseModel]]:
    """The settings classes in a type, in order."""
    if inspect.isclass(annotation) and issubclass(annotation, BaseModel):
        return [annotation]
    if isinstance(annotation, str | typing.ForwardRef):
        return []
    return [model for part in typing.get_args(annotation) for model in _models(part)]


def _comments(model: type[BaseModel]) -> dict[str, str]:
    """What the source says behind each field, or in the lines above it."""
    found: dict[str, str] = {}
    for one in reversed([base for base in model.__mro__ if issubclass(base, BaseModel) and base is not BaseModel]):
        above: list[str] = []
        for line in inspect.getsource(one).splitlines():
            if comment := re.match(r"    # (.*)", line):
                above.append(comment[1])
                continue
            if field := re.match(r"    (\w+): [^#]*(?:  # (.*))?$", line):
                text = " ".join([*above, *filter(None, [field[2]])])
                if text:
                    found[field[1]] = text
            above = []
    return found


def _default(field: FieldInfo) -> str:
    value = field.get_default(call_default_factory=True)
    if value is PydanticUndefined:
        return "has to be given"
    if value is None or value in ((), {}) or (isinstance(value, BaseModel) and not any(dict(value).values())):
        return "none"
    if isinstance(value, tuple) and isinstance(value[0], BaseModel):
        return f"{len(value)} of them"
    text = str(list(value) if isinstance(value, tuple) else value).replace("'", "")
    return f"`{text.lower() if isinstance(value, bool) else text}`"


def _bounds(field: FieldInfo) -> str:
    found = [
        f"{sign} {value:g}" if isinstance(value, float) else f"{sign} {value:,}"
        for rule in _rules(field)
        for name, sign in _SIGNS.items()
        if (value := getattr(rule, name, None)) is not None
    ]
    return ", ".join(found)


def _rules(field: FieldInfo) -> list[Any]:
    inner = [
        rule
        for part in typing.get_args(field.annotation)
        if typing.get_origin(part) is typing.Annotated
        for rule in typing.get_args(part)[1:]
    ]
    return [rule for one in [*field.metadata, *inner] for rule in getattr(one, "metadata", [one])]
