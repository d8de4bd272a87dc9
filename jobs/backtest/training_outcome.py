"""What became of a date's training: trained anew, or the last good correlations, and why. Read from the lake alone."""

import datetime as dt
import logging
from typing import Any, Final

from pydantic import TypeAdapter, ValidationError

from jobs.lake.lake import Lake
from jobs.lake.manifest import Manifest
from jobs.lake.summary import summarise
from jobs.quality.kept_checks import read_stopped
from schemas.campaign import Campaign
from schemas.contracts import CORRELATIONS_MAX_AGE_DAYS
from schemas.errors import GateError
from schemas.item_models import ItemModelSettings
from schemas.layout import REPORT_NAME, Partition

MODEL: Final = "model"  # in the parameters of correlations and the metrics of backtests: the settings of the model
STATUS: Final = "status"

_MODEL_SETTINGS: Final[TypeAdapter[ItemModelSettings]] = TypeAdapter(ItemModelSettings)

_SHOWN_DAYS: Final = 31  # lists older than this are no measure of steadiness

log = logging.getLogger(__name__)


def last_good(lake: Lake, campaign: Campaign, date: dt.date) -> Manifest | None:
    """Return the newest correlations from before a date that recommending would still take."""
    return lake.latest(
        "correlations",
        up_to=date - dt.timedelta(days=1),
        campaign=campaign.name,
        days=CORRELATIONS_MAX_AGE_DAYS - 1,
    )


def last_shown(lake: Lake, campaign: Campaign, date: dt.date) -> Manifest | None:
    """Return the newest lists that were shown before a date, those that its own are kept steady by."""
    before = date - dt.timedelta(days=1)
    return lake.latest("product_correlations", up_to=before, campaign=campaign.name, days=_SHOWN_DAYS)


def is_due(lake: Lake, campaign: Campaign, date: dt.date) -> bool:
    """Tell whether a date is trained for: by the cadence, or because there is nothing to recommend from."""
    return campaign.training.is_planned(date) or last_good(lake, campaign, date) is None


def model_of(settings: object) -> ItemModelSettings | None:
    """Read the settings of a model as a manifest has them; None for those of another release."""
    try:
        return _MODEL_SETTINGS.validate_python(settings)
    except ValidationError:
        return None


def needs_training(lake: Lake, campaign: Campaign, date: dt.date) -> bool:
    """Tell whether there is anything to compute; if not, no Spark has to start."""
    return is_due(lake, campaign, date) and _refused_by(lake, campaign, date) is None


def outcome(lake: Lake, campaign: Campaign, date: dt.date) -> dict[str, Any]:
    """Say what recommending for a date starts from, and why it is not the date's own if it is not.

    Raises: GateError if the date's was refused and there is no other of the last 14 days.
    """
    partition = Partition("correlations", date, campaign.name)
    refused = _refused_by(lake, campaign, date)
    if refused is None and (stopped := read_stopped(lake, partition)) is not None:
        refused = f"refused by its checks: {stopped.message}"
    own = lake.find(partition)
    if refused is None and own is None and is_due(lake, campaign, date):
        refused = "not made: its inputs do not fit together; the log of train_correlations says which"
    if refused is None and own is not None and is_due(lake, campaign, date):
        return {**summarise(own), STATUS: "trained"}
    kept = own or last_good(lake, campaign, date)
    if kept is None:
        raise GateError(
            f"{partition} was {refused or 'not trained'}, and there are no correlations of the "
            f"{CORRELATIONS_MAX_AGE_DAYS} days before it to go on with; look at the backtest's report, or let the "
            "campaign name other candidates"
        )
    if refused is not None:
        log.warning("%s was %s. The correlations of %s stay", partition, refused, kept.partition.date)
    return {
        **summarise(kept),
        STATUS: f"kept those of {kept.partition.date}: {'refused' if refused else 'not due'}",
        "why": refused or f"trained {campaign.training.cadence}, on {campaign.training.weekday}",
    }


def read_report(lake: Lake, campaign: str, date: dt.date) -> str | None:
    """Return the page that a date's backtest left beside its figures; None where there is none."""
    backtest = lake.find(Partition("backtests", date, campaign))
    page = lake.storage.read(f"{backtest.folder}/{REPORT_NAME}") if backtest else None
    return page.decode() if page is not None else None


def _refused_by(lake: Lake, campaign: Campaign, date: dt.date) -> str | None:
    """Say why the date's backtest let no model ship, if it did not."""
    backtest = lake.find(Partition("backtests", date, campaign.name))
    if backtest is None or backtest.metrics.get(STATUS) != "refused" or not is_due(lake, campaign, date):
        return None
    return f"refused by its backtest: {backtest.metrics['why']}"
