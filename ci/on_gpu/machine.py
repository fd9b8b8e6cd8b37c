"""What the machine has: the program, Python with PyTorch, CUDA's libraries in its packages, compute-sanitizer, a network interface."""

import lzma
import os
import re
import shutil
import socket
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

# Folders of shared libraries in Python's `nvidia` packages, where PyTorch brings CUDA; printed by the interpreter that has them.
FOLDERS = (
    "import glob, importlib.util as u; s = u.find_spec('nvidia'); "
    "print(':'.join(sorted(d for p in (s.submodule_search_locations if s else []) for d in glob.glob(p + '/*/lib'))))"
)


class Lacking(Exception):
    """Without this nothing can be run."""


@dataclass(frozen=True)
class Machine:
    centime: str
    python: str
    sanitizer: str | None
    # With CUDA's libraries, and without a word of where they are.
    environment: dict
    bare: dict

    @staticmethod
    def found(root, work, dry):
        python = os.environ.get("PYTHON") or "python3"
        bare = {**os.environ, **own_folders()}
        environment = {**bare, **libraries(python), **interface()}
        return Machine(program(root, work, dry), python, sanitizer(), environment, bare)


def device():
    """The GPU's name as part of a folder's."""
    try:
        command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
        said = subprocess.run(command, capture_output=True, text=True, timeout=20)
        name = said.stdout.splitlines()[0] if said.returncode == 0 else ""
    except (OSError, subprocess.TimeoutExpired, IndexError):
        name = ""
    return slug(name) or "none"


def slug(name):
    return re.sub(r"[^a-z0-9]+", "-", name.lower().replace("nvidia", "")).strip("-")


def program(root, work, dry):
    named = os.environ.get("CENTIME")
    places = [Path(named)] if named else [root / "centime", root / "target/release/centime"]
    packed = root / "centime.xz"
    if not named and not places[0].exists() and packed.exists():
        return str(unpacked(packed, work / "bin" / "centime"))
    there = next((p for p in places if os.access(p, os.X_OK) and p.is_file()), None)
    if there is None and not dry:
        where = " or ".join(str(p) for p in places)
        raise Lacking(f"no program: expected {where}; build it elsewhere and bring it (ci/gpu-pack), or set CENTIME")
    return str(there or places[-1])


def unpacked(packed, to):
    to.parent.mkdir(parents=True, exist_ok=True)
    with lzma.open(packed) as file, open(to, "wb") as out:
        shutil.copyfileobj(file, out, 1 << 20)
    to.chmod(0o755)
    return to


def own_folders():
    """Caches stay for the next call on this machine, in a folder of the user's own."""
    cache = Path(tempfile.gettempdir()) / f"centime-gpu-cache-{os.getuid()}"
    for folder in (cache, cache / "run"):
        folder.mkdir(mode=0o700, exist_ok=True)
    return {
        "XDG_CACHE_HOME": str(cache),
        "XDG_RUNTIME_DIR": str(cache / "run"),
        "TORCHINDUCTOR_CACHE_DIR": str(cache / "inductor"),
        "TRITON_CACHE_DIR": str(cache / "triton"),
        # Workers that compile; a PyTorch that finds everything in its cache would start one a core all the same.
        "TORCHINDUCTOR_COMPILE_THREADS": "4",
        "NO_COLOR": "1",
        "PYTHONUNBUFFERED": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
    }


def libraries(python):
    """For the program, and for what its libraries look for by name."""
    try:
        said = subprocess.run([python, "-c", FOLDERS], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return {}
    folders = said.stdout.strip().splitlines()[-1:] if said.returncode == 0 else []
    folders = [f for f in (folders[0].split(":") if folders else []) if f]
    if not folders:
        return {}
    # After what the user has named.
    with_them = lambda name: ":".join([f for f in [os.environ.get(name)] if f] + folders)
    return {name: with_them(name) for name in ("CENTIME_CUDA_LIBRARIES", "LD_LIBRARY_PATH")}


def interface():
    """NCCL wants a network interface that is up; where there is none, the machine's own must do."""
    if "NCCL_SOCKET_IFNAME" in os.environ:
        return {}
    try:
        others = [name for _, name in socket.if_nameindex() if name != "lo" and is_up(name)]
    except OSError:
        others = []
    return {} if others else {"NCCL_SOCKET_IFNAME": "lo"}


def is_up(name):
    try:
        return bool(int(Path(f"/sys/class/net/{name}/flags").read_text(), 16) & 1)
    except (OSError, ValueError):
        return True


def sanitizer():
    installed = sorted(Path("/usr/local").glob("cuda*/bin/compute-sanitizer"))
    return shutil.which("compute-sanitizer") or (str(installed[-1]) if installed else None)
