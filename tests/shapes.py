"""Checks of the shapes in signatures, by an import hook of jaxtyping that leaves all other functions as they are.

The hook alone wraps every function, and functions within functions at each call: half of the time of the tests of
layers. Types without a shape are pyright's.
"""

import ast
from typing import Any

from jaxtyping import _import_hook, install_import_hook


class ShapeTransformer(_import_hook.JaxtypingTransformer):
    """Decorates a function only if its signature has a shape, as in Float[Tensor, "batch dim"]."""

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.FunctionDef:
        signature = [node.args, *([node.returns] if node.returns else [])]
        return super().visit_FunctionDef(node) if any(map(has_shape, signature)) else node


def has_shape(signature: ast.AST) -> bool:
    """True if a type is subscripted by a type and a string."""
    subscripts = [part.slice for part in ast.walk(signature) if isinstance(part, ast.Subscript)]
    last = [item.elts[-1] for item in subscripts if isinstance(item, ast.Tuple) and item.elts]
    return any(isinstance(item, ast.Constant) and isinstance(item.value, str) for item in last)


def check_types(function: Any) -> Any:
    """Type checker of its own name, because compiled modules are cached by this name."""
    from beartype import beartype

    return beartype(function)


def check_shapes(*modules: str) -> None:
    """From now on the functions of these modules check the shapes in their signatures as the modules are imported.

    Without beartype, which a machine lent for its GPU may lack, nothing is checked.
    """
    try:
        import beartype  # noqa: F401
    except ImportError:
        return
    _import_hook.JaxtypingTransformer = ShapeTransformer
    install_import_hook(list(modules), "tests.shapes.check_types")
