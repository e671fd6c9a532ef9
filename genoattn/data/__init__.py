"""Examples: tokenizers, tasks, the source of the data and batches."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from genoattn.data.settings import DataSettings
    from genoattn.data.source import DataSource, open_data_source

__all__ = ["DataSettings", "DataSource", "open_data_source"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from genoattn.data import source  # late, so that a module of this folder is cheap to import

    return getattr(source, name)
