"""The form of a scenario file. Layer: testkit.

Contract: blocks, apart by an empty line: comments, commands, a line `----`, what came of them. The
commands of one block happen at once, in their order. A file that is played and written again
differs only where something else came of it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

_RULE = "----"


class Block(NamedTuple):
    """Commands and what came of them.

    Attributes:
        comment: lines before the commands, each with its `#`.
        commands: at least one, unless the block is a comment by itself.
        came: what the file says.
    """

    comment: list[str]
    commands: list[str]
    came: list[str]


def parse(text: str) -> list[Block]:
    """The blocks of a file.

    Raises:
        ValueError: a block has commands and no rule below them.
    """
    blocks = []
    for part in text.strip().split("\n\n"):
        lines = [line.rstrip() for line in part.splitlines() if line.strip()]
        comment = [line for line in lines if line.startswith("#")]
        rest = lines[len(comment) :]
        if rest and _RULE not in rest:
            raise ValueError(f"{rest[0]!r} has no {_RULE} below it")
        at = rest.index(_RULE) if rest else 0
        blocks.append(Block(comment, rest[:at], rest[at + 1 :]))
    return blocks


def render(blocks: Iterable[Block]) -> str:
    """The text of a file."""
    parts = []
    for block in blocks:
        lines = [*block.comment]
        if block.commands:
            lines += [*block.commands, _RULE, *block.came]
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"
