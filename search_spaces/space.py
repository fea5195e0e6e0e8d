"""Search spaces: what a sweep varies, where it starts, and which hyperparameters stay constant."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import BaseDistribution

from lorasweep.search_spaces.domains import Choice, Domain, Value, parse, show
from lorasweep.search_spaces.fields import (
    adapter_settings,
    check_name,
    check_value,
    goes_with,
    make_hyperparameters,
    nearest,
)
from lorasweep.search_spaces.function_space import FunctionSpace
from lorasweep.search_spaces.starts import Start, check_starts, starts_text, take_starts
from lorasweep.training.errors import SettingsError
from lorasweep.training.files.yaml_file import one_line, parse_yaml, read_yaml
from lorasweep.training.settings import Hyperparameters

SHIPPED = Path(__file__).parent


@dataclass(frozen=True)
class SearchSpace:
    """Domains and constants by the names of `Hyperparameters`' fields.

    A hyperparameter that is not named keeps its default. Raises `SettingsError` for what cannot be searched.

    Attributes:
        name: how the space is shown.
        parameters: name → domain or constant.
        starts: known-good hyperparameters that a sweep tries first, in this order: in each a value for every
            searched name; without one for the base model, the sweep's own. May be empty.
        about: when to use the space, in a line.

    Example:
        >>> space = SearchSpace("mine", {"rank": Choice((4, 8)), "learning_rate": Range(1e-3, 1e-2, log=True)})
        >>> list(space.searched)
        ['rank', 'learning_rate']
    """

    name: str
    parameters: Mapping[str, Domain | Value]
    starts: tuple[Start, ...] = ()
    about: str = ""

    def __post_init__(self) -> None:
        for name, domain in self.parameters.items():
            check_name(name)
            if isinstance(domain, Domain):
                domain.check(name)
            else:
                check_value(name, domain)
        if not self.searched:
            raise SettingsError(
                "nothing to search; give a hyperparameter a domain: rank: {choice: [4, 8, 16]}"
            )
        for name, needed in without_use(self.parameters).items():
            raise SettingsError(
                f"{name}: goes with {needed}, which no trial of this space has; add that, or leave {name} out"
            )
        if self.parameters.get("method") == "full":
            unused = [name for name in self.searched if name in adapter_settings()]
            if unused:
                raise SettingsError(
                    f"{', '.join(unused)}: full fine-tuning has no use for it; leave it out, or search the method, too"
                )
        check_starts(self.starts, self.parameters)

    @property
    def searched(self) -> dict[str, Domain]:
        """The hyperparameters that vary, with their domains."""
        return {name: domain for name, domain in self.parameters.items() if isinstance(domain, Domain)}

    @property
    def constants(self) -> dict[str, Value]:
        """The hyperparameters that are the same in all trials, with their values."""
        return {name: value for name, value in self.parameters.items() if not isinstance(value, Domain)}

    def suggest(self, trial: optuna.Trial) -> dict[str, Any]:
        """All values of one trial: searched ones from its sampler, and the constants.

        In Optuna's define-by-run style, as `OptunaSearch(space=space.suggest)` of Ray Tune takes it.
        """
        return {name: domain.suggest(trial, name) for name, domain in self.searched.items()} | self.constants

    def hyperparameters(self, values: Mapping[str, Any]) -> Hyperparameters:
        """A trial's `values` and the space's constants, validated; the rest keeps its defaults.

        Raises `SettingsError` for a name or a value that is not allowed.
        """
        return make_hyperparameters({**self.constants, **values})

    def start_points(self) -> list[dict[str, Value]]:
        """Each start's values of the searched names, as Optuna's `enqueue_trial` takes them; may be empty."""
        return [{name: start[name] for name in self.searched if name in start} for start in self.starts]

    def distributions(self) -> dict[str, BaseDistribution]:
        """Optuna's distributions of the searched names."""
        return {name: domain.distribution() for name, domain in self.searched.items()}

    def describe(self) -> list[tuple[str, str]]:
        """Rows (name, values) for display: "4, 8, 16", "1e-4 ... 1e-2 (log)", or the constant; last the starts."""
        rows = [
            (name, str(domain) if isinstance(domain, Domain) else show(domain))
            for name, domain in self.parameters.items()
        ]
        return [*rows, ("starts", starts_text(self.start_points()))] if self.starts else rows

    def __str__(self) -> str:
        return "\n".join(f"{name}: {text}" for name, text in self.describe())

    def to_mapping(self) -> dict[str, Any]:
        """The space as it stands in YAML, without its name; `from_dict` reads it back."""
        parameters = {
            name: domain.written() if isinstance(domain, Domain) else domain
            for name, domain in self.parameters.items()
        }
        head = {"about": self.about} if self.about else {}
        return head | ({"starts": [dict(start) for start in self.starts]} if self.starts else {}) | parameters

    def to_yaml(self, comments: Mapping[str, str] | None = None) -> str:
        """The space as YAML, one line for each hyperparameter and each start; `from_yaml` reads it back.

        Args:
            comments: name or `starts` → a comment above it; that of "" stands above all.
        """
        lines = _comment((comments or {}).get("", ""))
        for name, value in self.to_mapping().items():
            lines += _comment((comments or {}).get(name, ""))
            if name == "starts":
                lines += ["starts:", *(f"  - {one_line(start)}" for start in value)]
            else:
                # The outer braces would put the whole space on one line.
                lines.append(one_line({name: value})[1:-1])
        return "\n".join(lines) + "\n"

    @classmethod
    def from_dict(
        cls, entries: Mapping[str, Any], name: str = "space", where: str | None = None
    ) -> SearchSpace:
        """A space from what its YAML holds, where a domain may also be a `Choice`, `Range` or `IntRange`.

        Known-good settings stand in a list under `starts`; a single one may stand under `start`.

        >>> SearchSpace.from_dict({"rank": {"choice": [4, 8]}, "dropout": Range(0.0, 0.2)}).searched
        {'rank': Choice(values=(4, 8)), 'dropout': Range(low=0.0, high=0.2, log=False)}

        Args:
            name: how the space is shown.
            where: its place in errors; else its name.

        Raises:
            SettingsError: with the key and what is allowed.
        """
        with _place(where or name):
            rest = dict(entries)
            about, starts = rest.pop("about", ""), take_starts(rest)
            if not isinstance(about, str):
                raise SettingsError(f"about: {about!r} is not text; say in a line when to use the space")
            parameters: dict[str, Domain | Value] = {}
            for key, written in rest.items():
                check_name(key)
                with _place(key):
                    is_domain = isinstance(written, Domain)
                    parameters[key] = written if is_domain else parse(written)
            return cls(name=name, parameters=parameters, starts=starts, about=" ".join(about.split()))

    @classmethod
    def from_yaml(cls, text: str, name: str) -> SearchSpace:
        """A space from YAML text. Raises `SettingsError` with the line, or the key and what is allowed."""
        return cls.from_dict(parse_yaml(text, name), name)


