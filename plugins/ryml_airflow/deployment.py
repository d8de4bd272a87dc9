"""Where this deployment keeps its things: Airflow's configuration section [ryml], its connections, the repository."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]

# What the jobs take each option of [ryml] as.
_TYPES: dict[str, Callable[[str], Any]] = {"lake": str, "source": Path, "data": str, "ledger": str, "buckets": int}


def setting(name: str) -> Any:
    """Read one option of the section [ryml] (or its AIRFLOW__RYML__ variable), typed as jobs take it."""
    from airflow.configuration import conf

    return _TYPES[name](conf.get_mandatory_value("ryml", name))


def campaign_folder() -> Path:
    """The folder of the campaigns' files: `dags/campaigns`, unless the configuration names another."""
    from airflow.configuration import conf

    return Path(conf.get("ryml", "campaigns", fallback="") or REPOSITORY / "dags" / "campaigns")


def campaign_file(name: str) -> Path:
    """The settings file of a campaign."""
    return campaign_folder() / f"{name}.toml"


def add_source_uri(options: dict[str, Any]) -> None:
    """Add the option `source_uri` for a job that reads a source whose settings name a connection."""
    if "source" in options and (uri := source_uri(options["source"])) is not None:
        options["source_uri"] = uri


def source_uri(source: Path) -> str | None:
    """The URI of the connection that a source's settings name, password and all; None where they name none.

    Never rendered, logged or passed on as an argument. A database whose URI an Airflow connection cannot express has it
    in the connection's extra, as `{"uri": "grpc+tls://…"}`.
    """
    from airflow.sdk import BaseHook

    from schemas.source import SqlSettings, load_source

    settings = load_source(source)
    if not isinstance(settings, SqlSettings) or settings.connection is None:
        return None
    connection = BaseHook.get_connection(settings.connection)
    uri = connection.extra_dejson.get("uri") or connection.get_uri()
    return str(uri)


def provider_address(conn_id: str):  # type: ignore[no-untyped-def]  # ProviderAddress; its module is imported late
    """The e-mail provider's host and key, from an Airflow connection; never rendered, logged or passed on."""
    from airflow.sdk import BaseHook

    from jobs.delivery.provider_address import ProviderAddress

    connection = BaseHook.get_connection(conn_id)
    return ProviderAddress(host=connection.host or "", api_key=connection.password or "")
