"""What has to be true before anything starts; every problem is found at once, each with its remedy."""

import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from ryml_airflow.stack.processes import owner_of_port
from ryml_airflow.stack.run_settings import Source

PYTHON = (3, 11)
JAVA_AT_LEAST = 17  # what Spark 4 needs
FREE_DISK_BYTES = 2 * 10**9
_JAVA_VERSION = re.compile(r'version "(?:1\.)?(\d+)')


def machine_problems(*, root: Path, environ: Mapping[str, str], ports: Mapping[str, int]) -> list[str]:
    """Check Python, Java, Spark, disk and ports; `ports` maps the variable that sets a port to the port."""
    found = (
        _python_problem(sys.version_info[:2]),
        _java_problem(environ),
        _spark_problem(Path(sys.prefix) / "bin" / "spark-submit"),
        _disk_problem(root, shutil.disk_usage(root).free),
        *_port_problems(ports),
    )
    return [problem for problem in found if problem]


def data_problem(source: Source, data: str | None) -> str | None:
    """Say what is wrong with where the data should be; a database by URL is left to the export."""
    if data is None:
        return (
            f"{source.path}: no data_folder, and no DATA was given; expected the place of the data. "
            "Say where it is: make run SOURCE=... DATA=folder"
        )
    place = Path(data)
    if "://" in data or place.is_file() or (place.is_dir() and any(place.iterdir())):
        return None
    what = "empty" if place.is_dir() else "not there"
    return (
        f"The data of {source.name}, {data}, is {what}; expected the files that {source.path.name} describes. "
        f"Put them there, or say where they are: make run SOURCE={source.path} DATA=folder"
    )


def _python_problem(version: tuple[int, int]) -> str | None:
    if version == PYTHON:
        return None
    return (
        f"This is Python {version[0]}.{version[1]}; expected {PYTHON[0]}.{PYTHON[1]}, for which requirements.txt was "
        f"resolved. Install python{PYTHON[0]}.{PYTHON[1]}, remove .venv and type `make run` again."
    )


def _java_problem(environ: Mapping[str, str]) -> str | None:
    remedy = (
        f"Spark needs Java {JAVA_AT_LEAST} or newer: install it (Debian, Ubuntu: apt-get install "
        f"openjdk-{JAVA_AT_LEAST}-jre-headless; macOS: brew install openjdk@{JAVA_AT_LEAST}), "
        "and set JAVA_HOME or PATH to it."
    )
    home = environ.get("JAVA_HOME")  # goes before PATH, as in Spark's own scripts
    java = f"{home}/bin/java" if home else shutil.which("java", path=environ.get("PATH", ""))
    if java is None:
        return f"There is no java on PATH; expected version {JAVA_AT_LEAST} or newer. {remedy}"
    try:
        answer = subprocess.run(
            [java, "-version"], capture_output=True, text=True, env=dict(environ), timeout=30, check=True
        )
    except (OSError, subprocess.SubprocessError) as error:
        where = " (from JAVA_HOME)" if home else ""
        return f"{java}{where} does not run: {error}; expected version {JAVA_AT_LEAST} or newer. {remedy}"
    version = _JAVA_VERSION.search(answer.stderr + answer.stdout)
    if version is None or int(version[1]) < JAVA_AT_LEAST:
        said = (answer.stderr or answer.stdout).partition("\n")[0]
        return f"{java} is too old: {said}; expected version {JAVA_AT_LEAST} or newer. {remedy}"
    return None


def _spark_problem(spark_submit: Path) -> str | None:
    if spark_submit.exists():
        return None
    return f"There is no {spark_submit}; expected pyspark in this environment. Type `make install`."


def _disk_problem(root: Path, free_bytes: int) -> str | None:
    if free_bytes >= FREE_DISK_BYTES:
        return None
    return (
        f"{free_bytes / 1e9:.1f} GB are free on the disk of {root}; expected {FREE_DISK_BYTES / 1e9:.0f} GB for the "
        "lake, Spark and the logs. Make room; `make clean` removes what earlier runs left."
    )


def _port_problems(ports: Mapping[str, int]) -> list[str]:
    problems = []
    for variable, port in ports.items():
        twin = next((other for other in ports if ports[other] == port and other != variable), None)
        if not 1 <= port <= 65535:
            problems.append(f"{variable} is {port}; expected a port from 1 to 65535. Give another: {variable}=8090")
        elif twin is not None:
            if variable < twin:
                problems.append(f"{variable} and {twin} are both {port}; expected two ports. Change one of them.")
        elif (error := _bind_error(port)) is not None:
            owner = owner_of_port(port)
            by = f" by {owner}" if owner else ""
            problems.append(
                f"Port {port} is taken{by} ({error}); expected it to be free. Stop what uses it "
                f"(`make stop`, if it is an older run of this), or take another: make run {variable}={port + 10}"
            )
    return problems


def _bind_error(port: int) -> str | None:
    with socket.socket() as probe:
        # As servers do: a connection of an earlier run that the system still remembers is no hindrance.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            return error.strerror
    return None
