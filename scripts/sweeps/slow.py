"""A callback that makes a fit long enough to be killed in its middle, at no cost."""

import time

from pytorch_lightning.callbacks import Callback


class Slow(Callback):
    """Sleeps after each epoch.

    Args:
        seconds: how long.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def on_train_epoch_end(self, trainer, pl_module) -> None:
        """Wait."""
        time.sleep(self.seconds)
