"""From the overrides of a user to a checked config, and to a run of a program in a folder of its own."""

import io
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, redirect_stderr
from pathlib import Path
from typing import Any

import hydra
from hydra._internal.callbacks import Callbacks
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.plugins import Plugins
from hydra.core.utils import run_job
from hydra.errors import HydraException, InstantiationException
from hydra.types import HydraContext
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException

from genoattn.config.folder import lock_folder, make_named_folder, make_new_folder
from genoattn.config.layers import LayerPackages, complete_layer, layer_name
from genoattn.config.overrides import COMPOSITION_ERRORS, explain, first_line, quote, sweep_jobs
from genoattn.errors import UserError
from genoattn.paths import conf_dir

Main = Callable[[DictConfig], float | None]
"""The `main` of a program; it returns the primary metric, for sweepers that search."""

Share = Callable[[Callable[[], Path]], Path]
"""Called with a function that makes the run folder, returns the folder that one process of the run made."""


def compose(program: str, overrides: Sequence[str] = ()) -> DictConfig:
    """Compose the config of a program; within a running program, of any other one.

    Returns:
        The config, read-only and not yet checked.

    Raises:
        UserError: One sentence for each override that is wrong.
    """
    return _without_hydra(config_of_run(program, overrides))


def config_of_run(program: str, overrides: Sequence[str]) -> DictConfig:
    """The config of a run with Hydra's own node, not checked."""
    with _hydra(program) as outermost:
        return _compose(program, overrides, outermost)


def check(config: DictConfig, program: str) -> None:
    """Check a composed config against the program's settings and the signature of every `_target_`.

    Raises:
        UserError: One sentence for each mistake.
    """
    from genoattn.config.schema import SCHEMAS  # late: --help need not wait for pydantic
    from genoattn.config.validate import find_errors

    try:
        missing = sorted(OmegaConf.missing_keys(config))
        plain: Any = OmegaConf.to_container(config, resolve=True)
    except OmegaConfBaseException as error:
        raise UserError(f"{error.full_key}: {first_line(error)}") from None
    errors = [error for error in find_errors(plain, SCHEMAS[program]) if error.partition(":")[0] not in missing]
    if missing or errors:
        raise UserError("\n".join([*(f"{key} must be given: {key}=…" for key in missing), *errors]))


def available_layers() -> list[str]:
    """The choices of `attention`: of this package, of other packages and, in a running program, of its search path."""
    with _hydra("check-layer") as outermost:
        words = [] if outermost else _search_path(HydraConfig.get())
        return GlobalHydra.instance().config_loader().get_group_options("attention", overrides=words)


