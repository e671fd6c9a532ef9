"""The texts of `genoattn PROGRAM --help` and `genoattn PROGRAM --cfg job`."""

from pathlib import Path
from textwrap import wrap

from genoattn.config.documentation import (
    Group,
    Setting,
    first_comment,
    groups,
    program_files,
    settings,
    with_comments,
)
from genoattn.errors import UserError

WIDTH = 100
FLAGS = """
  key=value                 change a setting, or choose a file of a group
  -m, --multirun            one run for each value: genoattn train -m attention=linear,window
  -q, --quiet               print what was written where, and errors; the log has all
  -c, --cfg job|hydra|all   print the config and stop; --cfg job --resolve: without interpolations
  -h, --help                print this text
"""
EXAMPLES = {
    "train": ["attention=window attention.left=64", "data.fasta=mine.fa data.vcf=mine.vcf.gz", "experiment=paired"],
    "finetune": ["checkpoint=runs/train/RUN data.fasta=mine.fa"],
    "evaluate": ["checkpoint=runs/train/RUN", "checkpoint=runs/train/RUN data.fasta=other.fa data.vcf=other.vcf.gz"],
    "detect": ["reference=a.fa.gz sample=b.fa.gz out=calls.vcf.gz", "checkpoint=runs/train/RUN reference=a.fa.gz …"],
    "models": [""],
    "scan": ["fasta=reference.fa.gz region=chr1:1000-2000 out=scan"],
    "score": ["fasta=reference.fa.gz vcf=in.vcf.gz out=scored.vcf.gz"],
    "compare": ["layers=[full,window,linear] budget.seconds=60", "experiment=paired 'data.length=[512,2048]'"],
    "plan": ["attention=hierarchical data.length=32768 data.batch=4"],
    "context": ["checkpoint=runs/train/RUN"],
    "export": ["checkpoint=runs/train/RUN out=my-model"],
    "tokenizer-report": ["tokenizer=bpe", "checkpoint=runs/train/RUN"],
    "check-layer": ["attention=hierarchical", "attention=none attention._target_=mypackage.MyLayer"],
    "kernels": ["family=sm_90"],
}


def program_help(program: str, summary: str) -> str:
    """Usage, every setting with its default and the comment of its yaml, every choice, and examples."""
    parts = [f"{summary[0].upper()}{summary[1:]}.\n\nusage: genoattn {program} [key=value …]\n{FLAGS.rstrip()}"]
    described = groups(program)
    width = max((len(setting.key) for group in described for setting in group.settings), default=0)
    for group in described:
        parts.append("\n".join([*_choices(group), *_settings(group.settings, min(width, 32))]))
    examples = "\n".join(f"  genoattn {program} {words}" for words in EXAMPLES[program])
    return "\n\n".join([*filter(None, parts), f"Examples:\n{examples}"])


def _choices(group: Group) -> list[str]:
    """The line that names a group and its default choice, and a line for each of its choices."""
    if not group.name:
        return ["Settings of the program"] if group.settings else []
    files = group.files if group.override == group.name else []  # else they stand under the group itself
    longest = max((len(file.stem) for file in files), default=0)
    rows = [_row(f"  {file.stem:{longest}}", first_comment(file)) for file in files]
    return [_row(f"{group.override}={group.default}", group.comment), *rows]


def _settings(rows: list[Setting], width: int) -> list[str]:
    return [_row(f"  {row.key:{width}}  {row.value:12}", row.comment) for row in rows]


def _row(head: str, text: str) -> str:
    """A line of two columns; the second is wrapped."""
    lines = wrap(text, WIDTH - len(head) - 2) or [""]
    return "\n".join([f"{head}  {lines[0]}".rstrip(), *(" " * (len(head) + 2) + line for line in lines[1:])])


def config_text(program: str, overrides: list[str], section: str, resolve: bool) -> str:
    """The config of a run as yaml with the comments of its files; a setting that must be given is ???.

    Args:
        program: Name of the program.
        overrides: Overrides of the user.
        section: `job` (the settings), `hydra` (those of Hydra itself) or `all`.
        resolve: Replace interpolations by their values.
    """
    from omegaconf import OmegaConf  # late, as Hydra: --help need not wait for them
    from omegaconf.errors import OmegaConfBaseException

    from genoattn.config.compose import config_of_run
    from genoattn.config.overrides import first_line

    config = config_of_run(program, overrides)
    comments = {setting.key: setting.comment for file in program_files(program) for setting in settings(file, "")}
    for chosen, choice in config.hydra.runtime.choices.items():
        group, _, package = chosen.partition("@")
        for source in config.hydra.runtime.config_sources:
            file = Path(source.path, group, f"{choice}.yaml")
            if source.schema == "file" and file.is_file():
                comments |= {row.key: row.comment for row in settings(file, package or group.replace("/", "."))}
    keys = [str(key) for key in config if section == "all" or (key == "hydra") == (section == "hydra")]
    try:
        text = OmegaConf.to_yaml(OmegaConf.masked_copy(config, keys), resolve=resolve)
    except OmegaConfBaseException as error:
        raise UserError(f"{error.full_key}: {first_line(error)}") from None
    return with_comments(text, comments)
