"""Comparing models on what they did not see, and judging the table that one of them made."""
