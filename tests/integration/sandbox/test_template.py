"""The life of a template, and that of its runners with it."""

import asyncio
import os
import signal
import time

import numpy as np
import psutil

from fixtures import artifacts
from fixtures.runners import PATIENCE_S
from modelkeep.sandbox import control

ROWS = np.array([[1.0, 2.0], [3.0, 4.0]])


async def test_a_runner_is_forked_while_the_template_still_imports_frameworks(bench):
    started = time.monotonic()
    async with bench.start(bench.spec(artifacts.echo(), "echo")) as runner:
        await runner.load()
    # all imports together take seconds; a request waits for one of them at most
    assert time.monotonic() - started < 10


async def test_runners_die_with_their_template(bench):
    async with bench.start(bench.spec(artifacts.echo(), "echo")) as runner:
        await runner.load()
        process = psutil.Process(runner.pid)
        bench.process.kill()
        await asyncio.to_thread(process.wait, PATIENCE_S)
        runner.exited.set_result(control.Exited(runner.name, -9, 0))  # nobody is left to say so


async def test_a_template_ends_when_its_supervisor_is_gone(bench):
    async with bench.start(bench.spec(artifacts.echo(), "echo")) as runner:
        await runner.load()
        process = psutil.Process(runner.pid)
        bench.channel.close()
        assert await asyncio.to_thread(bench.process.wait, PATIENCE_S) == 0
        await asyncio.to_thread(process.wait, PATIENCE_S)
        runner.exited.set_result(control.Exited(runner.name, -9, 0))


async def test_a_terminals_ctrl_c_does_not_reach_runners(bench):
    async with bench.start(bench.spec(artifacts.echo(), "echo")) as runner:
        await runner.load()
        for pid in (bench.process.pid, runner.pid):
            os.kill(pid, signal.SIGINT)
            os.kill(pid, signal.SIGTERM)
        _result, outputs = await runner.run(input=ROWS)
        assert outputs["input"].tolist() == ROWS.tolist()
