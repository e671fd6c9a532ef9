"""The console command: `genoattn train attention=linear` is `python scripts/train.py attention=linear`."""

import argparse
import os
import sys
from importlib import import_module

from omegaconf import DictConfig

from genoattn.config.compose import choices, run_program
from genoattn.errors import UserError, hint

PROGRAMS = {
    "train": "train a mutation detector on a genome and report how good it is",
    "finetune": "fine-tune a saved model on a genome or a task, and report how good it is",
    "compare": "compare attention layers on one task: quality, cost and a verdict",
    "plan": "say what a training run would cost, its memory before all, before it runs",
    "evaluate": "report how good a checkpoint is on a genome and its variants",
    "context": "tell how far away a base may be and still change what a checkpoint answers",
    "tokenizer": "tell what a mutation does to the tokens of a window, and the frame of the tokens to scores",
    "doctor": "put the laws of attention to a layer, your own included",
    "kernels": "compile the GPU kernels without a GPU and tell what the compiler says of them",
}


MODULES = {"doctor": "check_layer", "tokenizer": "tokenizer_report"}

MOVED = {
    "checkpoint": "genoattn finetune checkpoint=…",
    "tune": "genoattn finetune checkpoint=… finetune.mode=full|head|lora",
    "lora": "genoattn finetune checkpoint=… finetune.mode=lora lora.rank=…",
}
"""Settings that `train` no longer has."""


def main(argv: list[str] | None = None) -> int:
    """Run the program that the first word names; returns the exit status."""
    # Read when torch is first imported, below. Threads that spin at a barrier while another process holds their core
    # made a step on two cores 15 times slower; ones that soon sleep lose nothing on an idle machine.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    # The library of convolutions keeps what it made for each shape, 1,024 of them by default and up to 10 MB each:
    # windows that grow step by step held gigabytes after some hundred steps. 32 serve several lengths, as fast.
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "32")
    # Without it the library of tokenizers warns on stderr when a data loader forks after one has learned.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    program, *rest = (sys.argv[1:] if argv is None else argv) or ["--help"]
    if program in ("-h", "--help"):
        print("usage: genoattn PROGRAM [key=value …]\n")
        print("\n".join(f"  {name:10} {does}" for name, does in PROGRAMS.items()))
        return 0
    if program not in PROGRAMS:
        near = hint(program, PROGRAMS) or f"; there are {', '.join(PROGRAMS)}"
        print(f"genoattn {program}: there is no such program{near}", file=sys.stderr)
        return 2
    parser = _parser(program)
    arguments = parser.parse_intermixed_args(rest)
    if arguments.help:
        return _help(program)
    if (arguments.cfg and arguments.multirun) or (arguments.resolve and not arguments.cfg):
        parser.error("--cfg prints the config of one run; --resolve goes with --cfg, --multirun does not")
    for word in arguments.overrides:
        if program in ("train", "plan") and (moved := MOVED.get(word.lstrip("+").partition("=")[0].partition(".")[0])):
            print(f"{word}: a saved model is trained further by {moved}", file=sys.stderr)
            return 2
    flags = ["--multirun"] * arguments.multirun + (["--cfg", arguments.cfg] if arguments.cfg else [])

    def run(config: DictConfig) -> float | None:
        # late: --help and mistakes need not wait for it
        return import_module(f"genoattn.cli.{MODULES.get(program, program)}").main(config)

    return run_program(program, run, arguments.overrides, flags + ["--resolve"] * arguments.resolve)


def _parser(program: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(f"genoattn {program}", add_help=False, allow_abbrev=False)
    parser.add_argument("-h", "--help", action="store_true")
    parser.add_argument("-c", "--cfg", choices=["job", "hydra", "all"], help="print the config and stop")
    parser.add_argument("--resolve", action="store_true", help="with --cfg: interpolations resolved")
    parser.add_argument("-m", "--multirun", action="store_true", help="a run for each of several values")
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    return parser


def _help(program: str) -> int:
    """Usage, and every group with its choices: the first comment in a choice's yaml says what it is."""
    print(f"{PROGRAMS[program][0].upper()}{PROGRAMS[program][1:]}.\n\n{_parser(program).format_help()}")
    try:
        groups = choices(program)
    except UserError as mistake:
        print(mistake, file=sys.stderr)
        return 2
    for group, (default, files) in groups.items():
        print(f"{group}={default or 'null'}  (by default)")
        for file in files:
            comments = [line[1:].strip() for line in file.read_text("utf-8").splitlines() if line.startswith("#")]
            said = next((line for line in comments if not line.startswith("@package")), "")
            print(f"  {file.stem:12} {said}".rstrip())
    print(f"\nEvery setting, as key=value: genoattn {program} --cfg job")
    return 0
