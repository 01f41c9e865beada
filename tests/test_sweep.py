"""Sweeps: killed, torn, resumed, in any order, twice at once, and without workers."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from chipscale.catalog import load
from chipscale.evidence import EvidenceError
from chipscale.sweep import Swept, Task, key, line, parsed, run, store, sweep, tasks
from chipscale.workers import executor

LLAMA, MOE = "meta-llama/Meta-Llama-3.1-8B", "deepseek-ai/DeepSeek-V3"
SMALL = tasks(load(), ["h100", "mi300x"], ["Meta-Llama-3.1-8B"], [8, 16])
MANY = ("--chips", "h100,910b2,mi300x,a100,b200", "--models", "Meta-Llama-3.1-8B,DeepSeek-V3", "--sizes", "8,64,512")


@contextmanager
def threads() -> Iterator[tuple[Executor, str]]:
    with ThreadPoolExecutor(2) as pool:
        yield pool, "threads"


def done(wanted: tuple[Task, ...], path: Path) -> Swept:
    return sweep(load(), wanted, path, threads)


def command(path: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "chipscale.cli", "sweep", *MANY, "--out", str(path), *more]


def lines(path: Path) -> list[bytes]:
    return path.read_bytes().splitlines(keepends=True) if path.exists() else []


def alive(group: int) -> bool:
    """Return whether a process of this group runs."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def test_a_killed_sweep_goes_on_where_it_was(tmp_path: Path) -> None:
    whole, broken = tmp_path / "whole.jsonl", tmp_path / "broken.jsonl"
    subprocess.run(command(whole), check=True, capture_output=True)
    total = len(lines(whole))
    assert total == 30
    first = subprocess.Popen(command(broken), start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until = time.monotonic() + 60.0
    while len(lines(broken)) < 3 and time.monotonic() < until:
        time.sleep(0.005)
    first.send_signal(signal.SIGKILL)
    first.wait()
    before = [text for text in lines(broken) if text.endswith(b"\n")]
    assert 3 <= len(before) < total
    until = time.monotonic() + 20.0
    while alive(first.pid) and time.monotonic() < until:
        time.sleep(0.05)
    assert not alive(first.pid)  # its workers end too
    second = subprocess.run(command(broken), check=True, capture_output=True, text=True)
    assert f"{len(before)} of {total} tasks stood in" in second.stderr
    assert lines(broken)[: len(before)] == before
    assert sorted(lines(broken)) == sorted(lines(whole))
    third = subprocess.run(command(broken, "--json"), check=True, capture_output=True, text=True)
    assert f"{total} of {total} tasks stood in" in third.stderr
    assert len(json.loads(third.stdout)) == total
    assert sorted(lines(broken)) == sorted(lines(whole))


@pytest.mark.parametrize("left", [1, 20, 200])
def test_a_torn_line_is_done_again(tmp_path: Path, left: int) -> None:
    path = tmp_path / "r.jsonl"
    whole = done(SMALL, path)
    kept = lines(path)
    path.write_bytes(b"".join(kept[:-1]) + kept[-1][:left])
    again = done(SMALL, path)
    assert again.found == len(SMALL) - 1
    assert again.results == whole.results
    assert sorted(lines(path)) == sorted(kept)


def test_the_order_of_tasks_does_not_matter(tmp_path: Path) -> None:
    forth, back = done(SMALL, tmp_path / "a"), done(SMALL[::-1], tmp_path / "b")
    assert sorted(lines(tmp_path / "a")) == sorted(lines(tmp_path / "b"))
    assert forth.results == back.results[::-1]
    names = tasks(load(), ["mi300x", "h100", "nvidia-h100-sxm-80gb"], [LLAMA, "Meta-Llama-3.1-8B"], [16, 8, 8])
    assert names == SMALL


def test_a_task_that_cannot_be_done_is_a_result(tmp_path: Path) -> None:
    wanted = tasks(load(), ["h100"], [MOE], [8])
    (result,) = done(wanted, tmp_path / "r").results
    assert result.outcomes == ()
    assert "does not fit" in result.reason
    assert done(wanted, tmp_path / "r").found == 1
    assert parsed(line(result)) == result


def test_a_believed_chip_has_an_outcome_for_each_hypothesis(tmp_path: Path) -> None:
    (result,) = done(tasks(load(), ["910d"], [LLAMA], [64]), tmp_path / "r").results
    assert len({o.hypothesis for o in result.outcomes}) == len(result.outcomes) > 2
    assert all(o.low < o.seconds < o.high and o.memory_bytes < o.memory_capacity and 0 < o.mfu < 1 for o in result.outcomes)


def test_two_sweeps_do_not_write_one_file(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    with store(path), pytest.raises(EvidenceError, match="another sweep is writing it"):
        done(SMALL, path)
    assert done(SMALL, path).found == 0


@pytest.mark.parametrize("text", [b"a note\n", b"a note", b'{"key": "x"}\n', b"[]\n", b"\x00\xff"])
def test_a_file_of_something_else_is_left_alone(tmp_path: Path, text: bytes) -> None:
    path = tmp_path / "r.jsonl"
    path.write_bytes(text)
    with pytest.raises(EvidenceError, match="line 1 is no result of a sweep"):
        done(SMALL, path)
    assert path.read_bytes() == text


def test_a_file_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "no" / "r.jsonl"):
        with pytest.raises(EvidenceError, match="cannot be written"):
            done(SMALL, path)


def test_a_changed_fact_or_input_makes_another_task(tmp_path: Path) -> None:
    folder = tmp_path / "catalog" / "chips"
    folder.mkdir(parents=True)
    text = load().text("chips/nvidia-h100-sxm-80gb.toml").replace('"989.4 TFLOP/s"', '"900 TFLOP/s"')
    (folder / "nvidia-h100-sxm-80gb.toml").write_text(text)
    mine, (task, *_) = load(folder.parent), tasks(load(), ["h100"], [LLAMA], [8])
    (longer,) = tasks(load(), ["h100"], [LLAMA], [8], length=8192)
    assert len({key(load(), task), key(mine, task), key(load(), longer)}) == 3
    assert run(task, folder.parent).key == key(mine, task)
    with pytest.raises(EvidenceError, match="other facts"):  # a worker that reads another catalogue
        sweep(load(), [task], tmp_path / "r", threads, folder=folder.parent)
    assert lines(tmp_path / "r") == []


def test_names_are_checked_before_anything_runs() -> None:
    for chips, models in ((["h1000"], [LLAMA]), (["h100"], ["llama-9"]), ([], [LLAMA])):
        with pytest.raises(EvidenceError):
            tasks(load(), chips, models, [8])


# --- schedulers


@pytest.mark.parametrize("address", ["tcp://127.0.0.1:1", "tcp://no-such-host.invalid:8786", "nonsense", "tcp://host", "tcp://host:99999999"])
def test_a_scheduler_that_cannot_be_reached_is_said_soon_and_nothing_is_lost(tmp_path: Path, address: str) -> None:
    path = tmp_path / "r.jsonl"
    done(SMALL[:2], path)
    before, start = path.read_bytes(), time.monotonic()
    with pytest.raises(EvidenceError, match="--scheduler"):
        sweep(load(), SMALL, path, lambda: executor(address))
    assert time.monotonic() - start < 10.0
    assert path.read_bytes() == before


def test_what_listens_but_is_no_scheduler_is_said_within_ten_seconds(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        start = time.monotonic()
        with pytest.raises(EvidenceError, match="does not answer as a Dask scheduler"):
            sweep(load(), SMALL, tmp_path / "r", lambda: executor(f"tcp://127.0.0.1:{silent.getsockname()[1]}"))
        assert time.monotonic() - start < 10.0


@pytest.mark.filterwarnings("default")
def test_a_dask_scheduler_gives_the_same_as_threads(tmp_path: Path) -> None:
    distributed = pytest.importorskip("distributed", reason="needs the extra sweep")
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=None) as cluster:
        found = sweep(load(), SMALL, tmp_path / "dask", lambda: executor(cluster.scheduler_address))
        assert found.runner.startswith("2 workers of tcp://")
    done(SMALL, tmp_path / "threads")
    assert sorted(lines(tmp_path / "dask")) == sorted(lines(tmp_path / "threads"))
