"""The folders of a comparison's runs: which runs are complete, which are made again, and where earlier results go."""

import fcntl
import os
import shutil
import socket
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias

from genoattn.comparison.inputs import INPUTS, InputReader, RunInputs, sentence
from genoattn.comparison.record import FILE
from genoattn.errors import UserError
from genoattn.models.checkpoint import DIVERGED

Again: TypeAlias = bool | Sequence[str]
"""Complete runs that are made again: all, or those of some stages or folders."""

STAGES = ("costs", "sweep", "final", "context")
"""Parts of a comparison that `again` can name."""

CHECKPOINT = Path("checkpoints", "last.ckpt")
"""The state of a training run that was stopped, in its folder."""

LOCK = ".lock"


class RunState(NamedTuple):
    """A planned run beside what its folder holds."""

    action: Literal["reuse", "make", "make again", "continue"]
    reason: str = ""
    """The reason why a complete run is made again."""


def find_state(place: Path, inputs: RunInputs, result_file: str, again: bool) -> RunState:
    """The action that a run needs, from the files in its folder."""
    complete = (place / result_file).is_file() or (place / DIVERGED).is_file()
    stopped = not complete and (place / CHECKPOINT).is_file()
    if not complete and not stopped:
        return RunState("make")
    if (earlier := RunInputs.read(place)) is None:
        return RunState("make again", f"its {INPUTS} is missing or damaged, as in runs of earlier versions")
    if changes := inputs.differences(earlier):
        return RunState("make again", sentence(changes))
    if stopped:
        return RunState("continue")
    return RunState("make again", "again=… asks for it") if again else RunState("reuse")


def prepare(
    program: str, jobs: Mapping[str, Sequence[str]], folder: Path, result_file: str, again: Again = False
) -> dict[str, RunInputs]:
    """Make the folder of every run that is to be made, and say what is reused and why the others are not.

    Nothing finished is deleted: the folder of a run that is made again is renamed to `NAME~1`, `NAME~2`, … beside it,
    and so is that of a stopped run with other inputs that has a checkpoint.

    Returns:
        The inputs of the runs to be made, by place.
    """
    reader = InputReader()
    inputs = {place: reader.read(program, words) for place, words in jobs.items()}
    states = {place: find_state(folder / place, inputs[place], result_file, asks_again(again, place)) for place in jobs}
    kept: dict[str, str] = {}
    for place, state in states.items():
        if state.action == "make again":
            kept[place] = str(set_aside(folder / place).relative_to(folder))
        elif state.action == "make":
            shutil.rmtree(folder / place, ignore_errors=True)
        if state.action != "reuse":
            (folder / place).mkdir(parents=True, exist_ok=True)
            inputs[place].write(folder / place)
    if kept and (folder / FILE).is_file():  # the record of the earlier runs, of which report=… makes the page
        beside = free_name(folder / Path(FILE).stem)
        beside.mkdir()
        (folder / FILE).rename(beside / FILE)
    for line in describe(program, states, kept):
        print(line, flush=True)
    return {place: inputs[place] for place, state in states.items() if state.action != "reuse"}


def describe(program: str, states: Mapping[str, RunState], kept: Mapping[str, str]) -> list[str]:
    """Lines on the runs that are reused, continued and made again, with the reasons.

    Args:
        program: Name of the program.
        states: The state of each run by place.
        kept: The new names of the folders of earlier runs, by place.
    """
    lines, total = [], len(states)
    actions = Counter(state.action for state in states.values())
    if reused := actions["reuse"]:
        share = f"{reused} of {total}" if reused < total else f"all {total}"
        lines.append(f"{program}: {share} runs are complete already")
    if continued := actions["continue"]:
        lines.append(f"{program}: {continued} of {total} runs were stopped and go on from their last checkpoint")
    for reason, number in Counter(state.reason for state in states.values() if state.reason).items():
        first = next(place for place, state in states.items() if state.reason == reason)
        beside = f"{kept[first]} and {number - 1} more" if number > 1 else kept[first]
        lines.append(f"{program}: {number} of {total} runs are made again, because {reason}; kept: {beside}")
    return lines


def set_aside(path: Path) -> Path:
    """Rename a folder to the first free name of NAME~1, NAME~2, …; returns it."""
    return path.rename(free_name(path))


def free_name(path: Path) -> Path:
    """The first of NAME~1, NAME~2, … that does not exist."""
    numbered = (path.with_name(f"{path.name}~{number}") for number in count(1))
    return next(beside for beside in numbered if not beside.exists())


def stage_of(place: str) -> str:
    """The part of a comparison that a run belongs to."""
    first, *_, last = place.split("/")
    return last.partition("-")[0] if first == "runs" else first


def asks_again(again: Again, place: str) -> bool:
    """True if `again` names the stage or a folder of a run."""
    if isinstance(again, bool):
        return again
    return any(name == stage_of(place) or f"{place}/".startswith(f"{name.rstrip('/')}/") for name in again)


def check_again(again: Again) -> None:
    """Raises UserError if `again` names neither stages nor folders of runs."""
    for name in () if isinstance(again, bool) else again:
        if name not in STAGES and name.split("/")[0] not in ("runs", *STAGES):
            raise UserError(
                f"again: expected true, stages ({', '.join(STAGES)}) or folders such as runs/512/linear, got {name}"
            )


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Be the only comparison in a folder; the lock ends with the process, however that ends.

    Raises:
        UserError: Another comparison works in this folder.
    """
    with (folder / LOCK).open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            raise UserError(
                f"another comparison ({file.read().strip() or 'process unknown'}) works in {folder}; wait for its end,"
                " or name another folder: name=…"
            ) from None
        except OSError as error:
            print(f"{folder} cannot be locked ({error.strerror}): start no second comparison in it")
        file.truncate(0)
        file.write(f"process {os.getpid()} of {socket.gethostname()}\n")
        file.flush()
        yield
