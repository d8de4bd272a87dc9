"""Processes for tests that take some: forks of one that has imported what they need, ready in 20 ms.

A spawned process imports it all anew, 2 s and more on a busy machine: eight of them take longer than what they are for,
and whoever kills one at a random instant of its first half second kills an import.
"""

import multiprocessing
import os
import sys
from multiprocessing import forkserver

import pytest

NEEDED = (
    "jobs.delivery.chunk_push", "jobs.reconcile_push", "jobs.schedule_send", "jobs.delivery.sendgrid_client",
    "jobs.lake.lake", "rehearsal_fixture", "moto.server", "pytest",
)  # fmt: skip


def _missing(results):
    results.put([name for name in NEEDED if name not in sys.modules])


@pytest.fixture(scope="session")
def forks():
    """The context whose processes are such forks; there is one server for all tests of this process."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(NEEDED))
    with pytest.MonkeyPatch.context() as patch:
        # Python 3.11 tells the server the path and the server does not look at it; what it can't import it passes over.
        patch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
        forkserver.ensure_running()
    results = context.SimpleQueue()
    process = context.Process(target=_missing, args=(results,))
    process.start()
    assert results.get() == []
    process.join()
    return context
