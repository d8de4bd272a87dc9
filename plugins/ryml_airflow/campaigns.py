"""Campaign files for DAGs: small, local, and read when the DAG file is parsed."""

from ryml_airflow.deployment import CAMPAIGNS
from schemas.campaign import Campaign, load_campaign


def load(name: str) -> Campaign:
    """Read one campaign's settings."""
    return load_campaign(CAMPAIGNS / f"{name}.toml")
