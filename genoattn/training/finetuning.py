"""Fine-tuning: the weights that a new model takes from a pretrained one, and those of them that are trained."""

from collections.abc import Sequence

import torch
from torch import nn

from genoattn.data.tasks.base import Task
from genoattn.errors import UserError
from genoattn.models.build import LoadedModel
from genoattn.models.card import weights_of
from genoattn.models.checkpoint import check_fit
from genoattn.models.sequence_model import SequenceModel
from genoattn.training.settings import LoraSettings

HEADS = ("token_head", "sequence_head")

TASK_SPECIFIC = (*HEADS, "segment_embedding", "alignment_stem")
"""Modules of a model that its task determines."""


def same_task(task: Task, other: Task) -> bool:
    """True if a model that was trained for one task gives the outputs of the other."""
    return type(task) is type(other) and all(
        getattr(task, name) == getattr(other, name)
        for name in ("outputs", "max_shift", "segment_count", "context_format")
    )


def load_matching(pretrained: LoadedModel, model: SequenceModel) -> list[str]:
    """Fill a new model with pretrained weights, and print the modules that are not filled.

    Modules of the task are filled tensor by tensor where name and shape fit, heads only if their outputs are the same.

    Returns:
        Names of the tensors that keep their initial values.

    Raises:
        UserError: A module that does not depend on the task does not fit.
    """
    old, saved, expected = pretrained.predictor.model, pretrained.predictor.model.state_dict(), model.state_dict()
    rows = min(len(saved["embed.weight"]), len(expected["embed.weight"]))
    if len(expected["embed.weight"]) > rows:
        print("embed: the row of the separator is initialised, because the pretrained task has no second sequence")
    saved["embed.weight"] = torch.cat([saved["embed.weight"][:rows], expected["embed.weight"][rows:]])
    shared = {name: tensor for name, tensor in saved.items() if _module(name) not in TASK_SPECIFIC}
    needed = {name: tensor for name, tensor in expected.items() if _module(name) not in TASK_SPECIFIC}
    check_fit(weights_of(pretrained.folder), shared, needed)
    same_outputs = {
        "token_head": old.token_heads == model.token_heads,
        "sequence_head": old.sequence_heads == model.sequence_heads,
    }
    matching = {
        name: saved[name]
        for name, tensor in expected.items()
        if _module(name) in TASK_SPECIFIC
        and same_outputs.get(_module(name), True)
        and name in saved
        and saved[name].shape == tensor.shape
    }
    model.load_state_dict(expected | shared | matching)
    initial = [name for name in expected if name not in shared and name not in matching]
    for module in TASK_SPECIFIC:
        names = [name for name in initial if _module(name) == module]
        if names and any(_module(name) == module for name in matching):
            print(f"{module}: {', '.join(names)} are initialised, because this task is not the pretrained one")
        elif names:
            print(f"{module} is initialised, because this task is not the pretrained one")
        elif any(_module(name) == module for name in saved) and not any(_module(name) == module for name in expected):
            print(f"{module} of the pretrained model is left out: this task has none")
    return initial


def _module(name: str) -> str:
    return name.partition(".")[0]


def select_trainable(
    model: SequenceModel, mode: str, lora: LoraSettings, initialised: Sequence[str], seed: int
) -> None:
    """Choose the weights that fine-tuning changes.

    Args:
        model: The model; with mode "lora" every linear layer of every block gets an adapter (Hu et al. 2021,
            arXiv:2106.09685).
        mode: "full" for all weights, "head" for the heads, "lora" for the heads and the adapters.
        lora: Rank, weight and dropout of the adapters.
        initialised: Names of tensors that keep their initial values; they are trained in every mode.
        seed: Seed of the adapters.
    """
    if mode == "full":
        return
    model.requires_grad_(False)
    if mode == "lora":
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            _add_adapters(model, lora)
    for name, weight in model.named_parameters():
        if _module(name) in HEADS or name in initialised:
            weight.requires_grad_(True)
    trainable = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    print(f"finetune.mode={mode}: {trainable:,} parameters are trained")


def check_peft(mode: str) -> None:
    """Raises UserError if LoRA is chosen and the package peft is missing."""
    if mode == "lora":
        try:
            import peft  # noqa: F401  late: it takes seconds
        except ImportError as error:
            raise UserError(
                f"finetune.mode=lora needs peft ({error}): pip install 'genoattn[lora]', or choose finetune.mode=head"
            ) from None


def _add_adapters(model: SequenceModel, lora: LoraSettings) -> None:
    from peft import LoraConfig, inject_adapter_in_model

    linear = [
        name for name, module in model.named_modules() if isinstance(module, nn.Linear) and name.startswith("blocks.")
    ]
    weights = {name for name, _ in model.blocks.named_parameters(prefix="blocks")}
    without = sorted({_in_block(name) for name in weights if name.rpartition(".")[0] not in linear})
    settings = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,  # type: ignore[arg-type]  # peft takes a float as well
        lora_dropout=lora.dropout,
        target_modules=linear,
    )
    inject_adapter_in_model(settings, model)
    adapted = dict.fromkeys(_in_block(name) for name in linear)
    print(f"lora: adapters of rank {lora.rank} in every block on {', '.join(adapted)}; none on {', '.join(without)}")


def _in_block(name: str) -> str:
    return name.split(".", 2)[2]


def merge_adapters(model: SequenceModel) -> None:
    """Add the adapters to the layers that they stand on, and leave a plain model."""
    from peft.tuners.lora import LoraLayer

    for name, module in list(model.named_modules()):
        if isinstance(module, LoraLayer):
            module.merge(safe_merge=True)  # type: ignore[operator]
            model.set_submodule(name, module.get_base_layer())  # type: ignore[operator]
    model.requires_grad_(True)
