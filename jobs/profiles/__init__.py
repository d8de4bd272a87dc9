"""The profile of each user: what they did with which item, last when, how often."""
