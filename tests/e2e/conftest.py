"""What the nights in Airflow share: one shop, built once."""

from e2e.airflow_night import night, shop

__all__ = ["night", "shop"]
