"""The steps of each part, in the order of what they tell, with the most seconds that each may take."""

import json
import sys
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
PEERS = ROOT / "ci" / "peers"
GOLDEN = [f"tests/golden/{name}.safetensors" for name in ("gpt2", "llama-gqa", "keras-block")]
FAMILIES = [str(file.relative_to(ROOT)) for file in sorted((ROOT / "tests" / "golden" / "families").glob("*.safetensors"))]
DTYPES = ("f32", "tf32", "bf16")
FACTS = "index,name,driver_version,memory.total,power.limit,clocks.sm,clocks.max.sm,temperature.gpu,mig.mode.current,compute_cap"
TORCH = "import torch; print(torch.__version__, torch.version.cuda, torch.cuda.is_available(), torch.cuda.get_device_name())"
SCENARIOS = {"gpu-decode": 150, "gpu-train": 120, "gpu-prefill": 150, "gpu-attention": 90, "gpu-experts": 120, "gpu-latents": 180}


@dataclass(frozen=True)
class Step:
    name: str
    # None: what is missing for it is in `lacks`.
    command: list | None
    limit: int
    # With fewer seconds left it is not begun.
    least: int = 5
    lacks: str = ""
    # Added to the environment, or, if None, nothing is said of CUDA's libraries.
    environment: dict | None = field(default_factory=dict)


def facts():
    return [Step("nvidia-smi", ["nvidia-smi", f"--query-gpu={FACTS}", "--format=csv"], 15)]


def torch(here):
    # The first import on a bare machine reads gigabytes.
    return Step("torch", [here.python, "-c", TORCH], 90)


def verify(here, work, whole):
    centime = [here.centime, "verify", "--backend", "cuda", "--dtype"]
    golden = lambda dtype, limit: Step(f"golden-{dtype}", [*centime, dtype, *GOLDEN], limit)
    families = lambda dtype: Step(f"families-{dtype}", [*centime, dtype, *FAMILIES], 120)
    operations = lambda dtype, size: [*centime, dtype, "--operations", "--size", size, "--format", "markdown"]
    each = lambda size, limit, all_of: [Step(f"operations-{size}-{d}", operations(d, size), limit, 10) for d in all_of]
    sanitize = lambda tool, dtype, limit: sanitized(here, tool, dtype, operations(dtype, "small"), limit)
    return [
        *facts(),
        Step("nvidia-smi-full", ["nvidia-smi", "-q"], 15),
        torch(here),
        # Whether the program finds CUDA's libraries by itself; the steps after it are told.
        Step("doctor-untold", [here.centime, "doctor", "--no-probe"], 45, environment=None),
        Step("doctor", [here.centime, "doctor"], 60),
        golden("f32", 120),
        golden("tf32", 60),
        golden("bf16", 90),
        Step("golden-weights-f8", [*centime, "bf16", "--weights", "f8", *GOLDEN], 90),
        families("f32"),
        families("bf16"),
        *each("small", 60, DTYPES),
        sanitize("memcheck", "bf16", 120),
        Step("nccl", [here.centime, "trial", "--nccl", "0"], 45),
        *each("full", 180, ("bf16", "f32", "tf32")),
        sanitize("racecheck", "bf16", 120),
        sanitize("memcheck", "f32", 90),
        sanitize("synccheck", "bf16", 60),
    ]


def sanitized(here, tool, dtype, command, limit):
    name = f"{tool}-{dtype}"
    if not here.sanitizer:
        return Step(name, None, limit, lacks="compute-sanitizer is not installed")
    words = [here.sanitizer, "--tool", tool, "--error-exitcode", "9", "--print-limit", "20"]
    return Step(name, [*words, *command], limit, 15)


def ratios(here, work, whole):
    sys.path.insert(0, str(PEERS))
    from gpu_workloads import WORKLOADS

    common = ["--centime", here.centime, "--python", here.python, "--out", str(work / "ratios")]
    common += ["--whole"] if whole else []
    script = lambda name, *words: [sys.executable, str(PEERS / name), *common, *words]
    beside = lambda w: Step(f"ratio-{w.name}", script("gpu_side_by_side.py", "--workload", w.name), 200, 35)
    return [
        *facts(),
        torch(here),
        # Every peer compiles at once, at the very beginning; nothing is measured meanwhile.
        Step("prepare", script("gpu_prepare.py"), 160, 30),
        Step("attention", script("gpu_attention.py"), 90, 20),
        *[beside(w) for w in WORKLOADS],
    ]


def scenarios(here, work, whole):
    run = lambda name: [here.centime, "run", f"scenarios/{name}.yaml", "--fresh", "--quiet", "--format", "markdown"]
    of = lambda name, limit: Step(name, [*run(name), "--out", str(work / name)], limit, 20)
    return [*facts(), *[of(name, limit) for name, limit in SCENARIOS.items()]]


PARTS = {"verify": verify, "ratios": ratios, "scenarios": scenarios}


def of(part, here, work, whole):
    return PARTS[part](here, work, whole)


def written(command):
    """As a shell would take it, nearly."""
    return " ".join(w if w and not set(w) & set(" ;'\"()&|<>$") else json.dumps(w) for w in map(str, command or []))
