"""Wrong labels are found, in the order of the reference implementation, and their share is estimated."""

from __future__ import annotations

import numpy as np

from lorasweep.training.scores.label_errors import find_label_errors


def noisy(
    seed: int, sure: float = 3.5, rows: int = 400, classes: int = 4
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Probabilities of a classifier, the true labels, and labels of which about a tenth are wrong.

    Args:
        sure: what the true class's logit has over the others, in standard deviations.
    """
    random = np.random.default_rng(seed)
    true = random.choice(classes, size=rows, p=[0.5, 0.3, 0.15, 0.05])
    true[:classes] = range(classes)
    labels = true.copy()
    wrong = random.random(rows) < 0.12
    labels[wrong] = random.integers(0, classes, wrong.sum())
    labels[:classes] = range(classes)
    logits = random.normal(size=(rows, classes))
    logits[np.arange(rows), true] += sure
    probabilities = np.exp(logits)
    return probabilities / probabilities.sum(axis=1, keepdims=True), true, labels


def by_hand(probabilities: np.ndarray, labels: np.ndarray) -> tuple[list[int], list[list[int]]]:
    """The paper's definition, row by row: suspects by normalised margin, and the confident joint as counts."""
    classes = range(probabilities.shape[1])
    thresholds = [float(probabilities[labels == label, label].mean()) for label in classes]
    joint = [[0 for _ in classes] for _ in classes]
    suspects = []
    for row, label in enumerate(labels.tolist()):
        above = [other for other in classes if probabilities[row, other] >= thresholds[other]]
        if not above:
            continue
        true = max(above, key=lambda other: probabilities[row, other])
        joint[label][true] += 1
        best = max(classes, key=lambda other: probabilities[row, other])
        if true != label and best != label:
            suspects.append((probabilities[row, label] - probabilities[row, best], row))
    return [row for _, row in sorted(suspects)], joint


def test_suspects_and_joint_are_the_papers() -> None:
    for seed in range(5):
        probabilities, _, labels = noisy(seed)
        found = find_label_errors(probabilities, labels)
        suspects, joint = by_hand(probabilities, labels)
        assert found.suspect.tolist() == suspects
        shares = np.array(joint) / np.sum(joint, axis=1, keepdims=True)
        assert np.allclose(found.joint, shares * np.bincount(labels)[:, None] / len(labels))
        assert np.isclose(found.joint.sum(), 1)


def test_most_wrong_labels_are_found_and_few_others() -> None:
    probabilities, true, labels = noisy(0, sure=6)
    found = find_label_errors(probabilities, labels)
    wrong = set(np.flatnonzero(true != labels).tolist())
    suspects = set(found.suspect.tolist())
    assert len(wrong & suspects) >= 0.85 * len(wrong)
    assert len(suspects - wrong) <= 0.02 * len(labels)
    assert (found.suggested[found.suspect] == true[found.suspect]).mean() >= 0.8
    assert abs(found.share - len(wrong) / len(labels)) < 0.03
    assert (np.diff(found.margin[found.suspect]) >= 0).all()


def test_right_labels_are_left_alone() -> None:
    labels = np.array([0, 1, 2] * 10)
    found = find_label_errors(np.eye(3)[labels] * 0.7 + 0.1, labels)
    assert len(found.suspect) == 0
    assert found.share == 0


def test_a_class_that_is_hard_is_not_blamed_on_its_labels() -> None:
    """Its rows are mostly taken for another class, but with less confidence than that class's own rows."""
    labels = np.array([0] * 20 + [1] * 20)
    probabilities = np.array([[0.95, 0.05]] * 20 + [[0.6, 0.4]] * 20)
    assert len(find_label_errors(probabilities, labels).suspect) == 0


def test_a_row_whose_label_is_the_most_probable_is_not_suspect() -> None:
    """Below its own class's threshold and above that of a hard class, it is off the joint's diagonal."""
    labels = np.array([0] * 10 + [1] * 10)
    probabilities = np.array([[0.65, 0.35]] + [[0.95, 0.05]] * 9 + [[0.7, 0.3]] * 10)
    found = find_label_errors(probabilities, labels)
    assert np.isclose(found.joint[0, 1], 1 / 20)
    assert found.suspect.tolist() == []


def test_classes_without_rows_and_without_a_confident_row() -> None:
    labels = np.array([0, 0, 0, 2])
    probabilities = np.array([[0.8, 0.1, 0.1], [0.2, 0.7, 0.1], [0.8, 0.1, 0.1], [0.5, 0.2, 0.3]])
    found = find_label_errors(probabilities, labels)
    # No row is labelled 1, so none can be told to be 1.
    assert found.suspect.tolist() == []
    assert np.isclose(found.joint.sum(), 1)
    assert np.isclose(found.joint[2, 2], 0.25)
