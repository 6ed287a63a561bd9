"""A launcher as Hydra makes one, for any task."""

import hydra
from hydra._internal.callbacks import Callbacks
from hydra.core.global_hydra import GlobalHydra
from hydra.core.plugins import Plugins
from hydra.types import HydraContext, RunMode

from genopt.app.compose import CONFIG_NAME, conf_folder, prepare


def make_launcher(name, task, root, *words):
    prepare()
    GlobalHydra.instance().clear()
    hydra.initialize_config_dir(str(conf_folder()), version_base="1.3")
    loader = GlobalHydra.instance().config_loader()
    given = [f"hydra/launcher={name}", f"hydra.sweep.dir={root}", *words]
    config = loader.load_configuration(CONFIG_NAME, given, run_mode=RunMode.MULTIRUN)
    context = HydraContext(config_loader=loader, callbacks=Callbacks())
    return Plugins.instance().instantiate_launcher(
        hydra_context=context, task_function=task, config=config
    )
