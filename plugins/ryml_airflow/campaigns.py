"""Campaign files for DAGs: small, local, and read when the DAG file is parsed."""

from ryml_airflow.deployment import CAMPAIGNS
from schemas.campaign import Campaign, load_campaign


def names() -> list[str]:
    """Name every campaign."""
    return sorted(path.stem for path in CAMPAIGNS.glob("*.toml"))


def load(name: str) -> Campaign:
    """Read one campaign's settings."""
    return load_campaign(CAMPAIGNS / f"{name}.toml")
