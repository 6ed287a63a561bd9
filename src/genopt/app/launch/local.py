"""Jobs side by side on this machine.

joblib hands the jobs out, one at a time to each place; Python's fork server gives each a process of
its own. That server imports torch and Lightning once, and the processes it forks have them at no
cost: no job waits for imports, none sees what another left behind, and one that is killed takes no
other with it.
"""

from __future__ import annotations

import glob
import os
import queue
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from multiprocessing import connection, forkserver, get_context, parent_process
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hydra.core.singleton import Singleton
from hydra.core.utils import env_override

from genopt.app.launch.job import (
    be_prepared,
    limit_threads,
    print_to,
    run_elsewhere,
    sendable,
    thread_variables,
)
from genopt.app.launch.screen import RUNNING, JobTable
from genopt.app.launch.shared import Job, Outcome, failed
from genopt.errors import GenoptError

if TYPE_CHECKING:
    from genopt.app.launch.shared import CheckedLauncher

_CONTEXT = get_context("forkserver")
# held while a process is started or its status is read
_REAPING = threading.Lock()
_IMPORTS = "genopt.app.launch.imports"
_ON_GPU = ("gpu", "cuda")


def warm_up() -> None:
    """Start the fork server, which imports what jobs need while the caller goes on."""
    _CONTEXT.set_forkserver_preload([_IMPORTS])
    # threads that a library starts when it is loaded would not be there after a fork
    with env_override(thread_variables(1)):
        forkserver.ensure_running()


def run_side_by_side(
    launcher: CheckedLauncher, jobs: Sequence[Job], n_jobs: int | None
) -> list[Outcome]:
    """Run jobs, several at a time.

    Args:
        launcher: which has them.
        jobs: what to run.
        n_jobs: how many at a time; None to choose.

    Returns:
        How each ended, in the order of the jobs.
    """
    from joblib import Parallel, delayed

    warm_up()
    devices = graphics_cards()
    count = places(jobs, n_jobs, len(devices))
    free: queue.SimpleQueue[str | None] = queue.SimpleQueue()
    for place in range(count):
        free.put(devices[place % len(devices)] if devices else None)
    common = _pickled((launcher.context, launcher.task, Singleton.get_state()))
    alive: set[Any] = set()

    def run(job: Job, table: JobTable) -> Outcome:
        device = free.get()
        table.show(job, RUNNING)
        try:
            outcome = _in_own_process(job, common, device, alive)
        except OSError as error:
            # no more processes, no room for a log: the other jobs may fare better
            outcome = failed(job, error)
        finally:
            free.put(device)
        return launcher.ended(job, outcome, table)

    try:
        with (
            JobTable(jobs) as table,
            Parallel(n_jobs=count, backend="threading", batch_size=1) as parallel,
        ):
            return list(parallel(delayed(run)(job, table) for job in jobs))
    finally:
        # after an interruption jobs may still run
        for process in list(alive):
            process.terminate()


