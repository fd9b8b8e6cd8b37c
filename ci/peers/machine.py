"""The processor of this machine: what it is called in reports, and what peers must be told about it."""

import pathlib
import platform
import re
import subprocess

# The widest of them that is there is named.
PATHS = [("amx_bf16", "AMX"), ("avx512_bf16", "AVX-512 with bf16"), ("avx512f", "AVX-512"), ("avx2", "AVX2")]
# Family, then models from..to of AMD's generations (Linux, arch/x86/kernel/cpu/amd.c).
ZEN = [(26, 0x00, 0xFF, 5), (25, 0x10, 0x1F, 4), (25, 0x60, 0x7F, 4), (25, 0xA0, 0xAF, 4), (25, 0x00, 0xFF, 3), (23, 0x30, 0xFF, 2)]


class Machine:
    def __init__(self, text=None):
        path = pathlib.Path("/proc/cpuinfo")
        text = text if text is not None else path.read_text() if path.exists() else ""
        facts = dict(re.findall(r"^([\w ]+?)\s*: (.*)$", text.split("\n\n")[0], re.M))
        self.vendor = facts.get("vendor_id", "")
        name = re.sub(r"\(R\)|\(TM\)|\bProcessor\b|\bCPU\b|@.*", "", facts.get("model name", platform.processor() or platform.machine()))
        name = re.sub(r"\s+", " ", re.sub(r"\d+-Core", "", name)).strip()
        family, model = int(facts.get("cpu family", 0)), int(facts.get("model", 0))
        flags = facts.get("flags", "").split()
        self.instructions = next((title for flag, title in PATHS if flag in flags), "")
        generation = ""
        if self.vendor == "AuthenticAMD":
            generation = next((f"Zen {zen}" for f, low, high, zen in ZEN if family == f and low <= model <= high), "")
        elif family:
            generation = f"family {family}, model {model}"
        self.of = [name, generation]
        self.hold(self.instructions)

    def hold(self, instructions):
        """Names it by the instructions that everyone may use."""
        name, *facts = self.of
        self.title = f"{name} ({', '.join(filter(None, [*facts, instructions]))})"
        self.slug = re.sub(r"[^a-z0-9]+", "-", self.title.lower()).strip("-")

    def mkl_override(self, folder):
        """A library to be loaded first, by which MKL takes its fast path on AMD's processors; None where no compiler is there."""
        library, source = folder / "libmkl_on_amd.so", folder / "mkl_on_amd.c"
        if not library.exists():
            source.write_text("int mkl_serv_intel_cpu_true(void) { return 1; }\n")
            try:
                subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source], check=True)
            except (OSError, subprocess.CalledProcessError) as fault:
                print(f"MKL's slow path on AMD is taken: {library} could not be made ({fault})")
                return None
        return str(library.resolve())
