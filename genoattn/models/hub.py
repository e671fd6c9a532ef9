"""A trained model with the methods of the Hugging Face Hub: save_pretrained, from_pretrained, push_to_hub."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, final

import torch
from huggingface_hub import PyTorchModelHubMixin, snapshot_download

from genoattn.errors import UserError, shorten
from genoattn.models.build import LoadedModel, load_predictor
from genoattn.models.export import check_new, export_model
from genoattn.models.exported import FILES, LIBRARY, TAGS
from genoattn.models.pretrained import PretrainedModel


@final
class HubModel(PyTorchModelHubMixin, library_name=LIBRARY, tags=[*TAGS]):
    """A model to share; the mixin contributes `push_to_hub`, which needs a token of the Hub (`hf auth login`).

    Attributes:
        model: The model, as `genoattn.load` returns it.
    """

    def __init__(self, loaded: LoadedModel):
        self._loaded = loaded
        self.model = PretrainedModel(loaded)

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        device: torch.device | str | None = None,
        trust: Sequence[str] = (),
        **download: Any,
    ) -> "HubModel":
        """Open a model of a folder or of the Hub; no code runs but that of genoattn.

        The mixin's own method is not used, because it makes arguments of the keys of a config.json.

        Args:
            pretrained_model_name_or_path: An exported folder or a run folder; else the name of a repository of the Hub.
            device: Where the model computes; None takes the GPU if there is one.
            trust: Packages besides genoattn whose classes the model may use; their code is run.
            **download: Arguments of `huggingface_hub.snapshot_download`, such as `revision` and `token`.

        Raises:
            UserError: As `genoattn.load`; or the Hub has no such repository, or cannot be reached.
        """
        folder = Path(pretrained_model_name_or_path)
        if not folder.exists():
            repository = str(pretrained_model_name_or_path)
            try:
                folder = Path(snapshot_download(repository, allow_patterns=list(FILES), **download))
            except (OSError, ValueError) as error:
                reason = shorten(error)
                raise UserError(f"{repository}: no such folder is there, nor does the Hub give it: {reason}") from error
        return cls(load_predictor(folder, device, trust))

    def save_pretrained(self, save_directory: str | Path, **options: Any) -> str | None:
        """Write the folder that `genoattn export` writes.

        Args:
            save_directory: A new folder.
            **options: Those of the mixin, such as `push_to_hub` and `repo_id`.

        Returns:
            The address of the commit if the model was pushed to the Hub.

        Raises:
            UserError: The folder is not empty, or cannot be written.
        """
        folder = Path(save_directory)
        folder.parent.mkdir(parents=True, exist_ok=True)
        check_new(folder)  # before the mixin, which would remove a config.json
        return super().save_pretrained(folder, **options)

    def _save_pretrained(self, save_directory: Path) -> None:
        export_model(self._loaded, save_directory)
