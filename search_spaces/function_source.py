"""A Python function written down as a source of its own, so that a sweep can keep it and run it again."""

from __future__ import annotations
import __future__

import ast
import builtins
import inspect
import symtable
import textwrap
from collections.abc import Callable, Iterator, Mapping
from importlib import import_module
from types import CodeType, FunctionType, ModuleType
from typing import Any

from lorasweep.training.errors import SettingsError

# Annotations are then not evaluated, so what only they use is not needed.
HEAD = "from __future__ import annotations"
HINT = "write it to a file and pass space='file.py:function'"


def function_source(function: Callable[..., Any]) -> str:
    """Source text that defines `function` together with what it uses of its module.

    Imported modules and names become import lines, plain constants their `repr`, and other functions and classes
    of the same file follow by their source. Constants are written with the value that they have now.

    Raises:
        SettingsError: the function, or something that it uses, has no source or cannot be written down.
    """
    plain = inspect.unwrap(function)
    name = getattr(plain, "__name__", None) or type(plain).__name__
    if not isinstance(plain, FunctionType):
        kind = (
            "a bound method" if inspect.ismethod(plain) else f"a {type(plain).__name__}, not a plain function"
        )
        raise _refusal(name, f"is {kind}")
    return _Writer(plain).text()


class _Writer:
    """Collects imports, constants and definitions, each after what it depends on."""

    def __init__(self, function: FunctionType) -> None:
        self.name = function.__name__
        self.module = function.__module__
        self.globals: Mapping[str, Any] = function.__globals__
        self.imports: dict[str, str] = {}
        self.constants: dict[str, str] = {}
        self.definitions: dict[str, str] = {}
        self.begun: set[str] = set()
        self._define(self.name, function)

    def text(self) -> str:
        parts = [
            "\n".join([HEAD, *self.imports.values()]),
            "\n".join(self.constants.values()),
            *self.definitions.values(),
        ]
        return "\n\n\n".join(part for part in parts if part) + "\n"

    def _define(self, name: str, value: Any) -> None:
        """Add a function or class of the same file, and what it uses before it."""
        self.begun.add(name)
        plain = inspect.unwrap(value)
        if isinstance(plain, FunctionType):
            if plain.__name__ == "<lambda>":
                raise self._refusal(name, "is a lambda; give it a name with def")
            if plain.__code__.co_freevars:
                outer = ", ".join(plain.__code__.co_freevars)
                raise self._refusal(name, f"uses local variables of the function around it ({outer})")
        try:
            source = textwrap.dedent(inspect.getsource(plain)).rstrip()
            tree = ast.parse(source)
        except (OSError, TypeError, SyntaxError):
            raise self._refusal(name, "has no source that can be read") from None
        defined = getattr(tree.body[0], "name", None) if tree.body else None
        if defined != name or not _same_code(source, plain):
            raise self._refusal(
                name, "differs from its source: the file has changed, or it has another name there"
            )
        for used in _globals_of(source):
            if used in self.globals and used not in self.begun:
                self._use(used, self.globals[used])
        self.definitions[name] = source

    def _use(self, name: str, value: Any) -> None:
        if getattr(builtins, name, None) is value:
            return
        if isinstance(value, ModuleType):
            self.imports[name] = _import_line(value.__name__, name)
        elif _is_plain(value):
            self.constants[name] = f"{name} = {value!r}"
        elif callable(value) and getattr(value, "__module__", None) == self.module:
            self._define(name, value)
        elif line := _from_line(name, value):
            self.imports[name] = line
        else:
            raise self._refusal(name, f"is a {type(value).__name__} that cannot be written down")

    def _refusal(self, name: str, why: str) -> SettingsError:
        return _refusal(self.name, why if name == self.name else f"uses {name}, which {why}")


def _refusal(name: str, why: str) -> SettingsError:
    return SettingsError(f"space: the function {name} cannot be kept with the sweep: it {why}; {HINT}")


def _import_line(module: str, name: str) -> str:
    return f"import {module}" if module == name else f"import {module} as {name}"


def _from_line(name: str, value: Any) -> str | None:
    """An import line for a name of another module, or None where it cannot be found there."""
    module, origin = getattr(value, "__module__", None), getattr(value, "__name__", None)
    try:
        if getattr(import_module(module), origin) is not value:  # type: ignore[arg-type]
            return None
    except (ImportError, AttributeError, TypeError, ValueError):
        return None
    return f"from {module} import {origin}" if origin == name else f"from {module} import {origin} as {name}"


def _is_plain(value: object) -> bool:
    """Whether Python reads the value's `repr` as an equal value."""
    try:
        read = ast.literal_eval(repr(value))
        return type(read) is type(value) and bool(read == value)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return False


def _same_code(source: str, function: Any) -> bool:
    """Whether a function's source has its names and constants: the file may have changed since its import."""
    if not isinstance(function, FunctionType):
        return True
    code = function.__code__
    flags = code.co_flags & __future__.annotations.compiler_flag
    compiled = compile(source, code.co_filename, "exec", flags=flags, dont_inherit=True)
    return any(_marks(inner) == _marks(code) for inner in compiled.co_consts if inspect.iscode(inner))


def _marks(code: CodeType) -> tuple[object, ...]:
    # Not the bytes: they also depend on what the rest of the file imports.
    constants = [repr(constant) for constant in code.co_consts if not inspect.iscode(constant)]
    return code.co_name, code.co_names, code.co_varnames, constants


def _globals_of(source: str) -> list[str]:
    """Names that the code reads from its module when it is run."""
    return list(dict.fromkeys(_read_globally(symtable.symtable(f"{HEAD}\n{source}", "<space>", "exec"))))


def _read_globally(table: symtable.SymbolTable) -> Iterator[str]:
    top = table.get_type() == "module"
    for symbol in table.get_symbols():
        if symbol.is_referenced() and (symbol.is_global() or top):
            yield symbol.get_name()
    for inner in table.get_children():
        yield from _read_globally(inner)
