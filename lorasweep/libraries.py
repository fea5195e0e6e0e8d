"""How the face calls what is below: quietly, in the words of Python, and without a trace in the caller's process."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from lorasweep.spelling import naming_keywords
from lorasweep.tuning.quiet import quiet_environment, quiet_libraries

P = ParamSpec("P")
T = TypeVar("T")


def quietly(function: Callable[P, T]) -> Callable[P, T]:
    """Silence the libraries while the function runs; the caller's warning filters come back after it.

    Its errors name options as whoever called it has written them.
    """

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        quiet_environment()
        with naming_keywords(), warnings.catch_warnings():
            # Before the libraries are imported, which is when some of them warn.
            warnings.simplefilter("ignore")
            quiet_libraries()
            return function(*args, **kwargs)

    return call
