"""Names that somebody wrote and nothing has: the question what was meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any

LONGEST = 80  # letters of a name that is compared


def meant(name: Any, known: Iterable[str]) -> str:
    """A question after what is known and resembles a name, or nothing; upper and lower case are the same."""
    if not isinstance(name, str) or len(name) >= LONGEST:
        return ""
    by_case = {other.casefold(): other for other in known}
    close = difflib.get_close_matches(name.casefold(), list(by_case), 1)
    return f" (did you mean {by_case[close[0]]}?)" if close else ""
