"""The life of a template, and that of its runners with it."""

import asyncio
import os
import resource
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import msgspec
import numpy as np
import psutil
import pytest

from fixtures import artifacts, python_models
from fixtures.runners import PATIENCE_S
from modelkeep.contracts.snapshot import Limits, RunnerSpec
from modelkeep.sandbox import control
from modelkeep.sandbox.lockdown import ENVIRONMENT

ROWS = np.array([[1.0, 2.0], [3.0, 4.0]])


async def test_a_runner_is_forked_while_the_template_still_imports_frameworks(bench):
    started = time.monotonic()
    async with bench.start(bench.spec(artifacts.echo(), "echo")) as runner:
        await runner.load()
    # all imports together take seconds; a request waits for one of them at most
    assert time.monotonic() - started < 10


async def test_a_runner_is_forked_ahead_and_is_the_next_that_is_asked_for(bench):
    spec = bench.spec(artifacts.echo(), "echo")
    async with bench.start(spec) as first:
        await first.load()
    for _turn in range(3):
        waiting = await bench.waiting()
        async with bench.start(spec) as runner:
            await runner.load()
            assert runner.pid == waiting.pid
            _result, outputs = await runner.run(input=ROWS)
            assert outputs["input"].tolist() == ROWS.tolist()


async def test_what_is_forked_ahead_is_locked_in_before_it_is_asked(bench):
    waiting = await bench.waiting()
    status, of_template = (Path(f"/proc/{pid}/status").read_text() for pid in (waiting.pid, bench.process.pid))
    assert "\nNoNewPrivs:\t1\n" in status
    assert "\nNoNewPrivs:\t0\n" in of_template
    assert "\nSeccomp:\t0\n" in of_template
    if os.geteuid() == 0:
        assert waiting.uids().real not in {0, psutil.Process(bench.process.pid).uids().real}
        assert "\nCapEff:\t0000000000000000\n" in status


async def test_one_that_waits_and_is_killed_costs_nobody_a_runner(bench):
    spec = bench.spec(artifacts.echo(), "echo")
    async with bench.start(spec) as first:
        await first.load()
    for _turn in range(3):
        waiting = await bench.waiting()
        bench.process.send_signal(signal.SIGSTOP)
        waiting.kill()
        while waiting.status() != psutil.STATUS_ZOMBIE:
            await asyncio.sleep(0.01)
        asyncio.get_running_loop().call_later(0.1, bench.process.send_signal, signal.SIGCONT)
        async with bench.start(spec) as runner:  # asked for while the template has not yet seen that it ended
            await runner.load()
            assert runner.pid != waiting.pid


async def test_one_that_is_killed_over_its_order_costs_nobody_a_runner(bench):
    spec = bench.spec(artifacts.echo(), "echo")
    async with bench.start(spec) as first:
        await first.load()
    for _turn in range(3):
        waiting = await bench.waiting()
        waiting.suspend()
        asyncio.get_running_loop().call_later(0.1, waiting.kill)  # the order has arrived by then, and was not read
        async with bench.start(spec) as runner:
            await runner.load()
            assert runner.pid != waiting.pid


async def test_a_limit_that_the_service_was_given_is_kept_and_stands_in_nobodys_way(bench):
    most = 64 << 30
    resource.prlimit(bench.process.pid, resource.RLIMIT_AS, (most, most))
    source = (
        "import resource\nanswer = float(resource.getrlimit(resource.RLIMIT_AS)[1])\n"
        "class Model:\n"
        "    n_features_in_ = 1\n"
        "    def predict(self, rows):\n"
        "        return [answer] * len(rows)\n"
        "model = Model()\n"
    )
    for memory_mb in (1500, 1 << 20):
        spec = bench.spec(artifacts.pickle_running(source), "pickle", limits=Limits(memory_mb=memory_mb))
        async with bench.start(spec) as first:  # the first imports what it needs, and is forked when it is asked for
            await first.load()
        for waiting in (await bench.waiting(), None):
            if waiting is None:
                (await bench.waiting()).kill()
            async with bench.start(spec) as runner:
                await runner.load()
                assert waiting is None or runner.pid == waiting.pid
                _result, outputs = await runner.run(input=np.ones((1, 1)))
                limit = float(next(iter(outputs.values()))[0])
                assert limit == most if memory_mb == 1 << 20 else limit < most