def places(jobs: Sequence[Job], n_jobs: int | None, cards: int) -> int:
    """How many jobs run at a time.

    Args:
        jobs: what to run.
        n_jobs: what the user wants; None for all cores, or all graphics cards.
        cards: graphics cards of this machine.

    Returns:
        At least one.

    Raises:
        GenoptError: if the wish is no positive number.
    """
    from joblib import cpu_count

    if n_jobs is not None:
        if n_jobs < 1:
            raise GenoptError(f"hydra.launcher.n_jobs must be at least 1, or null, got {n_jobs}")
        return min(n_jobs, len(jobs))
    threads = max(job.threads for job in jobs)
    count = max(cpu_count() // threads, 1)
    if cards and any(_on_gpu(job) for job in jobs):
        count = min(count, cards)
    return min(count, len(jobs))


def graphics_cards() -> list[str]:
    """The graphics cards that jobs may use.

    Returns:
        Names for ``CUDA_VISIBLE_DEVICES``.
    """
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        return [name for name in given.split(",") if name.strip()]
    if not glob.glob("/dev/nvidia[0-9]*") or shutil.which("nvidia-smi") is None:
        return []
    ask = ["nvidia-smi", "--query-gpu=uuid", "--format=csv,noheader"]
    try:
        done = subprocess.run(ask, capture_output=True, text=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return []
    return done.stdout.split()


def _on_gpu(job: Job) -> bool:
    return str((job.config.get("trainer") or {}).get("accelerator", "")) in _ON_GPU


def where_torch_is(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function in a process that has torch: this one, or one that is forked for it.

    Args:
        function: what to call.
        *arguments: its arguments.

    Returns:
        What it returns.

    Raises:
        GenoptError: if the other process died.
    """
    if "torch" in sys.modules:
        return function(*arguments)
    warm_up()
    receive, send = _CONTEXT.Pipe(duplex=False)
    content = _pickled((function, arguments, Singleton.get_state()))
    process = _CONTEXT.Process(target=_called_process, args=(content, send))
    with _REAPING:
        process.start()
    send.close()
    try:
        result, error = _unpickled(receive.recv_bytes())
    except (EOFError, ConnectionError):
        raise GenoptError(f"the process for {function.__name__} died") from None
    finally:
        _join(process)
        process.close()
        receive.close()
    if error is not None:
        raise error
    return result


# -- one process -----------------------------------------------------------------------------------
def _in_own_process(job: Job, common: bytes, device: str | None, alive: set[Any]) -> Outcome:
    """Run a job in a new process and wait for it."""
    receive, send = _CONTEXT.Pipe(duplex=False)
    process = _CONTEXT.Process(target=_job_process, args=(_pickled(job), common, device, send))
    with _REAPING:
        process.start()
    alive.add(process)
    # this end must not stay open, or a killed job would never be noticed
    send.close()
    outcome: Outcome | None = None
    try:
        outcome = _unpickled(receive.recv_bytes())
    except (EOFError, ConnectionError):
        outcome = None
    finally:
        _join(process)
        alive.discard(process)
        receive.close()
    if outcome is None or process.exitcode:
        outcome = failed(job, GenoptError(_how_it_ended(process.exitcode or 0, job.log)))
    else:
        outcome.cfg = job.config
    process.close()
    return outcome


def _join(process: Any) -> None:
    """Wait for a process and take its status, which can be read once only.

    Starting a process looks at all others too: two threads that do so at once would both read a
    status, and one of them would find none.
    """
    connection.wait([process.sentinel])
    with _REAPING:
        process.join()


def _job_process(own: bytes, common: bytes, device: str | None, send: Any) -> None:
    """What the new process does."""
    _end_with_parent()
    job = _unpickled(own)
    print_to(job.log)
    limit_threads(job.threads)
    if device is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = device
    context, task, state = _unpickled(common)
    outcome = run_elsewhere(job, context, task, state)
    send.send_bytes(_pickled(outcome))


def _called_process(content: bytes, send: Any) -> None:
    _end_with_parent()
    function, arguments, state = _unpickled(content)
    be_prepared(state)
    limit_threads(1)
    result, wrong = None, None
    try:
        result = function(*arguments)
    except Exception as error:
        wrong = sendable(error)
    send.send_bytes(_pickled((result, wrong)))


def _end_with_parent() -> None:
    """End when the launcher is gone: a job without one would meet its successor."""
    parent = parent_process()
    assert parent is not None

    def watch() -> None:
        connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _how_it_ended(code: int, log: Path) -> str:
    if code < 0:
        why = " (out of memory?)" if code == -9 else ""
        return f"its process was killed by signal {-code}{why}; see {log}"
    return f"its process ended with status {code}; see {log}"


def _pickled(data: Any) -> bytes:
    # Hydra's state holds functions that plain pickle cannot send
    import cloudpickle

    done: bytes = cloudpickle.dumps(data)
    return done


def _unpickled(data: bytes) -> Any:
    import cloudpickle

    return cloudpickle.loads(data)
