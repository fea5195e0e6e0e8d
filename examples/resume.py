"""Interrupt a sweep, resume it, and add trials to it.

python examples/resume.py
"""

import signal
import subprocess
import sys
import tempfile
import time

import lorasweep

NAME = "interrupted"
mlruns = tempfile.mkdtemp()

# A sweep in a process of its own, as a terminal or a job would run it.
command = f"run --name {NAME} --mlruns {mlruns} --trials 4 --epochs 1 --max-train-rows 200"
process = subprocess.Popen([sys.executable, "-m", "lorasweep", *command.split()])

# Stop it with Ctrl-C's signal after its first trial. A sweep that was killed resumes as well.
while process.poll() is None:
    time.sleep(1)
    try:
        states = list(lorasweep.open(NAME, mlruns=mlruns).trials["state"])
    except lorasweep.LorasweepError:
        continue  # the sweep has no folder yet
    if "completed" in states:
        process.send_signal(signal.SIGINT)
        break
process.wait()

print("after the interruption:", lorasweep.open(NAME, mlruns=mlruns).state)
print(lorasweep.open(NAME, mlruns=mlruns).trials)

# Finished trials stay finished; the others go on from their last checkpoint.
sweep = lorasweep.resume(NAME, mlruns=mlruns, verbose=False)
print("after the resume:", sweep.state, len(sweep.trials), "trials")

# One more trial for the same search.
sweep = lorasweep.run(name=NAME, mlruns=mlruns, trials=5, extend=True, verbose=False)
print("after the extension:", sweep.state, len(sweep.trials), "trials")
print(sweep.trials)
