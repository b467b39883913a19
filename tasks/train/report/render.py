"""Fills in the HTML templates. Everything that is inserted is escaped."""

from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined

from storage.plural import pluralize
from tasks.train.report.wording import interval, percent


def render(template: str, **values: object) -> str:
    """Fill in a template below ``tasks/train``, such as ``report/evaluation.html.j2``."""
    return _open_templates().get_template(template).render(**values)


@cache
def _open_templates() -> Environment:
    templates = Environment(
        loader=PackageLoader("tasks.train", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    templates.filters |= {"percent": percent, "count": pluralize}
    templates.globals |= {"interval": interval}
    return templates