def run_program(
    program: str, main: Main, overrides: Sequence[str], multirun: bool = False, share: Share | None = None
) -> int:
    """Compose and check a config, then run `main` in a run folder; with `multirun`, once for each value of a sweep.

    `share` gives all processes of a run the folder that one of them makes; None: this process makes it.

    Returns:
        The exit status. 0: done. 2: a mistake of the user, in sentences on stderr. 128 and the number of a signal:
        ended by it, for instance 130 by Ctrl-C.
    """
    try:
        with _hydra(program):
            if multirun:
                _run_sweep(program, main, list(overrides))
            else:
                _run_once(program, main, list(overrides), share or (lambda make: make()))
    except (UserError, InstantiationException) as error:
        mistake = error if isinstance(error, UserError) else error.__cause__  # Hydra wraps errors of constructors
        if not isinstance(mistake, UserError):
            raise
        print(mistake, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    return 0


def _run_once(program: str, main: Main, overrides: list[str], share: Share) -> None:
    config = _compose(program, overrides, True)
    check(_without_hydra(config), program)
    _go_on(config, overrides)
    with ExitStack() as stack:
        made: list[Path] = []

        def make() -> Path:
            made.append(stack.enter_context(_run_folder(program, config, "hydra.run.dir", overrides)))
            return made[0]

        _set_folder(config, share(make), made != [])
        context = HydraContext(GlobalHydra.instance().config_loader(), Callbacks(config))
        job = run_job(lambda config: main(_read_only(config)), config, "hydra.run.dir", None, context)
        with redirect_stderr(io.StringIO()):  # Hydra prints the overrides of a run that failed
            _ = job.return_value  # raises what `main` raised


def _go_on(config: DictConfig, overrides: list[str]) -> None:
    """With `trainer.requeue`, set `trainer.resume` to the checkpoint that the job left in its folder."""
    if not OmegaConf.select(config, "trainer.requeue") or config.trainer.resume:
        return
    if not any(word.lstrip("+").startswith("hydra.run.dir=") for word in overrides):
        raise UserError("trainer.requeue=true needs hydra.run.dir=…, the folder in which the job goes on")
    last = Path(config.hydra.run.dir) / "checkpoints" / "last.ckpt"
    if last.exists():
        config.trainer.resume = str(last)


def _run_sweep(program: str, main: Main, overrides: list[str]) -> None:
    for job in sweep_jobs(overrides):
        config = _compose(program, job, True)
        check(_without_hydra(config), program)
        if OmegaConf.select(config, "trainer.devices", default=1) != 1:
            raise UserError("-m runs its jobs in one process, one after another, so it needs trainer.devices=1")

    def run(config: DictConfig) -> float | None:
        _complete(config, HydraConfig.get())
        check(config, program)
        return main(_read_only(config))

    started = GlobalHydra.instance().hydra
    assert started is not None
    with _run_folder(program, config, "hydra.sweep.dir", overrides) as folder:
        try:
            # The folder is given, because its name may hold the time.
            started.multirun(program, run, [*overrides, f"hydra.sweep.dir={quote(folder)}"])
        except HydraException as error:
            if isinstance(error, InstantiationException):
                raise
            search = "; a search needs hydra/sweeper=optuna" if "sweep type" in str(error) else ""
            raise UserError(f"{first_line(error)}{search}") from None


@contextmanager
def _run_folder(program: str, config: DictConfig, key: str, overrides: Sequence[str]) -> Iterator[Path]:
    """Make the run folder that a setting names, and keep other runs out of it.

    A folder that the user names is used again if it holds no run. Any other is a new one, with a suffix if the name is
    taken. The folder of a comparison is used again by design, and the comparison locks it itself.
    """
    folder = Path(OmegaConf.select(config, key))
    if program == "compare":
        yield make_named_folder(folder, key)
        return
    if any(word.lstrip("+").startswith(f"{key}=") for word in overrides):
        make_named_folder(folder, key, OmegaConf.select(config, "trainer.resume"))
        for job in sorted(folder.iterdir()) if key == "hydra.sweep.dir" else []:
            if job.is_dir():
                make_named_folder(job, key)
    else:
        folder = make_new_folder(folder, key)
    with lock_folder(folder, key):
        yield folder


def _set_folder(config: DictConfig, folder: Path, made: bool) -> None:
    """Set the run folder of a composed config; Hydra writes its files into one that was made here."""
    with read_write(config.hydra), open_dict(config.hydra):
        config.hydra.run.dir = str(folder)
        config.hydra.runtime.output_dir = str(folder.absolute())
        if not made:
            config.hydra.output_subdir = None
    HydraConfig.instance().set_config(config)  # other settings may refer to the folder


@contextmanager
def _hydra(program: str) -> Iterator[bool]:
    """Hydra, started if no program runs in it yet; the value is True if it was started here."""
    if GlobalHydra.instance().is_initialized():
        yield False
        return
    Plugins.instance().register(LayerPackages)
    with hydra.initialize_config_dir(str(conf_dir()), job_name=program, version_base="1.3"):
        yield True


def _compose(program: str, overrides: Sequence[str], outermost: bool) -> DictConfig:
    """Compose a config with Hydra's own node, which holds the run folder and the choice of every group."""
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message=".* is not available")  # a folder of hydra.searchpath
            config = hydra.compose(program, list(overrides), return_hydra_config=True)
        with open_dict(config):  # other settings may refer to the folder
            config.hydra.runtime.output_dir = str(Path(config.hydra.run.dir).absolute())
    except COMPOSITION_ERRORS as error:
        raise UserError("\n".join(explain(program, overrides, error))) from None
    _complete(config, config.hydra)
    if outermost:
        HydraConfig.instance().set_config(config)
    return config


def _complete(config: DictConfig, own: Any) -> None:
    """Complete the layers of a composed config, and put their names among the choices of Hydra's own node."""
    folders = [Path(source.path) for source in own.runtime.config_sources if source.schema == "file"]

    def load(name: str) -> DictConfig:
        return _compose("check-layer", [f"attention={name}", *_search_path(own)], False).attention

    for key, group in (("attention", "attention"), ("control", "attention@control")):
        node = config.get(key)
        if isinstance(node, DictConfig) and "_target_" in node:
            complete_layer(node, load)
            with read_write(own), open_dict(own):
                own.runtime.choices[group] = layer_name(str(own.runtime.choices.get(group, key)), node, folders)


def _search_path(own: Any) -> list[str]:
    """The override of the search path of a running program."""
    return [word for word in own.overrides.hydra if word.startswith("hydra.searchpath=")]


def _without_hydra(config: DictConfig) -> DictConfig:
    settings = config.copy()
    with open_dict(settings):
        del settings["hydra"]
    return _read_only(settings)


def _read_only(config: DictConfig) -> DictConfig:
    OmegaConf.set_readonly(config, True)  # the logged config is the config of the run
    return config
