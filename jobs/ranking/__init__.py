"""Correlations between items, and the items for each user, as sparse products."""
