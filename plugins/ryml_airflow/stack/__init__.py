"""The whole night on one machine: starts Airflow and the rehearsal provider, runs the dates, stops everything.

Nothing here imports Airflow: its components are started as subprocesses and asked over its REST API.
"""
