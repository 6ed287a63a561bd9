"""A process that helps another one to train: it waits for fits, takes part in them and ends.

It is started by `genopt.models.team` as ``python -m genopt.models.helper HOST PORT RANK COUNT``, or
it is a task of a Slurm step other than the first, which calls `serve`.
"""

from __future__ import annotations

import logging
import pickle
import signal
import sys
import warnings

from genopt.errors import GenoptError
from genopt.models.processes import Place

logger = logging.getLogger(__name__)


def serve(host: str, port: int, rank: int, count: int) -> None:
    """Take part in the fits of another process until it ends.

    Args:
        host: where the first process runs.
        port: where it listens.
        rank: the number of this process.
        count: how many there are.

    Raises:
        GenoptError: if the first process is not there.
    """
    import torch
    from torch import distributed

    from genopt.models.share import Share
    from genopt.models.strategy import wait_for_all
    from genopt.models.team import FIT, FOREVER, join, new_store, placed

    try:
        store = new_store(host, port, first=False)
    except RuntimeError as error:
        raise GenoptError(
            f"process {rank} of a fit cannot reach the first one at {host}, port {port}: {error}"
        ) from error
    place = Place.from_text(store.get("place"))
    sys.path[:] = [*place.path, *(path for path in sys.path if path not in place.path)]
    torch.set_num_threads(place.threads)
    share = Share(rank, count)
    store.set(f"ready/{rank}", "")
    join(store, share, place.gpus, place.one_machine)
    done = 0
    try:
        while True:
            store.wait([f"job/{done}"], FOREVER)
            if store.get(f"job/{done}").decode() != FIT:
                return
            done += 1
            box: list[bytes] = [b""]
            distributed.broadcast_object_list(box, src=0)
            job = pickle.loads(box[0])
            try:
                job.run(share, **placed(share, place.gpus))
            except GenoptError as error:
                # what stops the first process as well, which says it
                logger.info("the fit ended: %s", error)
            del box, job
            wait_for_all()
    finally:
        distributed.destroy_process_group()


def main() -> None:
    """Entry point of a helper that was started for nothing else."""
    for name in ("SIGINT", "SIGUSR1", "SIGUSR2"):
        # the first process decides what they mean
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    warnings.simplefilter("ignore")
    host, port, rank, count = sys.argv[1:]
    serve(host, int(port), int(rank), int(count))


if __name__ == "__main__":
    main()
