"""Figures that `make scoreboard` measures, printed as a table when the tests are done."""

import pytest

_LINES = pytest.StashKey[list[tuple[str, str]]]()


class Scoreboard:
    """Takes the figures."""

    def __init__(self, lines: list[tuple[str, str]]) -> None:
        self._lines = lines

    def add(self, figure: str, value: str) -> None:
        self._lines.append((figure, value))


@pytest.fixture
def scoreboard(request: pytest.FixtureRequest) -> Scoreboard:
    return Scoreboard(request.config.stash.setdefault(_LINES, []))


def print_scoreboard(reporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Print what was measured, where anything was asked for by the marker."""
    lines = config.stash.get(_LINES, [])
    if lines and "scoreboard" in config.option.markexpr and "not" not in config.option.markexpr:
        reporter.section("scoreboard")
        width = max(len(figure) for figure, _ in lines)
        for figure, value in lines:
            reporter.write_line(f"{figure:<{width}}  {value}")
