"""Pages for a browser: one html file each, which holds its style and pictures and opens without a network."""

from collections.abc import Callable, Mapping
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader


def render(package: str, template: str, filters: Mapping[str, Callable[..., object]], **values: Any) -> str:
    """A page from a template that extends `page.html.j2`; names of users' files in it are escaped.

    Args:
        package: The package in whose folder the template lies.
        template: Its path inside that folder.
        filters: Functions that the template calls by name.
        values: What the template shows; `title`, `subtitle` and `sections` (id and heading) are those of every page.
    """
    loader = ChoiceLoader([PackageLoader(package, ""), PackageLoader("genoattn.evaluation", "templates")])
    templates = Environment(loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True)
    templates.filters |= filters
    return templates.get_template(template).render(**values)
