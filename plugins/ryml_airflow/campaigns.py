"""Campaign files for DAGs: small, local, and read when the DAG file is parsed.

A file that cannot be read takes nothing else down: its campaign gets tasks that fail and say why.
"""

from pathlib import Path

from ryml_airflow.deployment import campaign_file, campaign_folder
from schemas.campaign import Campaign, clashes, load_campaign
from schemas.errors import ConfigError


def names(folder: Path | None = None) -> list[str]:
    """Name every campaign."""
    return sorted(path.stem for path in (folder or campaign_folder()).glob("*.toml"))


def send_dag(name: str) -> str:
    """Name the DAG that sends a campaign."""
    return f"send_{name}"


def load(name: str) -> Campaign:
    """Read one campaign's settings."""
    return load_campaign(campaign_file(name))


def load_all(folder: Path | None = None) -> dict[str, Campaign | ConfigError]:
    """Read every campaign, by name; what is wrong with a file stands in its place.

    Two campaigns that get into each other's way are both wrong: which of them is meant is not for this code to say.
    """
    found: dict[str, Campaign | ConfigError] = {}
    for path in sorted((folder or campaign_folder()).glob("*.toml")):
        try:
            found[path.stem] = load_campaign(path)
        except ConfigError as error:
            found[path.stem] = error
    readable = [campaign for campaign in found.values() if isinstance(campaign, Campaign)]
    return found | {name: ConfigError(why) for name, why in clashes(readable).items()}
