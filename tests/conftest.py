"""Every shape written in a signature of genoattn is checked at every call while the tests run."""

from jaxtyping import install_import_hook

install_import_hook("genoattn", "beartype.beartype")
