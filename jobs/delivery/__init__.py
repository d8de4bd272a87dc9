"""Bringing recommendations to the e-mail provider, and the one scheduled send of a campaign and date."""
