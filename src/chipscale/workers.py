"""Who runs the tasks of a sweep: processes of this machine, or the workers of a Dask scheduler."""

from __future__ import annotations

import multiprocessing
import os
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager
from importlib.util import find_spec
from urllib.parse import urlsplit

from chipscale.evidence import EvidenceError

#: seconds to open a connection, and further ones to be answered as by a scheduler; together less than 10
REACH, ANSWER = 3.0, 5.0
EXTRA = "pip install 'chipscale[sweep]'"


def cores() -> int:
    """Return the cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def has_dask() -> bool:
    """Return whether the extra `sweep` is installed."""
    return find_spec("distributed") is not None


@contextmanager
def executor(scheduler: str | None) -> Iterator[tuple[Executor, str]]:
    """Yield what runs tasks, and its name: the workers of the scheduler at this address, else a local Dask cluster, else a pool of processes.

    Errors: a scheduler that cannot be reached, or has no workers, within 10 s.
    """
    if scheduler is not None:
        _reach(scheduler)
        if not has_dask():
            raise EvidenceError(f"--scheduler {scheduler}: needs Dask, which is not installed: {EXTRA}")
        with _remote(scheduler) as found:
            yield found
    elif has_dask():
        with _local() as found:
            yield found
    else:
        with ProcessPoolExecutor(cores(), mp_context=multiprocessing.get_context("spawn"), initializer=_follow_parent) as pool:
            try:
                yield pool, f"{cores()} processes (without Dask: {EXTRA})"
            finally:
                pool.shutdown(wait=False, cancel_futures=True)


def _follow_parent() -> None:
    """End this process when the one that started it is gone, also where that was killed."""

    def wait() -> None:
        parent = multiprocessing.parent_process()
        if parent is not None:
            parent.join()
            os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def _reach(address: str) -> None:
    """Refuse an address at which nothing listens or where it does not greet, as a Dask scheduler does first, whatever a name server does meanwhile."""
    parts = urlsplit(address)
    try:
        host, port = parts.hostname, parts.port
    except ValueError:
        host = port = None
    if parts.scheme not in ("tcp", "tls") or not host or not port:
        raise EvidenceError(f"--scheduler {address}: write an address as in tcp://host:8786")
    said: list[str] = ["no answer"]

    def knock() -> None:
        try:
            with socket.create_connection((host, port), timeout=REACH) as line:
                spoke = parts.scheme == "tls" or line.recv(1)
            said[0] = "" if spoke else "does not answer as a Dask scheduler"
        except TimeoutError:
            said[0] = "does not answer as a Dask scheduler"
        except OSError as problem:
            said[0] = problem.strerror or str(problem)

    one = threading.Thread(target=knock, daemon=True)
    one.start()
    one.join(REACH + 1.0)
    if said[0]:
        raise EvidenceError(f"--scheduler {address}: cannot be reached ({said[0]}); start it with `dask scheduler`, or correct the address; {KEPT}")


KEPT = "what is done is kept"


@contextmanager
def _remote(address: str) -> Iterator[tuple[Executor, str]]:
    from dask import config
    from distributed import Client

    with config.set({"distributed.comm.timeouts.connect": f"{ANSWER}s"}):
        try:
            client = Client(address, timeout=ANSWER, set_as_default=False)
        except OSError as problem:
            raise EvidenceError(f"--scheduler {address}: does not answer as a Dask scheduler; correct the address; {KEPT}") from problem
        with client:
            workers = client.scheduler_info(n_workers=-1)["workers"]
            if not workers:
                raise EvidenceError(f"--scheduler {address}: has no workers; start some with `dask worker {address}`; {KEPT}")
            yield client.get_executor(pure=False), f"{len(workers)} workers of {address}"


@contextmanager
def _local() -> Iterator[tuple[Executor, str]]:
    from distributed import Client, LocalCluster

    with (
        LocalCluster(n_workers=cores(), threads_per_worker=1, dashboard_address=None) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        yield client.get_executor(pure=False), f"a local Dask cluster of {cores()} workers"
