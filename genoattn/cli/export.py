"""A trained model as a folder in the layout of the Hugging Face Hub, to share it."""

from pathlib import Path

from omegaconf import DictConfig

from genoattn.cli.console import announce
from genoattn.cli.values import saved_model
from genoattn.errors import UserError
from genoattn.models.export import check_new, export_model


def main(config: DictConfig) -> None:
    """Open a saved model, and write it into a new folder."""
    out = Path(config.out).expanduser()
    try:
        check_new(out)
    except UserError as error:
        raise UserError(f"out: {error}") from None
    export_model(saved_model(config, "cpu"), out)
    announce(f"{out} holds the model: genoattn.load({str(out)!r}), or checkpoint={out} in any program")
    print(f"before you share it, name its licence in {out / 'README.md'}")
