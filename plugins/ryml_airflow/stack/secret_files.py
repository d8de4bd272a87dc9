"""The stack's secrets: files of mode 0600, made once, random."""

import base64
import json
import os
import secrets
from pathlib import Path

UI_USER = "admin"
_UI_USERS = (UI_USER, "viewer")  # as in airflow.cfg: [core] simple_auth_manager_users


def ensure_secrets(folder: Path) -> str:
    """Make the secrets that are not there yet and give the UI's password.

    The files are those that airflow.cfg names. SimpleAuthManager keeps plain passwords in its file and adds only users
    that it misses, so the password is known before Airflow starts.
    """
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    _ensure(folder / "fernet_key", base64.urlsafe_b64encode(secrets.token_bytes(32)).decode())  # what Fernet takes
    _ensure(folder / "api_secret", secrets.token_hex(16))
    _ensure(folder / "jwt_secret", secrets.token_hex(32))
    passwords_file = folder / "passwords.json"
    passwords = json.loads(passwords_file.read_text()) if passwords_file.exists() else {}
    missing = {user: secrets.token_urlsafe(12) for user in _UI_USERS if user not in passwords}
    if missing:
        passwords.update(missing)
        _write(passwords_file, json.dumps(passwords) + "\n")
    passwords_file.chmod(0o600)
    return str(passwords[UI_USER])


def ensure_key(path: Path) -> str:
    """Make the rehearsal provider's key if it is not there yet and give it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    return _ensure(path, f"rehearsal-{secrets.token_urlsafe(24)}")


def _ensure(path: Path, value: str) -> str:
    if not path.exists() or not path.read_text().strip():
        _write(path, value)
    path.chmod(0o600)
    return path.read_text().strip()


def _write(path: Path, value: str) -> None:
    """Write so that nobody else can read it at any moment, and a killed writer leaves no half of it."""
    draft = path.with_name(f"{path.name}.{os.getpid()}.draft")
    draft.unlink(missing_ok=True)
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(value)
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)
