"""Two sweeps on real HuffPost news, and their results as a table.

    python benchmarks/real_news.py FOLDER [--mlruns DIR]

FOLDER holds two parts of R. Misra's News Category Dataset:
- `huffpost_headlines_41x1000.jsonl.gz`: 1,000 headlines for each of 41 classes, with a column `split`
- `News_Category_Dataset_13k.json.gz`: 13,456 original records

A sweep that has finished in DIR is not run again. About half an hour on two CPU cores.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

SWEEPS = {
    "headlines": [
        "--data", "huffpost_headlines_41x1000.jsonl.gz", "--text", "headline", "--label", "category",
        "--split-column", "split", "--base-model", "minilm",
        "--max-train-rows", "4000", "--trials", "8", "--epochs", "2",
    ],
    "records": [
        "--data", "News_Category_Dataset_13k.json.gz", "--base-model", "minilm",
        "--max-train-rows", "4000", "--trials", "8", "--epochs", "2",
    ],
}  # fmt: skip


def lorasweep(*arguments: str) -> str:
    """Run the command and return what it printed."""
    command = [sys.executable, "-m", "lorasweep", *arguments]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def main() -> None:
    """Run what has not run, then print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path)
    parser.add_argument("--mlruns", type=Path, default=Path("mlruns"))
    options = parser.parse_args()
    mlruns = ["--mlruns", str(options.mlruns)]
    states = {sweep["name"]: sweep["state"] for sweep in json.loads(lorasweep("status", "--json", *mlruns))}
    print(
        "| data | trials | winner's settings | parameters | validation | test accuracy | macro-F1 | minutes |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for name, arguments in SWEEPS.items():
        if states.get(name) != "finished":
            data = str(options.folder / arguments[1])
            lorasweep("run", "--name", name, *arguments[:1], data, *arguments[2:], *mlruns)
        status = json.loads(lorasweep("status", name, "--json", *mlruns))
        result = json.loads((options.mlruns / "sweeps" / name / "result.json").read_text())
        winner, trials = status["winner"], status["trials"]
        best = next(trial for trial in trials if trial["id"] == winner["id"])
        stopped = sum(trial["state"] == "stopped" for trial in trials)
        settings = winner["settings"]
        chosen = (
            f"r {settings['rank']}, alpha {settings['alpha']:g}, {settings['target_modules']}, "
            f"rate {settings['learning_rate']:.2g}, batch {settings['batch_size']}"
        )
        print(
            f"| `{arguments[1]}` | {len(trials)}, {stopped} stopped | {chosen} "
            f"| {best['trainable_parameters'] / 1e3:.0f} K | {winner['score']:.1%} "
            f"| {winner['test']['accuracy']:.1%} | {winner['test']['macro_f1']:.1%} "
            f"| {result['seconds'] / 60:.1f} |"
        )


if __name__ == "__main__":
    main()
