"""Examples: tokenizers, tasks, the source of the data and batches."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from genoattn.data.settings import DataSettings
    from genoattn.data.source import DataSource, open_data_source

__all__ = ["DataSettings", "DataSource", "open_data_source"]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that modules of this folder are cheap to import."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"genoattn.data.{'settings' if name == 'DataSettings' else 'source'}"), name)
