"""The rehearsal provider: a local server that speaks the part of SendGrid's v3 API that ryml uses.

Nothing that it is given leaves the machine. It keeps its state in SQLite and shows the mails in a mailbox page.
"""
