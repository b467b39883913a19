"""Names from outside, made harmless: one function for each medium that would take them for more than text."""

import re

_CONTROLS = re.compile(
    r"[\x00-\x1f\x7f-\x9f"  # what moves a terminal's cursor, colours it, or types for the user
    r"\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069"  # line ends, and what turns the direction of writing
    r"\ud800-\udfff]"  # halves of characters, which no output can encode
)
_MARKUP = re.compile(r"([\\`*_{}\[\]<>|~&$])")


def escape_terminal(text: str) -> str:
    r"""Write characters that control a terminal or hide text as escapes, such as ``\x1b``; one line stays one line."""
    return _CONTROLS.sub(lambda match: ascii(match[0])[1:-1], text)


def escape_json(text: str) -> str:
    r"""Do the same for JSON that is already serialized, where ``\u009b`` is the same character."""
    return _CONTROLS.sub(lambda match: match[0] if match[0] == "\n" else f"\\u{ord(match[0]):04x}", text)


def escape_markdown(text: str) -> str:
    """Escape what Markdown, the HTML in it and its formulas would take for markup."""
    return _MARKUP.sub(r"\\\1", escape_terminal(text))
