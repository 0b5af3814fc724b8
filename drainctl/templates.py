"""Configuration texts from the templates in haproxy/ and nginx/."""

from __future__ import annotations

from pathlib import Path


def folder() -> Path:
    """Where haproxy/ and nginx/ are: inside the package of an installed wheel, else at the project's root."""
    package = Path(__file__).resolve().parent
    packed = package / "_templates"
    return packed if packed.is_dir() else package.parent


def render(name: str, /, **values: object) -> str:
    """
    Fill in one template.

    Args:
        name: path below the templates' folder, e.g. `nginx/node.conf.j2`.
        values: what the template names; a name without a value is an error, never an empty text.
    Raises: jinja2.TemplateNotFound, jinja2.UndefinedError.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(  # noqa: S701  configuration files, not HTML: escaping would break them
        loader=FileSystemLoader(folder()),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template(name).render(**values)
