"""Refusals in the words of whoever calls from Python: keyword arguments, not options.

Owns that translation. What refuses lies below the command line and names its options, which are
named after the arguments of the functions here, but for the few that are listed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from ..errors import QuietscopeError
from ..training.registry import METHODS

ARGUMENTS = {
    "--context": "context_frames=",
    "--other-channel": "other_channels=",
    "--no-pixel-maps": "pixel_maps=False",
    "--from general": 'algorithm="refined"',
    **{f"--{flag}": f"{flag}=True" for flag in ("force", "overwrite", "resume", "static")},
    **{
        f"--{name}": f"{name.replace('-', '_')}="
        for name in [
            "algorithm",
            "axes",
            "batch",
            "channel",
            "learning-rate",
            "loss",
            "mask-axis",
            "mask-kernel",
            "mask-span",
            "memory-mib",
            "method",
            "minutes",
            "model",
            "noise-model",
            "patch",
            "perceptual-weights",
            "planes",
            "posterior-samples",
            "preset",
            "provider",
            "samples",
            "samples-from",
            "seed",
            "steps",
            "strength",
            "truth",
        ]
    },
}
"""What the functions take, by the command's option."""
_NAMED = ("general", "cpu", *METHODS)
_OPTION = re.compile(
    r"`[^`]*`"  # a whole command, which is typed as it stands
    rf"|(?P<option>--from general|--[a-z][a-z-]*)"
    rf"(?: (?P<named>(?:{'|'.join(map(re.escape, _NAMED))})\b)| (?P<number>\d+)| [A-Z]{{2,}}\b)?"
)


def in_python(message: str) -> str:
    """Return a message with the arguments of the functions in place of the command's options."""
    return _OPTION.sub(_argument, message)


@contextmanager
def python_words() -> Iterator[None]:
    """Translate what is refused inside; also a decorator."""
    try:
        yield
    except QuietscopeError as error:
        error.args = (in_python(str(error)), *error.args[1:])
        raise


def _argument(found: re.Match[str]) -> str:
    argument = ARGUMENTS.get(found["option"] or "")
    if argument is None:
        return found[0]
    if found["named"] is not None:
        return f'{argument}"{found["named"]}"'
    return argument + (found["number"] or "")
