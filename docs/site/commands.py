"""The page that describes every command, from the command line itself."""

from __future__ import annotations

import re
from typing import Any

import typer

from factory.cli import command_line
from factory.cli.defaults import quote_defaults

HEAD = """# Commands

`factory --help` lists the commands, `factory COMMAND --help` prints what this page says about one.
A command that is interrupted resumes when it is rerun. A user's mistake is one line and exit code
1; Ctrl-C gives 130, `kill` 143.
"""
SECTION = """
### {name}

{help}

```
{usage}
```

| option | |
| --- | --- |
{table}"""


def reference() -> str:
    """The page in Markdown: the commands by panel, in the order of `factory --help`."""
    verbs = typer.main.get_command(command_line()).commands  # type: ignore[attr-defined]
    panels: dict[str, list[str]] = {}
    for name, verb in verbs.items():
        panels.setdefault(verb.rich_help_panel, []).append(_verb(name, verb))
    return HEAD + "".join(f"\n## {panel}\n{''.join(verbs)}" for panel, verbs in panels.items())


def _verb(name: str, verb: Any) -> str:
    context = verb.make_context(f"factory {name}", [], resilient_parsing=True)
    arguments = [p for p in verb.params if p.param_type_name == "argument"]
    pieces = [f"`{p.metavar}`" + (" ..." if p.nargs == -1 else "") for p in arguments]
    usage = " ".join([f"factory {name} [OPTIONS]", *(piece.replace("`", "") for piece in pieces)])
    rows = [(piece, p.help or "") for piece, p in zip(pieces, arguments, strict=True)]
    records = [p.get_help_record(context) for p in verb.params if p not in arguments]
    rows += [(f"`{record[0]}`", record[1]) for record in records if record]
    table = "".join(f"| {_cell(option)} | {_meaning(text)} |\n" for option, text in rows)
    return (
        f"\n### {name}\n\n{verb.help}\n\n```\n{usage}\n```\n\n| option | |\n| --- | --- |\n{table}"
    )


def _meaning(text: str) -> str:
    """`Threads.  [default: 1; x>=1]` as a cell, the bracket set apart."""
    text, _, notes = quote_defaults(text).partition("  [")
    parts = [_note(note) for note in notes.removesuffix("]").split("; ")] if notes else []
    return _cell(" ".join([text, *parts]))


def _note(note: str) -> str:
    if note == "required":
        return "**Required.**"
    kind, _, value = note.partition(": ")
    if value:
        return f"{kind.capitalize().replace('Env', 'Environment').replace(' var', '')}: `{value}`."
    return f"`{re.sub('[<>]=', lambda sign: {'<=': '≤', '>=': '≥'}[sign[0]], note)}`"


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
