"""MLServer: writes its settings into the working folder, and becomes it. Rows by its own scikit-learn runtime."""

import json
import os
import sys
from pathlib import Path

from served import ARTIFACTS, BATCH, PORT, ROWS, WAIT_MS, WORKERS

HERE = Path.cwd()

settings = {
    "debug": False,
    "host": "127.0.0.1",
    "http_port": PORT,
    "grpc_port": int(os.environ["BENCH_PORT_2"]),
    "metrics_port": int(os.environ["BENCH_PORT_3"]),
    "metrics_dir": str(HERE),
    "parallel_workers": WORKERS if WORKERS > 1 else 0,
    "gzip_enabled": False,
}
model = {"name": "m", "max_batch_size": BATCH, "max_batch_time": WAIT_MS / 1000} if BATCH > 1 else {"name": "m"}
if ROWS:
    model |= {"implementation": "mlserver_sklearn.SKLearnModel", "parameters": {"uri": str(ARTIFACTS / "forest.joblib")}}
else:
    model |= {"implementation": "pictures.Pictures"}
(HERE / "settings.json").write_text(json.dumps(settings))
(HERE / "m").mkdir(exist_ok=True)
(HERE / "m" / "model-settings.json").write_text(json.dumps(model))
program = Path(sys.executable).parent / "mlserver"
os.execv(program, [str(program), "start", str(HERE)])
