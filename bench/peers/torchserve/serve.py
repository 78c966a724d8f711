"""TorchServe: packs an archive in the working folder, and becomes the server. A JVM front door, Python processes behind it."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from served import BATCH, PORT, WAIT_MS, WORKERS

HERE = Path.cwd()
PROGRAMS = Path(sys.executable).parent

(HERE / "store").mkdir(exist_ok=True)
(HERE / "model.yaml").write_text(
    f"minWorkers: {WORKERS}\nmaxWorkers: {WORKERS}\nbatchSize: {BATCH}\nmaxBatchDelay: {WAIT_MS}\nresponseTimeout: 60\n"
)
handler = HERE / "answer.py"
shutil.copy(Path(__file__).with_name("answer.py"), handler)
subprocess.run(
    [
        *(PROGRAMS / "torch-model-archiver", "--model-name", "m", "--version", "1", "--force"),
        *("--handler", handler, "--config-file", HERE / "model.yaml", "--export-path", HERE / "store"),
    ],
    check=True,
)
properties = {
    "inference_address": f"http://127.0.0.1:{PORT}",
    "management_address": f"http://127.0.0.1:{os.environ['BENCH_PORT_2']}",
    "metrics_address": f"http://127.0.0.1:{os.environ['BENCH_PORT_3']}",
    "grpc_inference_port": os.environ["BENCH_PORT_4"],
    "grpc_management_port": os.environ["BENCH_PORT_5"],
    "model_store": HERE / "store",
    "load_models": "m.mar",
    "disable_token_authorization": "true",
    "enable_envvars_config": "true",
    "job_queue_size": 1000,
    "vmargs": "-Xmx1g",
}
(HERE / "server.properties").write_text("".join(f"{name}={value}\n" for name, value in properties.items()))
os.environ["LOG_LOCATION"] = os.environ["METRICS_LOCATION"] = str(HERE / "logs")
program = str(PROGRAMS / "torchserve")
os.execv(
    program,
    [program, "--foreground", "--start", "--ncs", "--ts-config", str(HERE / "server.properties"), "--disable-token-auth"],
)
