"""Text from files and names, as it may be printed: nothing in it moves the cursor or turns the reading direction."""

from __future__ import annotations

import re
from typing import Final

__all__ = ["visible"]

#: Control characters but tab and line end; marks of reading direction; line and paragraph separators; invisible marks.
_UNSEEN: Final = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ud800-\udfff]"
)


def visible(text: str, *, one_line: bool = False) -> str:
    r"""Return a text with terminal escapes and invisible marks spelled out; with ``one_line``, line ends too.

    Example:
        >>> from lad_reasoner.support.visible import visible
        >>> print(visible("a\x1b[31mb\u202ec"))
        a\x1b[31mb\u202ec
    """
    shown = _UNSEEN.sub(lambda found: ascii(found.group())[1:-1], text)
    return shown.replace("\n", "\\n").replace("\t", "\\t") if one_line else shown
