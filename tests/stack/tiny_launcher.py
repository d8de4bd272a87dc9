"""A launcher as small as can be: the real Supervisor over a few shell processes. Run by test_stack_supervision.

Usage: tiny_launcher.py ROOT SCENARIO
"""

import os
import sys
from pathlib import Path

# Python that is interrupted before this line, while it imports `site`, ends with status 1: no test of ours.
Path(sys.argv[1], "begun").touch()

from ryml_airflow.stack.interruption import InterruptedBySignalError, Interruption  # noqa: E402
from ryml_airflow.stack.stack_file import stack_lock  # noqa: E402
from ryml_airflow.stack.supervisor import Supervisor  # noqa: E402
from schemas.errors import RymlError  # noqa: E402

GRACE_SECONDS = 0.5

# A service with a child, a grandchild in a session of its own that lost its parent, and one that ignores SIGTERM.
FAMILY = """
sleep 1000 &
(setsid sleep 1000 &)
(setsid bash -c 'trap "" TERM; while ((SECONDS < 120)); do sleep 0.05; done' &)
wait
"""


def main(root: Path, scenario: str) -> int:
    interruption = Interruption()
    with interruption.installed(), stack_lock(root) as is_held:
        if not is_held:
            return 77
        supervisor = Supervisor(
            root=root,
            url="http://127.0.0.1:1",
            logs=root / "logs",
            environment=os.environ,
            interruption=interruption,
            grace_seconds=GRACE_SECONDS * (6 if scenario == "ends slowly" else 1),
        )

        def body() -> int:
            try:
                supervisor.start("step", ["bash", "-c", "sleep 0.1"], is_service=False)
                for number in range(3):
                    supervisor.start(f"family-{number}", ["bash", "-c", FAMILY], is_service=True)
                    (root / f"started-{number}").touch()
                if scenario == "dies":
                    supervisor.start("mortal", ["bash", "-c", "sleep 0.3; echo last words; exit 9"], is_service=True)
                if scenario == "fails":
                    supervisor.start("failing", ["bash", "-c", "echo no good; exit 3"], is_service=False)
                while not supervisor.is_done("step"):
                    supervisor.pause(0.05)
                (root / "ready").touch()
                if scenario.startswith("ends"):
                    return 0
                while True:
                    supervisor.pause(60)
            except RymlError as error:
                sys.stdout.write(f"{error}\n")
                return error.exit_status

        try:
            return supervisor.run(body)
        except InterruptedBySignalError as error:
            return error.exit_status


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2]))
