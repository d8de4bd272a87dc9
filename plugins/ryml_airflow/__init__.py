"""What joins ryml to Airflow: operators, the run date, pages, and the stack that `make run` starts."""
