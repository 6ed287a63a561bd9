"""A callback that makes an epoch slow enough to be interrupted."""

import time

from pytorch_lightning.callbacks import Callback


class Slow(Callback):
    def on_train_epoch_end(self, trainer, pl_module):
        time.sleep(0.2)
