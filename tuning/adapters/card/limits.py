"""What a model should not be used for, as far as its own record tells."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from lorasweep.training.data.dataset import Dataset
from lorasweep.training.scores.scores import ClassScores
from lorasweep.tuning.record.folder import SweepResult, TestScores

# Below this F1 a class's mistakes, missed or wrongly given, are more than twice its hits.
LOW_F1 = 0.5
# One row more or less moves such a class's scores by five points or more.
FEW_ROWS = 20
# Names in one sentence; a table of all classes stands beside it.
MOST_NAMED = 15


def not_for(
    data: Dataset,
    classes: Sequence[ClassScores],
    result: SweepResult | None,
    test: TestScores | None,
    *,
    max_length: int,
    sample: bool,
    escape: Callable[[str], str],
) -> list[str]:
    """Sentences of Markdown, the weightiest first.

    Args:
        classes: the model's scores on the test split, class by class; empty where they are not known.
        result: the sweep's, whose baselines are compared with `test`.
        test: the model's scores on the test split, if it was scored there.
        max_length: tokens of a text that are read.
        sample: the data are the embedded sample.
        escape: makes Markdown of a name.
    """
    found = []
    if sample:
        found.append(
            "**Any real use.** It was trained on the made-up sample news that lorasweep carries, and is a "
            "demonstration of a sweep."
        )
    if test is None:
        found.append(
            "Any use before it is scored: it was not the sweep's winner, so nothing is known of it on the test "
            "split. `lorasweep evaluate` scores it on labelled texts."
        )
    columns = " and ".join(escape(name) for name in data.text_columns)
    found.append(
        f"Texts unlike the column{'s' if len(data.text_columns) > 1 else ''} {columns} of "
        f"{escape(data.source)}: other languages, subjects, times and kinds of text were not measured."
    )
    found.append(
        f"Texts that belong to none of its {len(data.label_names)} classes: it answers with one of them all the "
        "same, and its probability need not be low."
    )
    if data.left_out_classes:
        names = [f"{escape(name)} ({rows:,})" for name, rows in data.left_out_classes.items()]
        found.append(
            f"Finding classes that had too few rows and were left out: {_listed(names)}. Their texts get "
            "another class's label."
        )
    found += _weak_classes(classes, escape)
    found += _no_better(result, test, escape)
    found.append(f"What stands beyond a text's first {max_length} tokens, which is not read.")
    found.append(
        "Decisions about people without a person who checks them: it repeats the mistakes and leanings of its "
        "labels and of its base model."
    )
    return found


def _weak_classes(classes: Sequence[ClassScores], escape: Callable[[str], str]) -> list[str]:
    found = []
    weak = sorted(
        (entry for entry in classes if entry.rows and entry.f1 < LOW_F1), key=lambda entry: entry.f1
    )
    if weak:
        names = [f"{escape(entry.label)} ({entry.f1:.2f})" for entry in weak]
        found.append(
            f"Whatever hangs on a class that it seldom gets right. On the test split F1 is below {LOW_F1} for "
            f"{len(weak)} of {len(classes)} classes: {_listed(names)}."
        )
    few = sorted((entry for entry in classes if entry.rows < FEW_ROWS), key=lambda entry: entry.rows)
    if few:
        names = [f"{escape(entry.label)} ({entry.rows})" for entry in few]
        found.append(
            f"Whatever hangs on the scores of a class with fewer than {FEW_ROWS} test rows, which may be luck: "
            f"{_listed(names)}."
        )
    return found


def _no_better(
    result: SweepResult | None, test: TestScores | None, escape: Callable[[str], str]
) -> list[str]:
    """Where something simpler did as well on the same rows."""
    if result is None or test is None:
        return []
    found = []
    for name, other in result.baselines.items():
        pairs = (("accuracy", other.accuracy, test.accuracy), ("macro-F1", other.macro_f1, test.macro_f1))
        better = [f"{score} {there:.4f} against {here:.4f}" for score, there, here in pairs if there >= here]
        if better:
            found.append(
                f"Where something simpler will do: on the same test rows {escape(name)} reached "
                f"{' and '.join(better)}."
            )
    return found


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return ", ".join(names[:MOST_NAMED]) + more
