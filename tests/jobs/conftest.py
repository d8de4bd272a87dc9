"""The small shop as CSV, and a PostgreSQL server of the test's own."""

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from small_shop import Export, make_csv, shop_rows


@pytest.fixture
def csv_shop(tmp_path: Path) -> Export:
    return Export(tmp_path / "lake", make_csv(tmp_path, shop_rows()))


@pytest.fixture(scope="session")
def postgresql_uri() -> Iterator[str]:
    """Start a server on a socket in a folder of its own, and stop it afterwards."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
    if not folders:
        pytest.skip("no PostgreSQL server in /usr/lib/postgresql/*/bin (Debian: apt install postgresql)")
    as_user: dict[str, object] = {}
    folder = Path(tempfile.mkdtemp(prefix="ryml-postgresql-"))
    if os.geteuid() == 0:
        # The server refuses to run as root.
        try:
            account = pwd.getpwnam("postgres")
        except KeyError:
            pytest.skip("running as root, and there is no account `postgres` for the server")
        os.chown(folder, account.pw_uid, account.pw_gid)
        as_user = {"user": account.pw_uid, "group": account.pw_gid, "extra_groups": []}

    def call(program: str, *arguments: str) -> None:
        with (folder.parent / f"{folder.name}.log").open("ab") as log:
            subprocess.run(
                [folders[-1] / program, "-D", folder / "data", *arguments],
                check=True, stdout=log, stderr=log, cwd=folder, timeout=60, **as_user,
            )  # fmt: skip

    try:
        call("initdb", "-U", "ryml", "-A", "trust", "-E", "UTF8", "--locale=C", "--no-sync")
        options = f"-k {folder} -c listen_addresses='' -c fsync=off -c timezone=America/New_York"
        call("pg_ctl", "-w", "-o", options, "start")
        try:
            yield f"postgresql:///postgres?host={folder}&user=ryml"
        finally:
            call("pg_ctl", "-m", "immediate", "-w", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        (folder.parent / f"{folder.name}.log").unlink(missing_ok=True)
