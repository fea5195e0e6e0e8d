"""A sweep on your own texts: a DataFrame, with column names of your own and a test split that you choose.

python examples/own_data.py                         # made-up news
python examples/own_data.py news.csv TEXT LABEL     # your file, its text column, its label column
"""

import sys

import pandas as pd

import lorasweep

if len(sys.argv) == 4:
    path, text, label = sys.argv[1:]
    rows = pd.read_csv(path)
else:
    from lorasweep.training.sample_news.sample import sample_news

    text, label = "title", "section"
    rows = sample_news(1200).rename(columns={"headline": text, "category": label})

# The newest rows come first in the made-up news: test on these. Validation rows are split off the others.
test, train = rows[:300], rows[300:]

sweep = lorasweep.run(
    (train, test),
    text=text,
    label=label,
    base_model="minilm",  # or a model of the Hugging Face hub, such as "google-bert/bert-base-uncased"
    space="quickstart",
    trials=4,
    epochs=1,
    max_train_rows=300,  # search on a stratified sample; leave it out to use all rows
)

print(sweep.trials)
print(sweep.winner.id, sweep.winner.hyperparameters)
print("on the test split:", sweep.winner.test)
print(sweep.predict(["Markets rally as inflation cools", "Keeper saves late penalty in derby"]))
