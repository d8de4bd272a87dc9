"""Every problem of the machine or the request is found before anything starts, all at once, each with its remedy."""

import dataclasses
import datetime as dt
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from free_ports import free_ports

from ryml_airflow.stack.preflight import FREE_DISK_BYTES, _disk_problem, _python_problem, data_problem, machine_problems
from ryml_airflow.stack.run_settings import Source, read_source, resolve_data
from ryml_airflow.stack.up import UpOptions, checked_settings
from schemas.errors import ConfigError

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


def java_that_says(folder: Path, text: str) -> Path:
    (folder / "bin").mkdir(parents=True)
    java = folder / "bin" / "java"
    java.write_text(f"#!/bin/sh\necho '{text}' >&2\n")
    java.chmod(0o755)
    return folder


def problems(root: Path, environ: dict[str, str], **ports: int) -> list[str]:
    return machine_problems(root=root, environ=environ, ports=ports)


@pytest.fixture
def good_environ(tmp_path: Path) -> dict[str, str]:
    home = java_that_says(tmp_path / "jdk", 'openjdk version "17.0.15" 2025-04-15')
    return {"JAVA_HOME": str(home), "PATH": "/usr/bin:/bin"}


def test_a_machine_that_is_as_it_should_be(tmp_path: Path, good_environ: dict[str, str]) -> None:
    api, rehearsal = free_ports(2)
    assert problems(tmp_path, good_environ, API_PORT=api, REHEARSAL_PORT=rehearsal) == []


def test_a_taken_port_is_named_with_its_variable_and_its_owner(
    tmp_path: Path, good_environ: dict[str, str], taken_port: int
) -> None:
    (other,) = free_ports(1)
    (problem,) = problems(tmp_path, good_environ, API_PORT=taken_port, REHEARSAL_PORT=other)
    assert f"Port {taken_port} is taken by" in problem
    assert f"(pid {os.getpid()})" in problem
    assert "make run API_PORT=" in problem


