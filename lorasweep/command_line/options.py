"""Options as typer takes them: those that many verbs share, and all of a sweep's, made from `lorasweep.options`.

Imported for `--help` too: nothing heavy.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from lorasweep.options import DEPENDENT, OPTIONS, Option, help_line
from lorasweep.tuning.record.commands import MLRUNS as MLRUNS
from lorasweep.tuning.record.commands import MLRUNS_VARIABLE

Mlruns = Annotated[
    Path,
    typer.Option("--mlruns", help="Folder of the sweeps and of MLflow's database.", envvar=MLRUNS_VARIABLE),
]
SweepName = Annotated[
    str | None, typer.Argument(help="A sweep's name; the newest if left out.", show_default=False)
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for other programs.")]
TrackingUri = Annotated[
    str | None,
    typer.Option(
        "--tracking-uri",
        help="MLflow store [MLFLOW_TRACKING_URI, or mlruns/mlflow.db].",
        rich_help_panel="Record",
        show_default=False,
    ),
]
TextColumn = Annotated[
    list[str] | None,
    typer.Option("--text", help="The file's text column; twice for a pair.", show_default=False),
]
LabelColumn = Annotated[
    list[str] | None,
    typer.Option("--label", help="Label column, or a 0/1 column for each label.", show_default=False),
]
LabelSeparator = Annotated[
    str | None,
    typer.Option(
        "--label-separator",
        help="Character between several labels in one field; by default that of the training data.",
        show_default=False,
    ),
]
Columns = Annotated[
    str | None,
    typer.Option(
        "--columns", help="Column names of a CSV or TSV file without a header line.", show_default=False
    ),
]
Delimiter = Annotated[
    str | None,
    typer.Option("--delimiter", help="What separates the columns of a CSV or TSV file.", show_default=False),
]
Encoding = Annotated[
    str | None,
    typer.Option(
        "--encoding", help="Encoding of the file's text; its bytes tell if left out.", show_default=False
    ),
]
Sheet = Annotated[
    str | None,
    typer.Option("--sheet", help="Sheet to read of an .xlsx workbook that has several.", show_default=False),
]

Verb = Callable[..., None]


def sweep_options(
    names: Iterable[str] = tuple(OPTIONS), defaults: Mapping[str, Any] | None = None
) -> Callable[[Verb], Verb]:
    """Give a verb options of a sweep, in front of its own; it gets them as `options`, a mapping by name.

    Args:
        names: of `lorasweep.options.OPTIONS`.
        defaults: what the verb takes in place of some options' own defaults, for the help.
    """

    def decorate(verb: Verb) -> Verb:
        own = inspect.signature(verb, eval_str=True).parameters
        own_defaults = defaults or {}
        chosen = (OPTIONS[name] for name in names)
        made = [
            _parameter(replace(each, default=own_defaults.get(each.name, each.default))) for each in chosen
        ]

        def command(**values: Any) -> None:
            options = {option.name: values.pop(option.name) for option in made}
            verb(options=options, **values)

        parameters = [*made, *(parameter for name, parameter in own.items() if name != "options")]
        command.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
        command.__name__, command.__doc__ = verb.__name__, verb.__doc__
        return command

    return decorate


def _parameter(option: Option) -> inspect.Parameter:
    """An option as the parameter of a function, which is how typer reads it; None if it is left out."""
    flag = option.flag
    # A switch that is off needs no second one that turns it off.
    if option.kind is bool and (option.default is True or option.name in DEPENDENT):
        flag = f"{flag}/--no-{flag.removeprefix('--')}"
    kind: Any = list[str] if option.name == "text" else option.kind
    shown = typer.Option(flag, help=help_line(option), rich_help_panel=option.panel, show_default=False)
    return inspect.Parameter(
        option.name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[kind | None, shown]
    )
