from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from layerlock.data.pool import Failure, run_in_processes
from layerlock.errors import LayerlockError


def square(number: int) -> int:
    time.sleep(0.01 * (number % 3))
    return number * number


def troubled(number: int) -> int:
    if number == 3:
        os.kill(os.getpid(), signal.SIGSEGV)
    if number == 5:
        time.sleep(60)
    if number == 7:
        os._exit(4)
    return number


def mistaken(number: int) -> int:
    return 1 // number


@pytest.mark.parametrize("workers", [0, 1, 3])
@pytest.mark.parametrize("ahead", [0, 20])
def test_results_come_in_order(workers: int, ahead: int) -> None:
    assert list(run_in_processes(square, range(30), workers=workers, seconds=30, ahead=ahead)) == [
        i * i for i in range(30)
    ]


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("ahead", [0, 20])
def test_a_crash_or_hang_costs_one_task(workers: int, ahead: int) -> None:
    results = list(run_in_processes(troubled, range(12), workers=workers, seconds=5.0, ahead=ahead))
    assert [i for i, result in enumerate(results) if isinstance(result, Failure)] == [3, 5, 7]
    assert "SIGSEGV" in results[3].reason
    assert "too long" in results[5].reason
    assert "exit code 4" in results[7].reason
    assert [result for result in results if isinstance(result, int)] == [0, 1, 2, 4, 6, 8, 9, 10, 11]


@pytest.mark.parametrize("tasks", [[], [1]])
def test_a_number_of_processes_that_cannot_be_is_refused(tasks: list[int]) -> None:
    with pytest.raises(LayerlockError, match="workers: 100,000 is more than 1,024 processes"):
        list(run_in_processes(square, tasks, workers=100_000, seconds=30))
    with pytest.raises(LayerlockError, match="workers: -3 is negative"):
        list(run_in_processes(square, tasks, workers=-3, seconds=30))


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize(("count", "letters"), [(4000, 1), (500, 4000), (12, 10**6)])
def test_tasks_and_results_of_any_size_and_number(no_hang: None, workers: int, count: int, letters: int) -> None:
    tasks = [f"{number} {'x' * letters}" for number in range(count)]
    assert list(run_in_processes(twice, tasks, workers=workers, seconds=60, ahead=count)) == [2 * x for x in tasks]


def twice(text: str) -> str:
    return 2 * text


def test_a_slow_reader_finds_all_done(no_hang: None, tmp_path: Path) -> None:
    """Answers are taken while the reader is away: a process waits for nobody, however many and long they are."""
    results = run_in_processes(
        long_answer, [str(tmp_path / str(i)) for i in range(1000)], workers=1, seconds=30, ahead=900
    )
    next(results)
    while len(list(tmp_path.iterdir())) < 900:
        time.sleep(0.01)
    results.close()


def long_answer(path: str) -> str:
    Path(path).touch()
    return path * 100


def test_a_mistake_in_the_program_is_shown_with_its_traceback() -> None:
    with pytest.raises(RuntimeError, match=r"(?s)ZeroDivisionError"):
        list(run_in_processes(mistaken, [1, 0], workers=1, seconds=30))


def test_work_goes_on_while_the_reader_does_something_else(tmp_path: Path) -> None:
    results = run_in_processes(touch, [str(tmp_path / str(i)) for i in range(20)], workers=1, seconds=30, ahead=8)
    next(results)
    deadline = time.monotonic() + 10
    while len(list(tmp_path.iterdir())) < 8 and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.2)
    assert len(list(tmp_path.iterdir())) == 8
    results.close()


def touch(path: str) -> str:
    Path(path).touch()
    return path


def test_processes_end_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    """The script has no guard against being imported again: it is not run a second time in the processes."""
    script = tmp_path / "script.py"
    script.write_text(
        "import os, signal\n"
        "from layerlock.data.pool import run_in_processes\n"
        "print('start', flush=True)\n"
        "results = run_in_processes(os.path.abspath, ['a'] * 9, workers=2, seconds=9)\n"
        "next(results)\n"
        "from pathlib import Path\n"
        "mine = os.getpgid(0)\n"
        "def group(status):\n"
        "    try:\n"
        "        return int(status.read_text().rsplit(')', 1)[1].split()[2])\n"
        "    except OSError:\n"
        "        return 0\n"
        "print(sum(group(s) == mine for s in Path('/proc').glob('[0-9]*/stat')), mine, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", str(script)],
        capture_output=True,
        text=True,
        timeout=60,
        start_new_session=True,
        check=False,
    )
    assert done.stderr == ""
    first, second = done.stdout.splitlines()
    assert first == "start"
    count, session = map(int, second.split())
    assert count >= 4  # the script, its server and two processes
    deadline = time.monotonic() + 10
    while _alive(session) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert _alive(session) == []


def _alive(session: int) -> list[str]:
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rsplit(")", 1)[1].split()
        except OSError:
            continue
        if int(fields[2]) == session and fields[0] != "Z":
            found.append(str(status))
    return found
