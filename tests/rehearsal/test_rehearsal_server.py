import os
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
from free_ports import free_ports
from rehearsal_fixture import RehearsalServer, serve

from jobs import serve_rehearsal
from schemas.errors import ConfigError, StorageError

ROOT = Path(__file__).resolve().parents[2]
LISTS = "/v3/marketing/lists"


def test_only_the_key_opens(rehearsal_server: RehearsalServer) -> None:
    def post(headers: dict[str, str]) -> httpx.Response:
        return httpx.post(rehearsal_server.host + LISTS, json={"name": "x"}, headers=headers, trust_env=False)

    key = rehearsal_server.api_key
    refused = [post({})] + [
        post({"Authorization": header})
        for header in ("", "Bearer", "Bearer wrong", f"bearer {key}", f"Basic {key}", f"Bearer {key}x", key)
    ]
    assert [answer.status_code for answer in refused] == [401] * 8
    message = "The provided authorization grant is invalid, expired, or revoked"
    assert refused[0].json() == {"errors": [{"message": message, "field": None}]}
    assert post({"Authorization": f"Bearer {key}"}).status_code == 201


def test_unknown_paths_and_methods_answer_as_an_api(rehearsal_server: RehearsalServer) -> None:
    with rehearsal_server.http() as api:
        assert api.get("/v3/marketing/segments").json() == {"errors": [{"message": "resource not found"}]}
        assert api.delete(LISTS).status_code == 405
        assert (
            api.put("/v3/marketing/contacts", content="{}", headers={"Content-Type": "text/plain"}).status_code == 415
        )
        assert api.get("/v3/suppression/everything").status_code == 404


def test_another_host_name_gets_nothing(rehearsal_server: RehearsalServer) -> None:
    for path in ("/mailbox", "/history", "/health", LISTS):
        url = rehearsal_server.host + path
        answer = httpx.get(url, headers={"Host": "rebound.example.com"}, trust_env=False)
        assert (answer.status_code, answer.text) == (400, "Invalid host header")
    assert httpx.get(rehearsal_server.host.replace("127.0.0.1", "localhost") + "/health", trust_env=False).is_success


def test_the_history_tells_every_request_and_nobody(rehearsal_server: RehearsalServer) -> None:
    with rehearsal_server.http() as api:
        body = {"contacts": [{"email": "canary@example.com"}]}
        api.put("/v3/marketing/contacts", json=body)
        api.post("/v3/asm/suppressions/global", json={"recipient_emails": ["canary@example.com"]})
        api.delete("/v3/asm/suppressions/global/canary@example.com")
        api.delete("/v3/asm/suppressions/global/canary%40example.com")
        api.get("/v3/suppression/bounces?email=canary@example.com")
        history = api.get("/history").json()
    found = [(entry["method"], entry["path"], entry["status"]) for entry in history["requests"]]
    assert found == [
        ("PUT", "/v3/marketing/contacts", 202),
        ("POST", "/v3/asm/suppressions/global", 201),
        ("DELETE", "/v3/asm/suppressions/global/{email}", 204),
        ("DELETE", "/v3/asm/suppressions/global/{email}", 404),
        ("GET", "/v3/suppression/bounces", 200),
    ]
    assert history["count"] == 5
    assert history["requests"][0]["bytes"] == len(rehearsal_server.exchanges[0].body) > 0
    file = rehearsal_server.state_path.with_name(rehearsal_server.state_path.name + "-history")
    wal = file.with_name(file.name + "-wal")
    content = file.read_bytes() + wal.read_bytes()
    assert b"/v3/suppression/bounces" in content
    assert b"canary" not in content
    assert rehearsal_server.api_key.encode() not in content


def test_the_history_is_only_added_to(rehearsal_server: RehearsalServer) -> None:
    with rehearsal_server.http() as api:
        for _ in range(5):
            api.get(LISTS)
        page = api.get("/history?after=2&limit=2").json()
        assert [entry["request"] for entry in page["requests"]] == [3, 4]
        assert api.get("/history?limit=0").status_code == 400
    file = rehearsal_server.state_path.with_name(rehearsal_server.state_path.name + "-history")
    connection = sqlite3.connect(file)
    for statement in ("DELETE FROM requests", "UPDATE requests SET status = 200"):
        with pytest.raises(sqlite3.IntegrityError, match="only ever added"):
            connection.execute(statement)
    connection.close()


def test_past_the_limit_requests_are_turned_away(tmp_path: Path) -> None:
    with serve(tmp_path / "s.sqlite", limit_per_minute=3) as served, served.http() as api:
        answers = [api.get(LISTS) for _ in range(8)]
        # A minute may end in between, and the count begins again: 6 of 8 pass at most.
        refused = [answer for answer in answers if answer.status_code == 429]
        assert len(refused) >= 2
        assert refused[0].json() == {"errors": [{"field": None, "message": "too many requests"}]}
        assert refused[0].headers["x-ratelimit-limit"] == "3"
        assert refused[0].headers["x-ratelimit-remaining"] == "0"
        assert 0 < int(refused[0].headers["x-ratelimit-reset"]) - time.time() <= 61
        assert answers[0].headers["x-ratelimit-remaining"] == "2"
        assert api.get("/v3/asm/groups").is_success  # each endpoint has its own


def test_a_state_of_another_version_is_refused(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "s.sqlite")
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    with pytest.raises(StorageError, match="version 99"), serve(tmp_path / "s.sqlite"):
        pass


def start(tmp_path: Path, port: int) -> subprocess.Popen[bytes]:
    key_file = tmp_path / "key"
    key_file.write_text("SG.key\n")
    command = [
        sys.executable, "-m", "jobs.serve_rehearsal", "--port", str(port), "--state", str(tmp_path / "s.sqlite"),
        "--key-file", str(key_file), "--job-lag-seconds", "0.05",
    ]  # fmt: skip
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def test_the_program_serves_this_machine_alone_and_ends_in_two_seconds(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    process = start(tmp_path, port)
    try:
        url = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + 20
        while True:
            try:
                assert httpx.get(f"{url}/health", trust_env=False).json()["status"] == "ok"
                break
            except httpx.TransportError:
                assert process.poll() is None
                assert time.monotonic() < deadline
                time.sleep(0.05)
        # 127.0.0.2 is this machine too, but not where the server listens.
        with pytest.raises(OSError, match="refused"):
            socket.create_connection(("127.0.0.2", port), timeout=2)
        with httpx.Client(base_url=url, headers={"Authorization": "Bearer SG.key"}, trust_env=False) as api:
            assert api.get(LISTS).is_success  # and the connection stays open over the end
            second = start(tmp_path, port)
            assert b"cannot be used" in second.communicate(timeout=20)[1]
            assert second.returncode == ConfigError.exit_status
            process.send_signal(signal.SIGTERM)
            asked_at = time.monotonic()
            process.wait(timeout=10)
            assert time.monotonic() - asked_at < 2
    finally:
        process.kill()
        out, err = process.communicate()
    assert b"SG.key" not in out + err
    assert b"Traceback" not in err


@pytest.mark.parametrize("content", [None, b"", b"\n", "clé".encode(), b"a\nb"])
def test_a_key_file_that_holds_no_key_is_refused(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "key").write_bytes(content)
    with pytest.raises(ConfigError):
        serve_rehearsal.main(
            port=0, state=tmp_path / "s", key_file=tmp_path / "key", job_lag_seconds=0, requests_per_minute=None
        )
    assert not (tmp_path / "s").exists()
