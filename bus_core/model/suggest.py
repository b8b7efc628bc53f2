"""Model: finds the known name that resembles a mistyped one, for an error message."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def closest(name: str, known: Iterable[str], *, cutoff: float = 0.6) -> str:
    """The known name that resembles `name` most, or an empty string.

    Args:
        name: as the user wrote it.
        known: the names to choose from.
        cutoff: the least similarity, from 0 to 1 (`difflib.get_close_matches`).
    """
    found = difflib.get_close_matches(name, known, 1, cutoff)
    return found[0] if found else ""


def did_you_mean(name: str, known: Iterable[str], otherwise: str = "") -> str:
    """The clause `did you mean 'NAME'?`, or `otherwise` if no known name resembles `name`."""
    near = closest(name, known)
    return f"did you mean {near!r}?" if near else otherwise
