"""The mail itself: Handlebars in the subset that SendGrid's designs know, over the contact fields of one push.

`template/mail.html` and `template/mail.txt` have six slots. A slot is shown if its title is neither empty nor "-" (what
empty slots hold at a provider that ignores empty text), and any slot only if the contact's `ryml_run` is the campaign's
date and its `ryml_count` is not "0": a contact that was not pushed for this send keeps what an earlier one wrote, and
gets the neutral text, as does one whose content is not the one that the send expects (`ryml_expected` and
`ryml_content` differ). That date is written into the template when the draft is made, in the place of
`[[campaign_date]]`.

Values go into the HTML through {{x}}, which escapes them. Text and subject have no markup to break, and an escaped `&`
or `'` would be shown as `&amp;` and `&#x27;`, so there it is {{{x}}}, as SendGrid advises for subjects.

`{{{unsubscribe}}}` and `{{{unsubscribe_preferences}}}` are what SendGrid's own unsubscribe module puts into `href`
(triple braces, as both are addresses with `&` in them); a single send replaces them with each recipient's link for its
unsubscribe group, and adds the List-Unsubscribe headers itself. The Sender_ tags give the verified sender's postal
address, which commercial mail has to show.
"""

import re
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Final

from schemas.errors import ConfigError
from schemas.mail_fields import DEFAULT_PREFIX, own_fields
from schemas.mail_send import MailSendSettings

SLOTS: Final = 6
FOLDER: Final = Path(__file__).parent / "template"
DATE_PLACE: Final = "[[campaign_date]]"
_SENDER_LINE: Final = re.compile(r"\{{2,3}Sender_Name\}{2,3}.*\{{2,3}Sender_Zip\}{2,3}")
_SENDER_TAG: Final = re.compile(r"\{\{\{?Sender_")
CONTENT_CHECK: Final = r"\{\{#equals ryml_expected ryml_content\}\}"


@dataclass(frozen=True)
class MailTemplate:
    """What a draft is made of, with the campaign's date in its place."""

    subject: str
    html: str
    text: str


def mail_send_template(template: MailTemplate, sender: MailSendSettings) -> MailTemplate:
    """Write the sender in the place of the Sender_ tags, which the provider fills in single sends alone.

    Raises: ConfigError if a tag is left, or the template shows no sender.
    """
    shown = ", ".join(filter(None, (sender.from_name, sender.postal_address)))
    parts = {}
    for name in ("html", "text"):
        text, found = _SENDER_LINE.subn(lambda _: shown, getattr(template, name))
        if not found or _SENDER_TAG.search(text):
            raise ConfigError(
                f"mail.{name}: expected the Sender_ tags in one line, from {{{{Sender_Name}}}} to {{{{Sender_Zip}}}}; "
                "Mail Send knows no such tags, and mail_send.postal_address takes their place. Put them there"
            )
        parts[name] = text
    return MailTemplate(template.subject, parts["html"], parts["text"])


def load_template(campaign_date: date, field_prefix: str = DEFAULT_PREFIX, folder: Path = FOLDER) -> MailTemplate:
    """Read mail.html, mail.txt and subject.txt of a folder, and write the campaign's date and fields into them.

    Raises: ConfigError if HTML or text never ask for the date (they would show items of any day), or a file is missing.
    """
    parts: dict[str, str] = {}
    for name in ("subject.txt", "mail.html", "mail.txt"):
        try:
            parts[name] = (folder / name).read_text("utf-8")
        except OSError as error:
            raise ConfigError(f"{folder / name}: cannot be read ({error.strerror}); put the template there") from error
        if name != "subject.txt" and DATE_PLACE not in parts[name]:
            raise ConfigError(
                f'{folder / name}: expected {{{{#equals ryml_run "{DATE_PLACE}"}}}} around the items, or those of '
                "another day could be mailed; put it there"
            )
        if name != "subject.txt" and not re.search(CONTENT_CHECK, parts[name]):
            raise ConfigError(
                f"{folder / name}: expected {{{{#equals ryml_expected ryml_content}}}} around the items, or a contact "
                "that was only stamped could show what it holds by mistake; put it there"
            )
    filled = {
        name: own_fields(content, field_prefix).replace(DATE_PLACE, campaign_date.isoformat())
        for name, content in parts.items()
    }
    return MailTemplate(subject=filled["subject.txt"].strip(), html=filled["mail.html"], text=filled["mail.txt"])