def without_use(parameters: Mapping[str, Domain | Value]) -> dict[str, str]:
    """The hyperparameters that no trial would use, each with what it goes with: `focal_gamma` with `loss: focal`."""
    found: dict[str, str] = {}
    for name in parameters:
        for other, needed in goes_with(name).items():
            domain = parameters.get(other, Hyperparameters.model_fields[other].default)
            if needed not in (domain.values if isinstance(domain, Choice) else (domain,)):
                found[name] = f"{other}: {needed}"
    return found


def _comment(text: str) -> list[str]:
    return [f"# {line}" for line in text.splitlines()]


@contextmanager
def _place(where: str) -> Iterator[None]:
    """Begin the message of a `SettingsError` from inside with where it happened."""
    try:
        yield
    except SettingsError as error:
        raise SettingsError(f"{where}: {error}") from None


Space = SearchSpace | FunctionSpace
"""What a sweep searches: domains by name, or a function."""


def as_space(value: str | Path | Mapping[str, Any] | Callable[..., Any] | Space) -> Space:
    """The search space that was passed from Python, checked. Its `name` can be written into a configuration.

    Args:
        value: a name or path as in `load_space`, a mapping as in `SearchSpace.from_dict`, a function as in
            `FunctionSpace.from_function`, or a space.

    Raises:
        SettingsError: there is no such space, it has mistakes, or a function cannot be kept.
    """
    if isinstance(value, SearchSpace):
        return value
    if isinstance(value, str | Path):
        return load_space(str(value))
    if isinstance(value, Mapping):
        return SearchSpace.from_dict(value, name="dict")
    if not isinstance(value, FunctionSpace) and not callable(value):
        raise SettingsError(
            f"space: {value!r:.80} is no search space; pass a name, a file, a dict or a function of a trial"
        )
    space = value if isinstance(value, FunctionSpace) else FunctionSpace.from_function(value)
    space.check()
    return space


def shipped_spaces() -> list[SearchSpace]:
    """The spaces that come with lorasweep, by name."""
    return [_from_file(path, path.stem) for path in sorted(SHIPPED.glob("*.yaml"))]


def space_file(spec: str) -> Path:
    """The file that `spec` names, as in `load_space`, whether or not it is there."""
    shipped = SHIPPED / f"{spec}.yaml"
    if shipped in SHIPPED.glob("*.yaml"):
        return shipped
    file, colon, _ = spec.rpartition(":")
    return Path(file if colon and file.endswith(".py") else spec)


def load_space(spec: str) -> Space:
    """The space that `spec` names: a shipped one, a YAML file, or `file.py:function`.

    A function is tried first. Raises `SettingsError` when there is no such space or it has mistakes, with the
    file, the key or line, and what is allowed.
    """
    shipped = {path.stem: path for path in SHIPPED.glob("*.yaml")}
    if spec in shipped:
        return _from_file(shipped[spec], spec)
    file, colon, function = spec.rpartition(":")
    if colon and file.endswith(".py"):
        space = FunctionSpace(Path(file).resolve(), function)
        space.check()
        return space
    path = Path(spec)
    if path.suffix == ".py":
        raise SettingsError(f"{spec}: name the function in it, as {spec}:FUNCTION")
    if path.suffix in (".yaml", ".yml") or path.is_file():
        return _from_file(path, spec)
    raise SettingsError(
        f"no search space {spec!r}{nearest(spec, shipped)}; shipped are {', '.join(sorted(shipped))}; "
        "or name a YAML file, or FILE.py:FUNCTION"
    )


def _from_file(path: Path, where: str) -> SearchSpace:
    return SearchSpace.from_dict(read_yaml(path), path.stem, where=where)