async def test_what_is_imported_for_a_model_is_there_in_the_runner_that_loads_it(bench):
    async with bench.start(bench.spec(artifacts.echo(), "echo")) as first:
        await first.load()
    old = await bench.waiting()
    async with bench.start(bench.spec(artifacts.as_joblib(artifacts.classifier()), "joblib")) as runner:
        await runner.load()
        assert runner.pid != old.pid  # it was forked before what this one needs was sure to be there
    await asyncio.to_thread(old.wait, PATIENCE_S)


async def test_what_runs_on_spare_capacity_stands_back_though_another_waits(bench):
    spec = bench.spec(artifacts.echo(), "echo")
    async with bench.start(spec) as first:
        await first.load()
    waiting = await bench.waiting()
    async with bench.start(msgspec.structs.replace(spec, spare=True)) as spare, bench.start(spec) as usual:
        await spare.load()
        await usual.load()
        assert os.sched_getscheduler(spare.pid) == os.SCHED_IDLE
        assert (usual.pid, os.sched_getscheduler(usual.pid)) == (waiting.pid, os.SCHED_OTHER)


@pytest.mark.parametrize("spare", [True, False])
async def test_what_starts_as_a_new_python_on_spare_capacity_stands_back_as_it_starts(bench, spare: bool):
    async with bench.start(bench.spec(python_models.doubles(), "python", spare=spare)) as runner:
        async with asyncio.timeout(PATIENCE_S):
            while "cold.main" not in " ".join(psutil.Process(runner.pid).cmdline()):
                await asyncio.sleep(0.001)
        policy, status = os.sched_getscheduler(runner.pid), Path(f"/proc/{runner.pid}/status").read_text()
        await runner.load()
        assert "\nSeccomp:\t0\n" in status, "asked before it was locked in"
        assert policy == (os.SCHED_IDLE if spare else os.SCHED_OTHER)


async def test_one_that_waits_ends_with_its_template(bench):
    waiting = await bench.waiting()
    bench.process.kill()
    await asyncio.to_thread(waiting.wait, PATIENCE_S)


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


async def test_a_template_ends_with_the_process_that_started_it_though_its_channel_stays_open():
    ours, theirs = socket.socketpair()
    start = (
        "import subprocess, sys, time\n"
        f"template = [sys.executable, '-I', '-m', 'modelkeep.sandbox.template', '{theirs.fileno()}']\n"
        f"process = subprocess.Popen(template, pass_fds=[{theirs.fileno()}])\n"
        "print(process.pid, flush=True)\n"
        "time.sleep(3600)\n"
    )
    with ours, theirs:
        parent = await asyncio.create_subprocess_exec(
            sys.executable, "-c", start, stdout=asyncio.subprocess.PIPE, pass_fds=[theirs.fileno()], env=ENVIRONMENT
        )
        template = psutil.Process(int(await parent.stdout.readline()))
        spec = RunnerSpec("ver_1", "0" * 64, 1, "echo", "echo")
        with tempfile.TemporaryFile() as nothing:  # a first answer shows that it is up
            fds = [nothing.fileno(), nothing.fileno(), nothing.fileno()]
            socket.send_fds(ours, [control.pack(control.Fork("runner-1", spec), fds)], fds)
            ours.setblocking(False)
            await asyncio.wait_for(asyncio.get_running_loop().sock_recv(ours, 1), PATIENCE_S)
        parent.kill()
        await parent.wait()
        await asyncio.to_thread(template.wait, PATIENCE_S)


def test_what_starts_threads_as_it_is_imported_is_left_to_runners():
    script = """
import os, sys
from modelkeep.sandbox import template
for name in ("polars", "catboost", "modelkeep.no_such_module"):
    list(template._imported([name]))
assert "catboost" in sys.modules and "polars" not in sys.modules
threads = len(os.listdir("/proc/self/task"))
import polars
assert len(os.listdir("/proc/self/task")) > threads
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "not preloaded: polars" in done.stderr
