"""The work of the night: pure functions and thin mains, each of which runs without Airflow."""
