"""Letting a partition pass although a judgement fails: a named person's decision, with a reason, for one run."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Self

from jobs.quality.reasons import refuse_empty_reason
from schemas.errors import ConfigError

# Variables and not options: arguments can be read by everybody on the machine, and a name is personal.
REASON_VARIABLE: Final = "RYML_OVERRIDE_GATES_REASON"
BY_VARIABLE: Final = "RYML_OVERRIDE_GATES_BY"


@dataclass(frozen=True)
class GateOverride:
    """Who lets what fails pass, and why; kept with the checks, and nowhere else."""

    by: str
    reason: str

    @classmethod
    def of(cls, *, by: str | None, reason: str | None) -> Self | None:
        """Make one of what was given; None if nothing was: gates are not overridden unless somebody asks.

        Raises: ConfigError for a reason without a name, a name without a reason, or a reason that says nothing.
        """
        by, reason = (by or "").strip(), (reason or "").strip()
        if not by and not reason:
            return None
        if not by or not reason:
            lacking = "override_gates_by" if reason else "override_gates_reason"
            raise ConfigError(f"{lacking} is empty; to override gates, give both who decides and why, or neither")
        if "@" in by:
            raise ConfigError("override_gates_by is an e-mail address; give a name or a team, it is kept in the lake")
        refuse_empty_reason(reason, "why the data is right although its checks say otherwise")
        return cls(by, reason)

    @classmethod
    def from_environment(cls, environment: Mapping[str, str]) -> Self | None:
        """Read the variables that a job is started with."""
        return cls.of(by=environment.get(BY_VARIABLE), reason=environment.get(REASON_VARIABLE))

    def as_environment(self) -> dict[str, str]:
        """Write the variables that a job is started with."""
        return {BY_VARIABLE: self.by, REASON_VARIABLE: self.reason}
