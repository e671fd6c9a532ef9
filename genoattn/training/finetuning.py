"""A run that starts from an earlier one: what it takes over, what starts anew, and which of its weights learn."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf, open_dict
from torch import nn

from genoattn.data.tasks.base import Task
from genoattn.errors import UserError
from genoattn.models.build import load_predictor
from genoattn.models.checkpoint import WEIGHTS, check_fit, find_model, read_description
from genoattn.models.predictor import Predictor
from genoattn.models.sequence_model import SequenceModel
from genoattn.training.settings import LoraSettings

INHERITED = ("tokenizer", "model", "attention")
"""What a run has from the one that it starts from."""


MEMORY = ("activation_checkpointing",)
"""Settings of a model that change what it keeps, and nothing that it is."""


HEADS = ("token_head", "sequence_head")


TASK_SPECIFIC = (*HEADS, "segment_embedding", "stem")
"""Parts of a model that are as the task has them."""


@dataclass(frozen=True)
class Pretrained:
    """The model of an earlier run, and its description."""

    home: Path
    about: Mapping[str, Any]
    parts: Predictor


def open_pretrained(checkpoint: str) -> Pretrained:
    """The model that `checkpoint` names: a run folder, its model/ folder or a checkpoint of that run."""
    home = find_model(Path(checkpoint))
    about = read_description(home)
    return Pretrained(home, about, load_predictor(home, about))


def settle(config: DictConfig, earlier: Pretrained | None, overrides: Sequence[str]) -> DictConfig:
    """The config that runs: tokenizer, model and attention of the earlier run, and a control only where asked for.

    `overrides` are the user's; raises UserError at one that says something else than the earlier run is.
    """
    if earlier is None:
        if config.tune != "all":
            raise UserError(f"tune={config.tune} needs a model to start from: checkpoint=… (a run folder)")
        return config
    found = [one for override in overrides if (one := _contradiction(override, config, earlier.about))]
    if found:
        raise UserError("\n".join(found))
    settled = config.copy()
    OmegaConf.set_readonly(settled, False)
    with open_dict(settled):
        for key in INHERITED:
            settled[key] = earlier.about[key]
        for key in MEMORY:
            settled.model[key] = config.model[key]
        if not any(override.startswith(("attention@control", "control")) for override in overrides):
            settled.control = None
    OmegaConf.set_readonly(settled, True)
    return settled


def _contradiction(override: str, config: DictConfig, about: Mapping[str, Any]) -> str:
    """What an override says against the earlier run, in words; empty where it says nothing against it."""
    key, _, given = override.lstrip("+~").partition("=")
    part, _, setting = key.partition(".")
    if part not in INHERITED or (part == "model" and setting in MEMORY):
        return ""
    node = OmegaConf.to_container(config[part], resolve=True)
    if setting:
        asked, held = _at(node, setting), _at(about[part], setting)
        return "" if asked == held else f"{key} is {held} in checkpoint={config.checkpoint}, and {given} was given"
    if part == "model":  # its sizes are not in its name
        differing = [name for name in about[part] if name not in MEMORY and _at(node, name) != about[part][name]]
        name = differing[0] if differing else ""
        return name and (
            f"model.{name} is {about[part][name]} in checkpoint={config.checkpoint},"
            f" and model={given} has {_at(node, name)}"
        )
    asked, held = _at(node, "_target_"), about[part]["_target_"]
    name = about["name"] if part == "attention" else held.rpartition(".")[2]
    return "" if asked == held else f"{part} is {name} in checkpoint={config.checkpoint}, and {given} was given"


def _at(node: Any, path: str) -> Any:
    for name in path.split("."):
        node = node.get(name) if isinstance(node, Mapping) else None
    return node


def same_task(one: Task, other: Task) -> bool:
    """Whether a model trained for one task answers what the other asks."""
    return type(one) is type(other) and all(
        getattr(one, name) == getattr(other, name) for name in ("outputs", "max_shift", "segment_count")
    )


def load_matching(earlier: Pretrained, model: SequenceModel) -> list[str]:
    """Fill a new model with the earlier one's weights; returns the parts that start anew, each of which is said aloud.

    Parts that the task owns are taken tensor by tensor where name and shape fit, heads only where they answer the
    same; everything else must fit.
    """
    old, new = earlier.parts.model, model
    held, wanted = old.state_dict(), new.state_dict()
    alike = {
        "token_head": old.token_heads == new.token_heads,
        "sequence_head": old.sequence_heads == new.sequence_heads,
    }
    rows = min(len(held["embed.weight"]), len(wanted["embed.weight"]))
    separator = len(wanted["embed.weight"]) > rows
    held["embed.weight"] = torch.cat([held["embed.weight"][:rows], wanted["embed.weight"][rows:]])
    shared = {name: tensor for name, tensor in held.items() if _part(name) not in TASK_SPECIFIC}
    check_fit(
        earlier.home / WEIGHTS, shared, {n: tensor for n, tensor in wanted.items() if _part(n) not in TASK_SPECIFIC}
    )
    owned = {
        name: held[name]
        for name, tensor in wanted.items()
        if name in held
        and _part(name) in TASK_SPECIFIC
        and alike.get(_part(name), True)
        and held[name].shape == tensor.shape
    }
    new.load_state_dict(wanted | shared | owned)
    anew = [name for name in wanted if name not in shared and name not in owned]
    for part in TASK_SPECIFIC:
        mine, theirs = [[n for n in one if _part(n) == part] for one in (wanted, held)]
        names = [name for name in anew if _part(name) == part]
        if names:
            rest = "" if len(names) == len(mine) else f" in part ({', '.join(names)})"
            print(f"{part} starts anew{rest}: the task is another than the checkpoint's")
        elif theirs and not mine:
            print(f"{part} of the checkpoint is left out: this task has none")
    if separator:
        print("the separator's row of embed starts anew: the checkpoint's task had no second segment")
    return anew


def _part(name: str) -> str:
    return name.partition(".")[0]


def select_trainable(
    model: SequenceModel, tune: str, lora: LoraSettings, reinitialised: Sequence[str], seed: int
) -> None:
    """Let all of a model learn, its heads and what starts anew alone (`head`), or these beside adapters (`lora`).

    LoRA: Hu et al. 2021, arXiv:2106.09685; every linear layer of every block gets an adapter.
    """
    if tune == "all":
        return
    model.requires_grad_(False)
    if tune == "lora":
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            _adapt(model, lora)
    for name, parameter in model.named_parameters():
        if _part(name) in HEADS or name in reinitialised:
            parameter.requires_grad_(True)
    learning = sum(one.numel() for one in model.parameters() if one.requires_grad)
    print(f"tune={tune}: {learning:,} parameters learn")


def check_peft(tune: str) -> None:
    """Raises UserError where LoRA is asked for and peft is not there."""
    if tune == "lora":
        try:
            import peft  # noqa: F401  late: it takes seconds
        except ImportError as error:
            raise UserError(
                f"tune=lora needs peft ({error}): pip install 'genoattn[lora]', or choose tune=head"
            ) from None


def _adapt(model: SequenceModel, lora: LoraSettings) -> None:
    from peft import LoraConfig, inject_adapter_in_model

    linear = [name for name, one in model.named_modules() if isinstance(one, nn.Linear) and name.startswith("blocks.")]
    plain = {name for name, _ in model.blocks.named_parameters(prefix="blocks")}
    bare = sorted({_in_block(name) for name in plain if name.rpartition(".")[0] not in linear})
    settings = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,  # type: ignore[arg-type]  # peft takes a float as well
        lora_dropout=lora.dropout,
        target_modules=linear,
    )
    inject_adapter_in_model(settings, model)
    adapted = dict.fromkeys(_in_block(name) for name in linear)
    print(f"lora: adapters of rank {lora.rank} in every block on {', '.join(adapted)}; none on {', '.join(bare)}")


def _in_block(name: str) -> str:
    return name.split(".", 2)[2]


def merge_adapters(model: SequenceModel) -> None:
    """Add what adapters have learned to the layers that they stand on, and leave a plain model."""
    from peft.tuners.lora import LoraLayer

    for name, module in list(model.named_modules()):
        if isinstance(module, LoraLayer):
            module.merge(safe_merge=True)  # type: ignore[operator]
            model.set_submodule(name, module.get_base_layer())  # type: ignore[operator]
    model.requires_grad_(True)
