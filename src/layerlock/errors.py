"""The one exception family that reaches users: its text is the whole story, so it is printed without a traceback."""

from __future__ import annotations

from collections.abc import Sequence


class LayerlockError(Exception):
    """Something outside the program is wrong: a file, a field, a disk. The message says what and what to do."""


class ConfigError(LayerlockError):
    """One or more fields of a config are wrong; all problems are listed at once."""

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        head = (
            "the config has a problem:" if len(self.problems) == 1 else f"the config has {len(self.problems)} problems:"
        )
        super().__init__("\n".join([head, *(f"  - {problem}" for problem in self.problems)]))


def one_line(error: Exception) -> str:
    """What an error of a library says, without its line breaks."""
    return " ".join(str(error).split())
