"""What happens once the demo's server has been started: a key, both models, `demo.env`, and a screen that says how to go on."""

import argparse
import time
from collections.abc import Callable
from pathlib import Path

from access import NoWayIn, administrator_login, demo_key, read_env, write_whole
from models import DemoModel, build
from publish import WrongAnswer, curl_lines, publish

from modelkeep.client import Client, ModelkeepError, Unavailable

START_S = 60.0


class ServerEnded(RuntimeError):
    """The server has ended, by itself or because it was told to."""


class DemoFailed(RuntimeError):
    """The demo could not be set up; the message says why."""


def set_up(arguments: argparse.Namespace, host: str, has_ended: Callable[[float], bool]) -> None:
    """Set everything up, write demo.env, and print the screen. `has_ended(seconds)` waits that long for the server's end."""
    url, data = f"http://{host}:{arguments.port}", arguments.data
    try:
        models = build(arguments.cache)
        _wait_until_ready(url, has_ended)
        key = demo_key(url, data, read_env(data / "demo.env.aside").get("MODELKEEP_API_KEY", ""))
        with Client(url, key, timeout=60) as client:
            publish(client, models, lambda text: print(text, flush=True))
    except (ModelkeepError, NoWayIn, WrongAnswer) as error:
        if isinstance(error, Unavailable) and has_ended(5):
            raise ServerEnded from error
        raise DemoFailed(str(error)) from error
    values = {"MODELKEEP_URL": url, "MODELKEEP_GRPC": f"{host}:{arguments.grpc_port}", "MODELKEEP_API_KEY": key}
    values |= administrator_login(data)
    write_whole(data / "demo.env", "".join(f"{name}={value}\n" for name, value in values.items()))
    print(_screen(url, data, models), flush=True)


def _wait_until_ready(url: str, has_ended: Callable[[float], bool]) -> None:
    deadline = time.monotonic() + START_S
    with Client(url, timeout=5) as client:
        while why := _why_not_ready(client):
            if has_ended(0.03):
                raise ServerEnded
            if time.monotonic() >= deadline:
                raise DemoFailed(f"It is not ready after {START_S:.0f} s: {why}.")


def _why_not_ready(client: Client) -> str:
    try:
        readiness = client.readiness()
    except Unavailable as error:
        return error.message.rstrip(".")
    return "" if readiness.get("ready") else ", ".join(readiness.get("reasons", ["no reason given"]))


def _screen(url: str, data: Path, models: list[DemoModel]) -> str:
    lines = [f"\nModelkeep answers at {url}, its API is described at {url}/docs. Ctrl-C ends it.\n"]
    lines += [f"  {model.name:<14} {model.description}" for model in models]
    lines += ["\nAsk both, in another terminal:\n", f"set -a; . {data / 'demo.env'}; set +a\n", curl_lines(url, models)]
    lines += [f"\nThe administrator's key is in {data / 'admin-key'}.\n"]
    return "\n".join(lines)
