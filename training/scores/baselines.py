"""Baselines that a fine-tuned model has to beat: the most frequent class, and a linear model of words."""

from __future__ import annotations

import numpy as np
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression

from lorasweep.training.data.dataset import Dataset, Texts
from lorasweep.training.scores.outcomes import set_losses
from lorasweep.training.scores.scores import score

# Inverse strengths of the ridge penalty; the better one on the validation split is used.
STRENGTHS = (1.0, 10.0)
# Words and word pairs, the most frequent; on short texts more take minutes and add no accuracy.
MOST_FEATURES = 50_000


def majority_class(dataset: Dataset) -> np.ndarray:
    """The classes' shares in the training rows, whatever the text.

    Returns:
        Log probabilities of the test rows, float64, shape (rows, classes).
    """
    counts = np.bincount(dataset.train.labels, minlength=len(dataset.label_names))
    # Keeps the loss of a class without training rows finite.
    shares = (counts + 1e-3) / (counts + 1e-3).sum()
    return np.tile(np.log(shares), (len(dataset.test), 1))


def linear_model(dataset: Dataset) -> np.ndarray:
    """Logistic regression on TF-IDF of words and word pairs, trained on the same rows as the trials.

    Returns:
        Log probabilities of the test rows, float64, shape (rows, classes).
    """
    vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, max_features=MOST_FEATURES)
    train = vectorizer.fit_transform(_joined(dataset.train))
    validation = vectorizer.transform(_joined(dataset.validation))
    models = [
        LogisticRegression(C=strength, max_iter=300).fit(train, dataset.train.labels)
        for strength in STRENGTHS
    ]
    best = max(
        models,
        key=lambda model: (
            score(_log_probabilities(model, validation, dataset), dataset.validation.labels).accuracy
        ),
    )
    return _log_probabilities(best, vectorizer.transform(_joined(dataset.test)), dataset)


def label_rates(dataset: Dataset) -> np.ndarray:
    """The labels' rates in the training rows, whatever the text, where a text may have several.

    Returns:
        Logits of the validation rows and then the test rows, float64, shape (rows, labels).
    """
    labels = dataset.train.labels
    having = labels.sum(axis=0, dtype=np.int64) + 0.5
    odds = np.log(having) - np.log(len(labels) + 1 - having)
    return np.tile(odds, (len(dataset.validation) + len(dataset.test), 1))


def linear_models(dataset: Dataset) -> np.ndarray:
    """Logistic regression on TF-IDF of words and word pairs for each label of several a text.

    Of both strengths that with the lower loss on the validation split.

    Returns:
        As `label_rates`.
    """
    vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True, max_features=MOST_FEATURES)
    train = vectorizer.fit_transform(_joined(dataset.train))
    others = vectorizer.transform([*_joined(dataset.validation), *_joined(dataset.test)])
    seen, labels = slice(len(dataset.validation)), dataset.train.labels
    found = []
    for strength in STRENGTHS:
        logits = label_rates(dataset)
        for number in np.flatnonzero(labels.any(axis=0) & ~labels.all(axis=0)):
            model = LogisticRegression(C=strength, max_iter=300).fit(train, labels[:, number])
            logits[:, number] = model.decision_function(others)
        found.append(logits)
    return min(found, key=lambda logits: set_losses(logits[seen], dataset.validation.labels).mean())


def _joined(texts: Texts) -> list[str]:
    if texts.pair is None:
        return texts.text
    return [f"{text} {pair}" for text, pair in zip(texts.text, texts.pair, strict=True)]


def _log_probabilities(model: LogisticRegression, features: object, dataset: Dataset) -> np.ndarray:
    # The model has only the classes of the training rows, in order.
    result = np.full((features.shape[0], len(dataset.label_names)), -np.inf)  # type: ignore[attr-defined]
    result[:, model.classes_] = model.predict_log_proba(features)
    return np.asarray(np.maximum(result, np.log(1e-12)))
