"""The words a data contract is written in: figures of a partition, where each has to lie, and which rule gives it.

A figure is one number about a whole partition. A rule of a column names the figures that it needs; other checks name
theirs. Nothing here holds a value of a row.
"""

from dataclasses import dataclass
from typing import Any, Final, Protocol

LAST_GOOD: Final = "_of_last_good"
WEEKDAY_MEDIAN: Final = "_of_weekday_median"


@dataclass(frozen=True)
class Check:
    """Where a figure has to lie: from `at_least` (or `above`, itself excluded) to `at_most`.

    `overridable`: a judgement that a person may know better (a sale, a merged shop); what no night may break is not.
    `may_be_missing`: the figure needs something that is not always there, such as history; the reason is then kept.
    """

    figure: str
    why: str
    at_least: float | None = None
    above: float | None = None
    at_most: float | None = None
    overridable: bool = False
    may_be_missing: bool = False

    @property
    def expected(self) -> str:
        """Say in words where the figure has to lie."""
        if self.at_least is not None and self.at_least == self.at_most:
            return f"exactly {self.at_least:,}"
        low = f"at least {self.at_least:,}" if self.at_least is not None else ""
        low = f"above {self.above:,}" if self.above is not None else low
        high = f"at most {self.at_most:,}" if self.at_most is not None else ""
        return " and ".join(part for part in (low, high) if part)

    @property
    def base(self) -> str:
        """The figure that is held against its own past, for those that are."""
        return self.figure.removesuffix(LAST_GOOD).removesuffix(WEEKDAY_MEDIAN)

    def as_expectation(self) -> dict[str, Any]:
        """Write the check as Great Expectations does. The frame has one row, so the column's maximum is the figure."""
        bounds = {"min_value": self.at_least if self.above is None else self.above, "max_value": self.at_most}
        kwargs: dict[str, Any] = {"column": self.figure, **{k: v for k, v in bounds.items() if v is not None}}
        if self.above is not None:
            kwargs["strict_min"] = True
        meta = {"why": self.why, "overridable": self.overridable, "may_be_missing": self.may_be_missing}
        return {"type": "expect_column_max_to_be_between", "kwargs": kwargs, "meta": meta}


def of_last_good(base: str, *, at_least: float | None = None, at_most: float | None = None, why: str) -> Check:
    """Hold a figure against the same one of the last good partition, as a ratio."""
    return Check(base + LAST_GOOD, why, at_least, None, at_most, overridable=True, may_be_missing=True)


def of_weekday_median(base: str, *, at_least: float, at_most: float, why: str) -> Check:
    """Hold a figure against its median over the same weekday of the last four weeks, as a ratio."""
    return Check(base + WEEKDAY_MEDIAN, why, at_least, None, at_most, overridable=True, may_be_missing=True)


class ColumnRule(Protocol):
    """What every row must keep; counted over a partition. In list columns it is every element that must."""

    @property
    def column(self) -> str:
        """The column's name."""

    def checks(self) -> list[Check]:
        """The figures that the rule gives, and where each has to lie."""


@dataclass(frozen=True)
class NotNull:
    """No value is missing."""

    column: str

    @property
    def nulls(self) -> str:
        """The number of missing values."""
        return f"{self.column}_nulls"

    def checks(self) -> list[Check]:
        return [Check(self.nulls, f"every row has {self.column}", at_most=0)]


@dataclass(frozen=True)
class Unique:
    """No value comes twice in a file, or, `across_files`, in the partition (by 64-bit hashes). Nulls do not count."""

    column: str
    across_files: bool = False

    @property
    def repeats(self) -> str:
        """How many values were there already."""
        return f"{self.column}_repeats"

    def checks(self) -> list[Check]:
        return [Check(self.repeats, f"no {self.column} comes twice", at_most=0)]


@dataclass(frozen=True)
class OneOf:
    """Every value is one of a closed set."""

    column: str
    values: tuple[str, ...]

    @property
    def unknown(self) -> str:
        """How many values are none of them."""
        return f"{self.column}_unknown"

    def checks(self) -> list[Check]:
        return [Check(self.unknown, f"{self.column} is one of {', '.join(self.values)}", at_most=0)]


@dataclass(frozen=True)
class Between:
    """Every number lies in a range. `nullable`: a partition without any number is fine."""

    column: str
    at_least: float | None = None
    at_most: float | None = None
    above: float | None = None
    nullable: bool = False

    @property
    def least(self) -> str:
        """The smallest value."""
        return f"{self.column}_least"

    @property
    def most(self) -> str:
        """The largest value."""
        return f"{self.column}_most"

    def checks(self) -> list[Check]:
        found = []
        if self.at_least is not None or self.above is not None:
            found.append(
                Check(
                    self.least,
                    f"the smallest {self.column}",
                    at_least=self.at_least,
                    above=self.above,
                    may_be_missing=self.nullable,
                )
            )
        if self.at_most is not None:
            found.append(
                Check(self.most, f"the largest {self.column}", at_most=self.at_most, may_be_missing=self.nullable)
            )
        return found


@dataclass(frozen=True)
class MaxBytes:
    """No text is longer, in bytes of UTF-8."""

    column: str
    most_bytes: int

    @property
    def longest(self) -> str:
        """Bytes of the longest text."""
        return f"{self.column}_bytes_most"

    def checks(self) -> list[Check]:
        return [Check(self.longest, f"bytes of the longest {self.column}", at_most=self.most_bytes)]


@dataclass(frozen=True)
class Matches:
    """Texts match a pattern (RE2), but for a share of those that there are."""

    column: str
    pattern: str
    most_malformed_share: float

    @property
    def malformed_share(self) -> str:
        """The share of texts that do not match."""
        return f"{self.column}_malformed_share"

    def checks(self) -> list[Check]:
        return [
            Check(
                self.malformed_share,
                f"share of {self.column} that does not match {self.pattern}",
                at_most=self.most_malformed_share,
                overridable=self.most_malformed_share > 0,
                may_be_missing=True,
            )
        ]


@dataclass(frozen=True)
class Finite:
    """No number is infinite or not a number."""

    column: str

    @property
    def not_finite(self) -> str:
        """How many are."""
        return f"{self.column}_not_finite"

    def checks(self) -> list[Check]:
        return [Check(self.not_finite, f"every {self.column} is a finite number", at_most=0)]


@dataclass(frozen=True)
class Parallel:
    """The lists of a row are as long as that of `column`."""

    column: str
    others: tuple[str, ...]

    @property
    def ragged(self) -> str:
        """How many rows have lists of different lengths."""
        return f"rows_with_ragged_{self.column}_lists"

    def checks(self) -> list[Check]:
        why = f"the lists {', '.join((self.column, *self.others))} of a row are parallel"
        return [Check(self.ragged, why, at_most=0)]
