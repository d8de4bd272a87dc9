"""What is looked at again just before the contacts leave."""

from schemas.ranking_rules import Settings


class LastLookSettings(Settings):
    """The catalog as it is then always counts; what users did since the build only if it is asked for.

    The source is then read once more, from the end of the date to now, right before the push.
    """

    recent_events: bool = False  # true: what was bought, seen … since the build is ruled out as well
