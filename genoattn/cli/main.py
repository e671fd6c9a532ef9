"""The console command: `genoattn train attention=linear` is `python scripts/train.py attention=linear`."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from genoattn.cli.console import announce, quiet, tee
from genoattn.errors import UserError, did_you_mean
from genoattn.training import processes

if TYPE_CHECKING:
    from omegaconf import DictConfig

PROGRAMS = {
    "train": "train a model on a genome and report its quality",
    "finetune": "fine-tune a saved model on a genome or a task and report its quality",
    "evaluate": "report the quality of a trained model on a genome and its variants",
    "detect": "call the mutations between two assemblies with a trained model: two FASTA files in, a VCF out",
    "models": "list the trained models that come with genoattn",
    "score": "score the variants of a VCF with a trained model: a FASTA and a VCF in, scores in INFO out",
    "scan": "score every substitution and single-base deletion of a region with a trained model",
    "compare": "compare attention layers on one task: quality, cost, a recommendation",
    "plan": "predict the cost of a training run, above all its memory, before it runs",
    "context": "measure how far away a base can be and still change the output of a trained model",
    "export": "write a trained model as a folder in the layout of the Hugging Face Hub",
    "tokenizer-report": "report how a mutation changes the tokens of a window",
    "check-layer": "check an attention layer, your own included, against the contract of layers",
    "kernels": "compile the GPU kernels without a GPU and report the compiler's figures",
}
"""The programs; each is the module of this folder with the same name, `-` written as `_`."""

ON_DEVICES = ("train", "finetune")
"""Programs that run on several devices, in a process for each."""

WITHOUT_PAGE = ("compare", "models", "check-layer", "kernels")
"""Programs without run.html: a comparison has a page of its own, the others only print."""

MOVED = {
    "checkpoint": "genoattn finetune checkpoint=…",
    "tune": "genoattn finetune checkpoint=… finetune.mode=full|head|lora",
    "lora": "genoattn finetune checkpoint=… finetune.mode=lora lora.rank=…",
}
"""Settings that `train` no longer has."""


def main(argv: list[str] | None = None) -> int:
    """Run the program that the first argument names.

    Returns:
        The exit status. 0: done. 2: a mistake of the user, in sentences on stderr. 128 and the number of a signal:
        ended by it, for instance 130 by Ctrl-C.
    """
    # Read when torch is first imported. Threads that spin at a barrier while another process holds their core made a
    # step on two cores 15 times slower; threads that soon sleep lose nothing on an idle machine.
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    # oneDNN keeps its work for each shape, 1,024 shapes by default and up to 10 MB each: windows that grow step by
    # step held gigabytes after some hundred steps. 32 shapes serve several lengths, as fast.
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "32")
    # Otherwise the library of tokenizers warns on stderr when a data loader forks after a tokenizer was trained.
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    program, *rest = (sys.argv[1:] if argv is None else argv) or ["--help"]
    if program in ("-h", "--help"):
        print("usage: genoattn PROGRAM [key=value …]\n")
        print("\n".join(f"  {name:18}{text}" for name, text in PROGRAMS.items()))
        print("\nSettings of a program: genoattn PROGRAM --help")
        return 0
    if program not in PROGRAMS:
        print(f"genoattn {program}: there is no such program{did_you_mean(program, PROGRAMS)}", file=sys.stderr)
        return 2
    parser = _parser(program)
    arguments = parser.parse_intermixed_args(rest)
    for word in arguments.overrides:
        if program in ("train", "plan") and (moved := MOVED.get(word.lstrip("+").partition("=")[0].partition(".")[0])):
            print(f"{word}: a saved model is trained further by {moved}", file=sys.stderr)
            return 2
    if (arguments.cfg and arguments.multirun) or (arguments.resolve and arguments.cfg != "job"):
        parser.error("--cfg prints the config of one run, without --multirun; --resolve goes with --cfg job")
    if arguments.help:
        from genoattn.cli.help import program_help

        print(program_help(program, PROGRAMS[program]))
        return 0
    from genoattn.config.compose import run_program  # late: --help need not wait for Hydra

    if arguments.cfg:
        from genoattn.cli.help import config_text

        try:
            print(config_text(program, arguments.overrides, arguments.cfg, arguments.resolve))
        except UserError as mistake:
            print(mistake, file=sys.stderr)
            return 2
        return 0

    def run(config: DictConfig) -> float | None:
        return _run(program, ["genoattn", program, *rest], config)

    with quiet() if arguments.quiet else nullcontext():
        if program not in ON_DEVICES:
            return run_program(program, run, arguments.overrides, arguments.multirun)
        with processes.joined():
            code = run_program(program, run, arguments.overrides, arguments.multirun, _shared)
            if code:
                processes.end_together()
            return code


def _shared(make: Callable[[], Path]) -> Path:
    """The run folder: that of the program that started this process, or that which the first process makes."""
    if processes.FOLDER in os.environ and processes.place().world > 1:
        return Path(os.environ[processes.FOLDER])
    return processes.first_makes(make)


def _run(program: str, command: list[str], config: DictConfig) -> float | None:
    """Run a program in its folder, which gets the log of the output and, at the end, the page of the run."""
    from hydra.core.hydra_config import HydraConfig  # late, as a mistake need not wait for the modules of programs

    folder, began = Path(HydraConfig.get().runtime.output_dir), time.time()
    if program in ON_DEVICES:
        if launched := _launch(command[1:], config, folder):
            raise SystemExit(launched)
        if launched == 0:
            return None
        if processes.place().rank:
            return import_module(f"genoattn.cli.{program}").main(config)
    with tee(folder / f"{program}.log"):
        result = import_module(f"genoattn.cli.{program.replace('-', '_')}").main(config)
        if program in WITHOUT_PAGE:
            return result
        from genoattn.cli.run_page import write_run_page

        announce(f"run folder: {folder}")
        write_run_page(folder, program, command, config, began)
        return result


def _launch(words: list[str], config: DictConfig, folder: Path) -> int | None:
    """Start the processes of a run on several devices and wait for their end; None: this is one of them."""
    settings, alone = config.trainer, processes.place().world == 1
    if alone and settings.devices == settings.num_nodes == 1:
        return None
    from genoattn.training.devices import check_devices, check_processes

    check_devices(settings.devices * settings.num_nodes, config.data.batch, settings.sequence_parallel)
    if alone and settings.num_nodes == 1:
        return processes.launch(words, settings.devices, folder)
    check_processes(settings.devices, settings.num_nodes)
    return None


def _parser(program: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(f"genoattn {program}", add_help=False, allow_abbrev=False)
    parser.add_argument("-h", "--help", action="store_true")
    parser.add_argument("-c", "--cfg", choices=["job", "hydra", "all"])
    parser.add_argument("--resolve", action="store_true")
    parser.add_argument("-q", "--quiet", action="store_true")
    parser.add_argument("-m", "--multirun", action="store_true")
    parser.add_argument("overrides", nargs="*", metavar="key=value")
    return parser
