#!/usr/bin/env python3
"""The machine code of the wgmma kernels: whether arithmetic and copies run while the tensor cores do.

What these kernels gain over a simple loop is an order of instructions: products are started, the softmax's exponentials are
computed, and only then are the products waited for. The source has that order; the assembler need not keep it, and a kernel
that has lost it is right and half as fast. The order is read here from a listing of NVIDIA's disassembler.

  ci/sass.py LISTING...    # text of nvdisasm; says what is wrong, and fails (1) if anything is

`ci/kernels` calls it for every version of the compiler.
"""

import re
import subprocess
import sys
import tempfile
from pathlib import Path

PACKAGE = "nvidia-cuda-nvdisasm"

# A pass over a tile waits until all products but the last group are done, which leaves that group under way. For each such wait
# of a pass, in order: how many exponentials must stand between it and the next wait or product. A thread has half of a
# tile's columns (two rows and a fourth of each), and in the forward pass two factors by which sums shrink.
#   dkv  S is waited for, P computed under dP's products; dP is waited for, and dS computed under dV's: no exponentials
EXPONENTIALS = {
    "attention_wgmma_64": [64 // 2 + 2],
    "attention_wgmma_128": [128 // 2 + 2],
    "attention_wgmma_dkv_64": [64 // 2, 0],
    "attention_wgmma_dkv_128": [64 // 2, 0],
    "attention_wgmma_dq_64": [64 // 2],
    "attention_wgmma_dq_128": [96 // 2],
}
# The same with windows.
EXPONENTIALS |= {f"{name}_window": counts for name, counts in EXPONENTIALS.items()}

# Products of groups of rows start the copies of a later step under a step's products: so many of a thread, between the two.
COPIES = {"grouped_wgmma_linear": 8, "grouped_wgmma_input": 8, "grouped_wgmma_weight": 8}

SECTION = re.compile(r'^\s*\.section\s+\.text\.(\w+)\s*,', re.MULTILINE)
INSTRUCTION = re.compile(r"^\s*/\*[0-9a-f]{4,}\*/\s+(?:@!?U?P\w+\s+)?([A-Z][\w.]*)\s*([^;]*);", re.MULTILINE)


def kernels(listing: str) -> dict[str, list[tuple[str, str]]]:
    """Opcode and operands of each instruction of each kernel."""
    parts = SECTION.split(listing)[1:]
    return {name: INSTRUCTION.findall(text) for name, text in zip(parts[::2], parts[1::2])}


def exponentials_under_products(code: list[tuple[str, str]]) -> list[int]:
    """For each wait that leaves a group of products under way: exponentials up to the next wait or product."""
    counts, counting = [], False
    for opcode, operands in code:
        if opcode.startswith("WARPGROUP.DEPBAR"):
            counting = not operands.rstrip().endswith("0x0")
            if counting:
                counts.append(0)
        elif opcode.startswith("HGMMA"):
            counting = False
        elif counting and opcode == "MUFU.EX2":
            counts[-1] += 1
    return counts


def copies_under_products(code: list[tuple[str, str]]) -> list[int]:
    """For each wait for all products: copies into shared memory that are started since the last product."""
    counts, started = [], None
    for opcode, operands in code:
        if opcode.startswith("HGMMA"):
            started = 0
        elif opcode.startswith("LDGSTS") and started is not None:
            started += 1
        elif opcode.startswith("WARPGROUP.DEPBAR") and started is not None:
            counts.append(started)
            started = None
    return counts


def faults(listing: str) -> list[str]:
    """What is wrong with the order in the kernels of a listing that it is known for."""
    found = []
    for name, code in kernels(listing).items():
        wanted = EXPONENTIALS.get(name)
        if name in COPIES and any(opcode.startswith("HGMMA") for opcode, _ in code):
            counts = copies_under_products(code)
            if not counts or min(counts) < COPIES[name]:
                found.append(f"{name} starts {counts} copies while products are under way, expected {COPIES[name]} each time")
        elif not wanted:
            if any(opcode.startswith("HGMMA") for opcode, _ in code):
                found.append(f"{name} multiplies by wgmma and ci/sass.py does not know its order: add it to EXPONENTIALS or COPIES")
        if not wanted:
            continue
        counts = exponentials_under_products(code)
        if not counts or len(counts) % len(wanted):
            found.append(f"{name} has {len(counts)} waits that leave products under way, expected {len(wanted)} for each pass")
        for at, count in enumerate(counts):
            least = wanted[at % len(wanted)]
            if count < least:
                found.append(
                    f"{name} computes {count} exponentials while products are under way, expected {least}: "
                    f"after wait {at + 1} of {len(counts)} it waits for them first"
                )
    return found


def serialized(log: str) -> list[str]:
    """Lines of the compiler's log that say that it took the overlap out of a kernel."""
    return [line.strip() for line in log.splitlines() if "serialized" in line]


def disassembler(root: Path) -> Path | str:
    """NVIDIA's disassembler, installed below `root` where it is not; or why it cannot be had."""
    folder = root / "nvdisasm"
    pattern = "**/nvidia/**/bin/nvdisasm"
    if not any(folder.glob(pattern)):
        made = subprocess.run([sys.executable, "-m", "venv", folder], capture_output=True, text=True)
        if made.returncode == 0:
            pip = [folder / "bin/pip", "install", "--quiet", "--disable-pip-version-check", PACKAGE]
            made = subprocess.run(pip, capture_output=True, text=True)
        if made.returncode != 0:
            return f"{PACKAGE} cannot be installed: {(made.stderr or made.stdout).strip().splitlines()[-1:]}"
    found = next(folder.glob(pattern), None)
    return found or f"{PACKAGE} holds no nvdisasm"


def listing_of(nvdisasm: Path, cubin: bytes) -> str:
    """The machine code of a compiled file as text."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        done = subprocess.run([nvdisasm, "--print-code", file.name], capture_output=True, text=True)
    if done.returncode != 0 or not SECTION.search(done.stdout):
        raise RuntimeError(f"nvdisasm lists no kernel: {(done.stderr or done.stdout).strip()[:200]}")
    return done.stdout


def main() -> int:
    if len(sys.argv) < 2 or sys.argv[1].startswith("-"):
        print(__doc__)
        return 2
    found = []
    for name in sys.argv[1:]:
        listing = Path(name).read_text()
        if not SECTION.search(listing):
            found.append(f"{name} lists no kernel")
        found += faults(listing)
    for fault in found:
        print(f"FAILED: {fault}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
