"""One virtual environment a peer, under `.cache/bench/environments`, from the peer's pinned requirements.

An environment is made once, and anew when its requirements change. A peer that cannot be installed here is told apart from
one that was not asked for: `NotInstalled` says why, and the report repeats it.
"""

import hashlib
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from rig.paths import CACHE, PEERS

# Triton's Python stub embeds its own build of 3.11, older than some standard libraries want; the distribution's suits it
DISTRIBUTION_PYTHON = Path("/usr/bin/python3.11")
LIKES_THE_DISTRIBUTION = frozenset({"pytriton"})
_INSTALL_S = 1800


class NotInstalled(Exception):
    """A peer's environment could not be made; the text is the installer's last word."""


def python_of(peer: str) -> Path:
    """Return the peer's interpreter, after installing the peer where that was not done yet; raises `NotInstalled`."""
    requirements = PEERS / peer / "requirements.txt"
    if not requirements.exists():
        raise NotInstalled(f"there is no {requirements.relative_to(PEERS.parent)}")
    home = CACHE / "environments" / peer
    python, stamp = home / "bin" / "python", home / "requirements.sha256"
    wanted = hashlib.sha256(requirements.read_bytes()).hexdigest()
    if stamp.exists() and stamp.read_text() == wanted:
        return python
    _needs(peer)
    print(f"installing {peer} ...", flush=True)
    shutil.rmtree(home, ignore_errors=True)
    interpreter = (
        DISTRIBUTION_PYTHON if peer in LIKES_THE_DISTRIBUTION and DISTRIBUTION_PYTHON.exists() else Path(sys.executable)
    )
    _uv("venv", "--quiet", "--python", str(interpreter), str(home))
    _uv("pip", "install", "--quiet", "--system-certs", "--python", str(python), "--requirement", str(requirements))
    stamp.write_text(wanted)
    return python


def python_of_checkout(checkout: Path) -> Path:
    """Return an interpreter that runs another checkout of Modelkeep, with the dependencies that are installed here."""
    home = CACHE / "environments" / f"checkout-{hashlib.sha256(str(checkout.resolve()).encode()).hexdigest()[:12]}"
    python = home / "bin" / "python"
    if not (home / "ready").exists():
        _uv("venv", "--quiet", "--clear", "--python", sys.executable, str(home))
        packages = next((home / "lib").glob("python3*")) / "site-packages"
        # a path file adds the folder itself and does not follow path files in it: this checkout stays out
        (packages / "zz_dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
        install = ("--quiet", "--system-certs", "--no-deps", "--editable", str(checkout.resolve()))
        _uv("pip", "install", "--python", str(python), *install)
        (home / "ready").touch()
    return python


def _needs(peer: str) -> None:
    if peer == "torchserve" and shutil.which("java") is None:
        raise NotInstalled("it needs Java 17: apt-get install -y openjdk-17-jre-headless")


def _uv(*arguments: str) -> None:
    """Run uv; raises `NotInstalled`."""
    # uv has its own name for what pip calls PIP_FIND_LINKS; a machine set up for pip should do.
    links = os.environ.get("PIP_FIND_LINKS")
    environment = {**os.environ, **({"UV_FIND_LINKS": links} if links else {})}
    try:
        subprocess.run(
            [sys.executable, "-m", "uv", *arguments],
            check=True,
            env=environment,
            timeout=_INSTALL_S,
            capture_output=True,
            text=True,
        )
    except subprocess.CalledProcessError as error:
        raise NotInstalled(str(error.stderr).strip()[-600:]) from error
    except subprocess.TimeoutExpired as error:
        raise NotInstalled(f"installing took more than {_INSTALL_S // 60} minutes") from error
