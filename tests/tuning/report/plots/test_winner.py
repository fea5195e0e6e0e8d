"""The picture of what a winner confuses."""

from __future__ import annotations

import numpy as np
from drawn_trials import only

from lorasweep.tuning.report.plots import winner as plot_winner


def test_confusion_is_counted_by_true_class() -> None:
    """Each row in per cent; a class without rows is left grey, not 0; few classes have their figures written."""
    axes = only(plot_winner.confusion(np.array([[3, 1, 0], [0, 0, 0], [2, 0, 998]]), ["a", "b", "c"]))
    shown = np.ma.filled(axes.images[0].get_array(), np.nan)
    np.testing.assert_allclose(shown, [[0.75, 0.25, 0], [np.nan] * 3, [0.002, 0, 0.998]])
    cells = {text.get_position(): text.get_text() for text in axes.texts}
    assert cells == {(0, 0): "75", (1, 0): "25", (2, 2): "100"}
    assert axes.get_xlabel() == "predicted"


def test_many_classes_with_long_names_keep_them() -> None:
    """41 names, cut in the middle so that they still differ; no figures in the cells; 200 are only counted."""
    names = [f"a category of news with a name as long as this, number {n}\nof 41" for n in range(41)]
    figure = plot_winner.confusion(np.eye(41, dtype=int), names)
    axes = only(figure)
    labels = [text.get_text() for text in axes.get_yticklabels()]
    assert len(set(labels)) == 41
    assert max(map(len, labels)) == 24
    assert not axes.texts
    assert figure is not None
    assert max(figure.get_size_inches()) < 14
    crowd = only(plot_winner.confusion(np.eye(200, dtype=int), [str(n) for n in range(200)]))
    assert len(crowd.get_yticklabels()) < 20
    assert plot_winner.confusion(np.zeros((2, 2), dtype=int), ["a", "b"]) is None
