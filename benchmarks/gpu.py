"""What lorasweep does on a GPU: whether it is right, and how fast it is against plain PEFT.

    python benchmarks/gpu.py [--minutes 8] [--out FOLDER] [--only WORD] [--small] [--write]

For a machine with a GPU; lorasweep need not be installed there, and neither need Ray or MLflow: torch, transformers,
peft, safetensors, numpy and pydantic are enough. Base models have their real size and random weights, texts are random
token ids, so nothing is downloaded. The most valuable checks come first, each in its own process with its own time
limit. Findings are shown, and added to FOLDER/gpu.jsonl, as they come; at the end there are one table and
FOLDER/gpu.json. `--write` makes `results/gpu.md` too. Without a GPU, or with `--small`, all of it runs with tiny
models, in about a minute: that shows that it works, and says nothing of speed. Exits with 1 if a check fails.
"""

from __future__ import annotations

import argparse
import gc
import platform
import sys
import tempfile
import time
import warnings
from importlib.metadata import version
from pathlib import Path

from gpu_checkout import NEEDED, missing_packages

if missing := missing_packages():
    sys.exit(f"benchmarks/gpu.py needs {', '.join(missing)}; run: pip install {' '.join(missing)}")

import gpu_equal
import gpu_limits
import gpu_speed
import torch
from common import RESULTS, processor
from gpu_bases import BERT_BASE, MODERNBERT, ROBERTA_LARGE
from gpu_check import Bench, Check, run_check, start_method
from gpu_report import Finding, append, markdown_table, read, summary, terminal_table, write_json
from transformers.utils import logging

# In the order of their value. The seconds are limits for a run of `MINUTES`; together they are more than it has,
# because few checks need all of theirs.
MINUTES = 8.0
# Seconds that a check is started with at least.
LEAST = 5.0
CHECKS = (
    Check("the machine", gpu_speed.machine, 20),
    Check("speed of BERT-base, bf16", gpu_speed.speed(BERT_BASE, "bf16"), 60),
    Check("captured and eager steps", gpu_equal.captured, 40),
    Check("waits for the device", gpu_limits.waits_in_a_step, 30),
    Check("faster layers", gpu_equal.faster_layers, 45),
    Check("fp16 from a large scale", gpu_limits.large_scale, 30),
    Check("out of memory", gpu_limits.out_of_memory, 45),
    Check("speed of RoBERTa-large, bf16", gpu_speed.speed(ROBERTA_LARGE, "bf16"), 60),
    Check("speed of ModernBERT, bf16", gpu_speed.speed(MODERNBERT, "bf16"), 60),
    Check("logits against the CPU", gpu_equal.logits, 45),
    Check("exports", gpu_equal.exports, 45),
    Check("first steps of new lengths", gpu_speed.first_steps, 45),
    Check("processes side by side", gpu_speed.beside, 60),
    Check("a whole trial", gpu_speed.trial, 45),
    Check("speed of BERT-base, fp16", gpu_speed.speed(BERT_BASE, "fp16"), 40),
    Check("speed of BERT-base, fp32", gpu_speed.speed(BERT_BASE, "fp32"), 40),
    Check("speed of RoBERTa-large, fp16", gpu_speed.speed(ROBERTA_LARGE, "fp16"), 45),
    Check("speed of ModernBERT, fp16", gpu_speed.speed(MODERNBERT, "fp16"), 45),
    Check("speed of RoBERTa-large, fp32", gpu_speed.speed(ROBERTA_LARGE, "fp32"), 45),
    Check("speed of ModernBERT, fp32", gpu_speed.speed(MODERNBERT, "fp32"), 45),
)


def run(checks: tuple[Check, ...], minutes: float, bench: Bench, lines: Path) -> None:
    """Run the checks in their order until the time is up; what is left over is written down, too."""
    begun = time.monotonic()
    for check in checks:
        left = 60 * minutes - (time.monotonic() - begun)
        limit = min(check.seconds * minutes / MINUTES, left)
        if left < LEAST:
            append(lines, Finding(check.name, "", "not run: no time is left", None, {}, check.name))
            continue
        print(f"{check.name} (at most {limit:.0f} s)", flush=True)
        run_check(check, limit, bench, lines, show)


def show(finding: Finding) -> None:
    """Print a finding as it comes."""
    print(f"  {finding.mark:4}  {finding.what}: {finding.seen}", flush=True)


def main() -> int:
    """Run, print the table, write the files; returns the exit status."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=MINUTES, help="for all checks together")
    parser.add_argument("--out", type=Path, default=Path(), help="folder of gpu.jsonl and gpu.json")
    parser.add_argument("--only", metavar="WORD", help="only checks whose name has this word in it")
    parser.add_argument("--small", action="store_true", help="tiny models, to see that everything runs")
    parser.add_argument("--write", action="store_true", help="write results/gpu.md")
    options = parser.parse_args()
    warnings.filterwarnings("ignore", category=FutureWarning, module="transformers")
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    gc.freeze()  # what has been imported: later collections need not look at it
    method = start_method()
    small = options.small or not method
    checks = tuple(check for check in CHECKS if (options.only or "") in check.name)
    if not checks:
        parser.error(f"--only {options.only}: no check has this in its name")
    if not options.minutes > 0:
        parser.error(f"--minutes {options.minutes:g}: give a time above 0")
    options.out.mkdir(parents=True, exist_ok=True)
    lines = options.out / "gpu.jsonl"
    lines.unlink(missing_ok=True)
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        device = torch.device("cuda", 0) if method else torch.device("cpu")
        bench = Bench(device, small, Path(folder), start_method=method or "fork")
        run(checks, options.minutes, bench, lines)
    findings = read(lines)
    facts = {
        "command": " ".join(["python", "benchmarks/gpu.py", *sys.argv[1:]]),
        "small": small,
        "seconds": round(time.monotonic() - started),
        "python": platform.python_version(),
        "processor": processor(),
        "versions": {name: version(name) for name in NEEDED},
    }
    write_json(options.out / "gpu.json", findings, facts)
    print(f"\n{terminal_table(findings)}\n\n{summary(findings)}; all figures: {options.out / 'gpu.json'}")
    if small:
        print("In small: what passes shows that the checks run, and says nothing of a GPU at work.")
    if options.write and not small:
        (RESULTS / "gpu.md").write_text(result(findings, facts), encoding="utf-8")
    return 1 if any(finding.passed is False for finding in findings) else 0


def result(findings: list[Finding], facts: dict[str, object]) -> str:
    """The findings as a page for `results/`."""
    versions = facts["versions"]
    assert isinstance(versions, dict)
    made = ", ".join(f"{name} {number}" for name, number in versions.items())
    return (
        f"# On a GPU\n\n{markdown_table(findings)}\n\n{summary(findings)}, in {facts['seconds']} s.\n\n"
        f"## How this was made\n\n    {facts['command']}\n\n"
        f"Python {facts['python']}, {made}; {facts['processor']}; the GPU is in the first line of the table.\n"
    )


if __name__ == "__main__":
    sys.exit(main())
