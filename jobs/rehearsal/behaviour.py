"""How a provider may lawfully differ: what SendGrid does not document, or what depends on the account's contract."""

from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

Clearing = Literal["null_refused", "null_clears", "empty_ignored"]
CLEARING: Final[tuple[Clearing, ...]] = ("null_refused", "null_clears", "empty_ignored")


class Readers(BaseModel):
    """Shares of the mails with which their readers do something."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    bounce: Annotated[float, Field(ge=0, le=1)] = 0
    open: Annotated[float, Field(ge=0, le=1)] = 0
    click: Annotated[float, Field(ge=0, le=1)] = 0
    unsubscribe: Annotated[float, Field(ge=0, le=1)] = 0
    spam_report: Annotated[float, Field(ge=0, le=1)] = 0


class Behaviour(BaseModel):
    """Settings of a provider that are no faults."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    clearing: Clearing = Field(
        "null_refused",
        description='null_refused: a null refuses the whole request, "" is stored (reported for SendGrid in 2020); '
        'null_clears: a null removes the value, "" is stored; empty_ignored: null and "" leave the value as it was',
    )
    contact_limit: int | None = Field(None, ge=0, description="of the plan: a job that would exceed it fails")
    has_credits: bool = Field(True, description="false: 401 Maximum credits exceeded for whatever mails or imports")
    rate_limit_requests: int | None = Field(None, ge=1, description="per endpoint and window; None: no limit")
    rate_limit_seconds: Annotated[float, Field(gt=0, le=3600)] = 60
    username: str = Field("rehearsal", description="of the account that the key belongs to")
    user_id: int = 1
    readers: Readers = Readers()
