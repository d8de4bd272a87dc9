"""What a test may set at the provider, under /_rehearsal: faults, behaviour and the clock. None of it is SendGrid's."""

from typing import Annotated, Any, Final, TypeVar

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from jobs.rehearsal import limits
from jobs.rehearsal.behaviour import Behaviour
from jobs.rehearsal.calls import Answer, Call
from jobs.rehearsal.faults import FaultSettings
from jobs.rehearsal.limits import ApiError, Problem
from jobs.rehearsal.state import Rehearsal

_Model = TypeVar("_Model", bound=BaseModel)
_DAYS: Final = 3660


class ClockOrder(BaseModel):
    """What to do with the clock, in the order of the fields; what is not given is left."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    is_held: bool | None = Field(None, description="true: stand still; false: go on from there")
    set_to: AwareDatetime | None = None
    advance_seconds: Annotated[float, Field(ge=-_DAYS * 86_400, le=_DAYS * 86_400)] = 0


class Controls:
    """The handlers of /_rehearsal."""

    def __init__(self, provider: Rehearsal) -> None:
        """Control `provider`."""
        self._provider = provider

    def faults(self, call: Call) -> Answer:
        """Show the faults in force."""
        return Answer(200, self._provider.faults.settings.model_dump(mode="json"))

    def set_faults(self, call: Call) -> Answer:
        """Put faults in force; those that are not given are off."""
        self._provider.faults.replace(_read(FaultSettings, call))
        return self.faults(call)

    def behaviour(self, call: Call) -> Answer:
        """Show how the provider behaves."""
        return Answer(200, self._provider.behaviour.model_dump(mode="json"))

    def set_behaviour(self, call: Call) -> Answer:
        """Let the provider behave in another way; what is not given is as at the beginning."""
        self._provider.behaviour = _read(Behaviour, call)
        return self.behaviour(call)

    def clock(self, call: Call) -> Answer:
        """Tell the provider's time."""
        return Answer(200, {"now": self._provider.clock().isoformat()})

    def move_clock(self, call: Call) -> Answer:
        """Hold, set, advance or release the clock."""
        order = _read(ClockOrder, call)
        clock = self._provider.clock
        if order.is_held is True:
            clock.hold()
        if order.set_to is not None:
            clock.set_to(order.set_to)
        if order.advance_seconds:
            clock.advance(order.advance_seconds)
        if order.is_held is False:
            clock.release()
        self._provider.wake()
        return self.clock(call)


def _read(model: type[_Model], call: Call) -> _Model:
    content: Any = call.json()
    if not isinstance(content, dict):
        raise limits.bad_request("the request body must be a JSON object")
    try:
        # By way of JSON, where a list may be a tuple.
        return model.model_validate_json(call.body)
    except ValidationError as error:
        found = error.errors(include_input=False)
        problems = [Problem(entry["msg"], ".".join(map(str, entry["loc"])) or None) for entry in found]
        raise ApiError(400, *problems) from error
