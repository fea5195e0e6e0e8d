"""The YAML of the whole project, read and written: numbers as people mean them, and no key twice."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from lorasweep.training.errors import SettingsError


class _Loader(yaml.SafeLoader):
    """PyYAML follows YAML 1.1: `1e-4` is text, and the last of two equal keys wins in silence."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        if isinstance(node, yaml.MappingNode):
            seen: dict[str, int] = {}
            for key, _ in node.value:
                if not isinstance(key, yaml.ScalarNode):
                    continue
                if key.value in seen and key.tag != "tag:yaml.org,2002:merge":
                    raise yaml.constructor.ConstructorError(
                        problem=f"{key.value} stands twice (first on line {seen[key.value]})",
                        problem_mark=key.start_mark,
                    )
                seen[key.value] = key.start_mark.line + 1
        return super().construct_mapping(node, deep=deep)


class _Dumper(yaml.SafeDumper):
    """Puts a text such as "1e-4" in quotes, so that `_Loader` reads a text."""


_EXPONENT = re.compile(r"[-+]?(?:\d+(?:\.\d*)?|\.\d+)[eE][-+]?\d+$")
for _kind in (_Loader, _Dumper):
    _kind.add_implicit_resolver("tag:yaml.org,2002:float", _EXPONENT, list("-+.0123456789"))


def dump_yaml(content: dict[str, Any], **options: Any) -> str:
    """A mapping as YAML, in its order, which `parse_yaml` reads back; `options` are those of `yaml.dump`."""
    return str(yaml.dump(content, Dumper=_Dumper, sort_keys=False, allow_unicode=True, **options))


def one_line(content: dict[str, Any]) -> str:
    """A mapping as YAML on one line, in braces."""
    return dump_yaml(content, default_flow_style=True, width=10**6).rstrip("\n")


def parse_yaml(text: str, where: str) -> dict[str, Any]:
    """The mapping in `text`; `where` names its place in errors.

    Raises `SettingsError`, with the line, for text that is not YAML and for a key that stands twice, and
    for anything but a mapping with names as keys.
    """
    try:
        content = yaml.load(text, Loader=_Loader)
    # ValueError: what looks like a date or a number and is none.
    except (yaml.YAMLError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        line = f" line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or getattr(error, "reason", None) or str(error)
        raise SettingsError(f"{where}{line}: not valid YAML: {' '.join(problem.split())}") from None
    if not isinstance(content, dict) or not content:
        found = "nothing" if not content else f"a {type(content).__name__}"
        raise SettingsError(f"{where}: holds {found}; write one `name: value` a line")
    for key in content:
        if not isinstance(key, str):
            raise SettingsError(f"{where}: the key {key!r} is not a name")
    return content


def read_yaml(path: Path, flag: str = "") -> dict[str, Any]:
    """The mapping in the file at `path`, which `flag` has named on the command line.

    Raises `SettingsError` as `parse_yaml` does, and when the file cannot be read.
    """
    where = f"{flag} {path}" if flag else str(path)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise SettingsError(f"{where}: no such file") from None
    except UnicodeDecodeError:
        raise SettingsError(f"{where}: not UTF-8 text; save the file as UTF-8") from None
    except OSError as error:
        raise SettingsError(f"{where}: cannot be read ({error.strerror}); name a YAML file") from None
    return parse_yaml(text, where)
