"""This machine as if it had a lesser processor: the run starts anew, torch and oneDNN kept to its instructions.

MKL may take no notice on a processor that isn't Intel's; and one that runs 512-bit instructions in two halves (AMD's
Zen 4) is not much slower for their absence. What it does lose is bfloat16, and that is what counts.
"""

from __future__ import annotations

import argparse
import os
import sys

ISAS = {
    "avx2": {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"},
}
"""What each name sets; `model.devices` heeds the first two."""


def add_isa_argument(parser: argparse.ArgumentParser) -> None:
    """The option that `run_as` reads."""
    parser.add_argument("--isa", choices=ISAS, help="as on a processor that has no more than these instructions")


def run_as(isa: str | None, module: str) -> None:
    """Start `python -m module` anew, with the same arguments, where its environment is not yet that of `isa`."""
    wanted = ISAS.get(isa or "", {})
    if any(os.environ.get(name) != value for name, value in wanted.items()):
        os.execve(sys.executable, [sys.executable, "-m", module, *sys.argv[1:]], os.environ | wanted)
