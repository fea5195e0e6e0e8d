"""Serve a sweep's winner over HTTP with MLflow, and ask it.

python examples/serving.py
"""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import lorasweep

PORT = 5071
ADDRESS = f"http://127.0.0.1:{PORT}"

# The winner becomes a version of the registered model "news": the champion if it beats the present one.
lorasweep.run(trials=3, epochs=1, max_train_rows=300, register="news")

environment = os.environ | {
    "MLFLOW_TRACKING_URI": f"sqlite:///{Path('mlruns/mlflow.db').resolve()}",
    # MLflow looks for uvicorn on the PATH.
    "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
}
command = f"models serve -m models:/news@champion --env-manager local --port {PORT}"
server = subprocess.Popen(
    [sys.executable, "-m", "mlflow", *command.split()], env=environment, start_new_session=True
)
try:
    for _ in range(120):
        try:
            urllib.request.urlopen(f"{ADDRESS}/ping")
            break
        except urllib.error.URLError:
            time.sleep(1)
    body = {"inputs": ["Markets rally as inflation cools"], "params": {"probabilities": True}}
    request = urllib.request.Request(
        f"{ADDRESS}/invocations", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    print(json.dumps(json.load(urllib.request.urlopen(request)), indent=2))
finally:
    os.killpg(server.pid, signal.SIGTERM)  # MLflow's server has workers of its own
    server.wait()
