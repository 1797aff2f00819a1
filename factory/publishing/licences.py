"""What well-known licences of models and images forbid, by their identifier on the hub.

The terms are those that matter to someone who publishes what a model made. They are a reminder to
read the licence, not advice on the law.
"""

from __future__ import annotations

import re

IDENTIFIER = re.compile(r"[a-z0-9][a-z0-9.+-]*")
OTHER = "other"  # terms of one's own, which need a link

COMMERCIAL = "forbids commercial use"
DERIVATIVES = "forbids publishing altered or derived works"
SAME_TERMS = "requires the same licence for derived works"
USES = "forbids the uses that it lists, and requires that you pass these limits on"


def restrictions(licence: str) -> list[str]:
    """What `licence` forbids or requires; empty for a licence without such terms, or unknown ones.

    `licence` is an identifier such as `cc-by-nc-4.0`.
    """
    parts = licence.lower().split("-")
    found = []
    if {"nc", "noncommercial", "non"} & set(parts):
        found.append(COMMERCIAL)
    if "nd" in parts:
        found.append(DERIVATIVES)
    if "sa" in parts or parts[0] in ("gpl", "agpl", "lgpl"):
        found.append(SAME_TERMS)
    if "openrail" in licence or "rail" in parts or parts[0] in ("llama2", "llama3", "gemma"):
        found.append(USES)
    return found


def check_licence(licence: str, link: str | None) -> None:
    """Raise ValueError unless `licence` looks like an identifier of the hub, `other` with a link.

    The hub has the full list, and refuses an unknown one before anything is sent.
    """
    if not IDENTIFIER.fullmatch(licence):
        raise ValueError(
            f"--license {licence!r}: expected an identifier such as cc-by-4.0, mit or apache-2.0, "
            "or `other` with --license-link"
        )
    if (licence == OTHER) != (link is not None):
        found = "without --license-link" if link is None else f"with --license-link {link}"
        raise ValueError(f"--license {licence} {found}: expected the link with `other` alone")