def test_a_port_that_was_just_given_up_is_free(tmp_path: Path, good_environ: dict[str, str]) -> None:
    """The system remembers closed connections for a minute; servers may listen all the same."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        (port,) = free_ports(1)
        listener.bind(("127.0.0.1", port))
        listener.listen()
        with socket.create_connection(("127.0.0.1", port)):
            accepted, _ = listener.accept()
            accepted.close()  # closing first leaves TIME_WAIT on the server's side
    assert problems(tmp_path, good_environ, API_PORT=port) == []


@pytest.mark.parametrize("port", [0, -1, 65536])
def test_an_impossible_port(tmp_path: Path, good_environ: dict[str, str], port: int) -> None:
    (problem,) = problems(tmp_path, good_environ, API_PORT=port)
    assert f"API_PORT is {port}" in problem


def test_one_port_for_two(tmp_path: Path, good_environ: dict[str, str]) -> None:
    (port,) = free_ports(1)
    (problem,) = problems(tmp_path, good_environ, API_PORT=port, REHEARSAL_PORT=port)
    assert "API_PORT and REHEARSAL_PORT are both" in problem


def test_no_java(tmp_path: Path) -> None:
    (problem,) = problems(tmp_path, {"PATH": str(tmp_path)})
    assert "There is no java on PATH; expected version 17" in problem
    assert "apt-get install openjdk-17" in problem


@pytest.mark.parametrize(
    ("said", "is_fine"),
    [
        ('openjdk version "17.0.15" 2025-04-15', True),
        ('openjdk version "21" 2023-09-19', True),
        ('openjdk version "11.0.22" 2024-01-16', False),
        ('java version "1.8.0_392"', False),
        ("something else", False),
    ],
)
def test_java_versions(tmp_path: Path, said: str, is_fine: bool) -> None:
    found = problems(tmp_path, {"JAVA_HOME": str(java_that_says(tmp_path / "home", said)), "PATH": "/usr/bin:/bin"})
    assert (found == []) == is_fine
    assert all(said in problem and "is too old" in problem for problem in found)


def test_a_java_home_without_java(tmp_path: Path) -> None:
    (problem,) = problems(tmp_path, {"JAVA_HOME": str(tmp_path / "nothing"), "PATH": os.environ["PATH"]})
    assert "(from JAVA_HOME) does not run" in problem


def test_a_full_disk_and_another_python(tmp_path: Path) -> None:
    assert _disk_problem(tmp_path, FREE_DISK_BYTES) is None
    assert "make clean" in str(_disk_problem(tmp_path, FREE_DISK_BYTES - 1))
    assert _python_problem((3, 11)) is None
    assert "This is Python 3.12; expected 3.11" in str(_python_problem((3, 12)))


def test_data_that_is_missing_or_empty(tmp_path: Path) -> None:
    source = Source(tmp_path / "shop.toml", "shop", None, None)
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "no data_folder" in str(data_problem(source, None))
    assert "is not there" in str(data_problem(source, str(tmp_path / "nowhere")))
    assert "is empty" in str(data_problem(source, str(empty)))
    (empty / "events.csv").touch()
    assert data_problem(source, str(empty)) is None
    assert data_problem(source, "postgresql://db.example.com/shop") is None


def settings_file(folder: Path, text: str) -> Path:
    path = folder / "shop.toml"
    path.write_text(text)
    return path


def test_a_settings_file_is_read(tmp_path: Path) -> None:
    text = 'name = "my_shop"\ndefault_date = 2011-11-30\ndata_folder = "../data"\n'
    source = read_source(settings_file(tmp_path, text))
    assert (source.name, source.default_date) == ("my_shop", dt.date(2011, 11, 30))
    assert resolve_data(source, None, tmp_path / "demo") == str(tmp_path.parent / "data")
    assert resolve_data(source, str(tmp_path), tmp_path / "demo") == str(tmp_path)
    assert resolve_data(source, "s3://bucket/folder", tmp_path / "demo") == "s3://bucket/folder"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("name = ", "not a TOML file"),
        ("kind = 'sql'", "name is None"),
        ("name = '../outside'", "expected letters"),
        ("name = 'shop'\ndefault_date = 'yesterday'", "expected a date like"),
    ],
)
def test_a_settings_file_that_is_wrong(tmp_path: Path, text: str, expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        read_source(settings_file(tmp_path, text))


def options(root: Path, source: Path, *, api_port: int, date: dt.date | None = None) -> UpOptions:
    return UpOptions(
        root=root,
        source=source,
        data=None,
        users=100,
        date=date,
        days=3,
        api_port=api_port,
        rehearsal_port=free_ports(1)[0],
        leaves_after_batch=True,
    )


def test_all_problems_come_at_once(tmp_path: Path, taken_port: int) -> None:
    source = settings_file(tmp_path, "name = 'shop'\ndefault_date = 2011-11-30\ndata_folder = 'nowhere'\n")
    with pytest.raises(ConfigError) as caught:
        checked_settings(options(tmp_path, source, api_port=taken_port), {"PATH": str(tmp_path)})
    paragraphs = str(caught.value).split("\n\n")
    assert len(paragraphs) == 3
    for paragraph, expected in zip(paragraphs, ["no java", "is taken", "nowhere, is not there"], strict=True):
        assert expected in paragraph
        assert "; expected" in paragraph


def test_a_source_without_a_date(tmp_path: Path, good_environ: dict[str, str]) -> None:
    source = settings_file(tmp_path, "name = 'shop'\ndata_folder = '.'\n")
    (port,) = free_ports(1)
    with pytest.raises(ConfigError, match=r"make run DATE="):
        checked_settings(options(tmp_path, source, api_port=port), good_environ)
    settings = checked_settings(options(tmp_path, source, api_port=port, date=dt.date(2026, 2, 27)), good_environ)
    assert [str(date) for date in settings.dates] == ["2026-02-27", "2026-02-28", "2026-03-01"]
    assert settings.work == tmp_path / ".airflow/work/shop"


def test_demo_shops_of_different_size_or_beginning_do_not_mix(tmp_path: Path, good_environ: dict[str, str]) -> None:
    source = settings_file(tmp_path, "name = 'demo_shop'\n")
    (port,) = free_ports(1)
    at_default, later, earlier = (
        checked_settings(options(tmp_path, source, api_port=port, date=date), good_environ)
        for date in (None, dt.date(2026, 11, 9), dt.date(2026, 10, 1))
    )
    assert at_default.dates[0] == dt.date(2026, 11, 4)
    assert at_default.data == str(tmp_path / ".airflow/work/demo_shop-100/shop.db")
    assert at_default.is_demo
    assert later.work == at_default.work
    assert later.shop_first_date == at_default.shop_first_date == dt.date(2026, 9, 6)
    assert earlier.work == tmp_path / ".airflow/work/demo_shop-100-from-2026-08-03"
    assert earlier.shop_first_date == dt.date(2026, 8, 3)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["up", "--source", "nowhere.toml"], "nowhere.toml: no such file"),
        (["up", "--date", "tomorrow"], "expected a date like"),
        (["up", "--users", "0"], "expected a whole number"),
    ],
)
def test_the_command_says_what_is_wrong_and_leaves_nothing(tmp_path: Path, arguments: list[str], expected: str) -> None:
    answer = subprocess.run(
        [sys.executable, "-m", "ryml_airflow.stack", "--root", str(tmp_path), *arguments],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": f"{REPOSITORY}:{REPOSITORY / 'plugins'}"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 2
    assert expected in answer.stdout + answer.stderr
    assert "Traceback" not in answer.stderr
    assert not (tmp_path / ".airflow" / "work").exists()
    assert not (tmp_path / ".airflow" / "secrets").exists()


def test_a_bad_night_has_a_folder_of_its_own(tmp_path: Path, good_environ: dict[str, str]) -> None:
    source = settings_file(tmp_path, "name = 'demo_shop'\n")
    (port,) = free_ports(1)
    plain = options(tmp_path, source, api_port=port)
    good, bad = (checked_settings(one, good_environ) for one in (plain, dataclasses.replace(plain, fault_seed=7)))
    assert (good.fault_seed, bad.fault_seed) == (None, 7)
    assert good.work == tmp_path / ".airflow/work/demo_shop-100"
    assert bad.work == tmp_path / ".airflow/work/demo_shop-100-faults-7"
    assert bad.is_demo
    assert bad.data == str(bad.work / "shop.db")
