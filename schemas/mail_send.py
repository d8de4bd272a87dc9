"""What a campaign that mails by Mail Send has to say: the sender, who for single sends is known to the provider."""

from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field

# From the push's deadline to the instant at which the mails leave. SendGrid promises a pause or a cancellation only if
# it is made 10 minutes before send_at (POST /v3/user/scheduled_sends); 5 more for a request that is under way at the
# deadline, and for two clocks.
HOLD_MINUTES: Final = 15


class MailSendSettings(BaseModel):
    """The sender of the mails of `push.method = "mail_send"`; nothing of it is needed otherwise."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    # The verified sender's address. ASCII: SendGrid takes no other `from`.
    from_email: Annotated[str, Field(pattern=r"^[!-?A-~]{1,64}@[!-?A-~]{1,190}$")] | None = None
    # The sender's name beside it. SendGrid takes neither ; nor , in names.
    from_name: Annotated[str, Field(pattern=r"^[^;,\x00-\x1f{}<>]{1,80}$")] | None = None
    # The sender's name and postal address under the mail, which commercial mail has to show.
    postal_address: Annotated[str, Field(pattern=r"^[^\x00-\x1f{}<>&]{1,200}$")] | None = None
