"""Help texts that quote the defaults of settings.

The models of the settings declare each default once. Importing them takes a quarter of a second, so
they are imported only when the help of such a command is shown.
"""

from __future__ import annotations

import re
from importlib import import_module
from typing import Any

from typer.core import TyperCommand

REFERENCE = re.compile(r"\{([\w.]+):(\w+)\.(\w+)\}")


class CommandQuotingDefaults(TyperCommand):
    """A command whose options' help may hold `{module:Model.field}`: the default of that field."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help, with the defaults in place of the references."""
        for parameter in self.params:
            if help := getattr(parameter, "help", None):
                parameter.help = quote_defaults(help)  # type: ignore[attr-defined]
        super().format_help(ctx, formatter)


def quote_defaults(help: str) -> str:
    """`help` with the defaults in place of the references."""
    return REFERENCE.sub(_default, help)


def _default(reference: re.Match[str]) -> str:
    """The default, with a space between thousands."""
    module, model, field = reference.groups()
    default = getattr(import_module(module), model).model_fields[field].default
    return f"{default:,}".replace(",", " ")
