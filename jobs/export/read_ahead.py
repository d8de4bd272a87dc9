"""Read the next batch of a source while the one before it is worked on.

Drivers and readers leave the interpreter's lock while they wait and decode, so a thread is enough. Measured on millions
of events: bench/export_rows.py.
"""

import contextlib
import queue
import threading
from collections.abc import Iterator
from typing import Final

import pyarrow as pa

_AHEAD: Final = 1  # batches that wait; a driver's are up to 20 MB


@contextlib.contextmanager
def read_ahead(batches: Iterator[pa.RecordBatch]) -> Iterator[Iterator[pa.RecordBatch]]:
    """Draw from an iterator in a thread of its own; what it raises is raised where its batch would have come.

    The thread has ended when the context ends, and the iterator is not drawn from any more.
    """
    waiting: queue.Queue[pa.RecordBatch | BaseException | None] = queue.Queue(_AHEAD)
    stopped = threading.Event()

    def put(item: pa.RecordBatch | BaseException | None) -> None:
        while not stopped.is_set():
            with contextlib.suppress(queue.Full):
                waiting.put(item, timeout=0.05)
                return

    def draw() -> None:
        try:
            for batch in batches:
                put(batch)
                if stopped.is_set():
                    return
            put(None)
        except BaseException as error:  # raised again, where the batch would have come
            put(error)

    def drawn() -> Iterator[pa.RecordBatch]:
        while (item := waiting.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item

    thread = threading.Thread(target=draw, name="read ahead", daemon=True)
    thread.start()
    try:
        yield drawn()
    finally:
        stopped.set()
        thread.join()
