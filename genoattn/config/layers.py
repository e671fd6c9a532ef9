"""The attention layers that a config can choose: those of this package, and those of other installed packages."""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from hydra.core.config_search_path import ConfigSearchPath
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from genoattn.paths import ENTRY_POINTS, conf_dir, package_folders


class LayerPackages(SearchPathPlugin):
    """Adds the folders of other packages to the folders that Hydra searches."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        for folder in package_folders():
            search_path.append(ENTRY_POINTS, f"file://{folder.absolute()}")


def layer_name(choice: str, node: Mapping[str, Any], folders: Iterable[Path] | None = None) -> str:
    """The name of a layer in reports: its choice or, for another class under that choice, the name of the class.

    Args:
        choice: The choice of the group `attention`, such as `window`.
        node: The config of the layer, with its `_target_`.
        folders: The folders of configs (None: this package's and those of installed packages).
    """
    target = str(node["_target_"])
    for folder in [conf_dir(), *package_folders()] if folders is None else folders:
        file = folder / "attention" / f"{choice}.yaml"
        if file.is_file() and yaml.safe_load(file.read_text("utf-8")).get("_target_", target) != target:
            name = target.rpartition(".")[2]
            words = re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z0-9]+", name.removesuffix("Attention") or name)
            return "_".join(words).lower()
    return choice


def complete_layer(node: DictConfig, load: Callable[[str], DictConfig]) -> None:
    """Keep of the `kinds` of a composed layer those that its `layers` or `wrapped` names.

    A name that `kinds` lacks is a layer of another package: `load` composes it. A name in `wrapped` gives way to the
    config of that layer.
    """
    if "kinds" not in node:
        return
    wraps = "layers" not in node
    names = [node.wrapped] if wraps else node.layers
    if not isinstance(names, Sequence) or any(not isinstance(name, str) for name in names):
        return  # the check reports the type
    with read_write(node), open_dict(node):
        for name in names:
            settings = node.kinds.get(name, {})
            if "_target_" not in settings:
                node.kinds[name] = OmegaConf.merge(load(name), settings)
        for name in set(node.kinds) - set(names):
            del node.kinds[name]
        if wraps:
            node.wrapped = node.kinds[node.wrapped]
            del node.kinds
