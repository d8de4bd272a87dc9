"""How exported rows become partitions: bucketed files of fixed row groups, and the count of every row."""
