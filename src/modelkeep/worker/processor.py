"""What this machine's processor can compute in, as the kernel tells, and with how many cores."""

import os
from pathlib import Path
from typing import Self

import msgspec

_BFLOAT16 = frozenset({"avx512_bf16", "amx_bf16", "bf16"})
_SUMS_IN_32_BITS = frozenset({"avx512_vnni", "avx_vnni", "asimddp"})


class Processor(msgspec.Struct, frozen=True):
    """`bfloat16`: it has the instructions. `narrow`: it adds products of 8 bits up in 16, which can overflow.

    `cores` are those that this process may use.
    """

    bfloat16: bool
    narrow: bool
    cores: int = 1

    @classmethod
    def here(cls, told: Path = Path("/proc/cpuinfo")) -> Self:
        """Read what the kernel tells; nothing is taken for granted where it tells nothing."""
        cores = len(os.sched_getaffinity(0))
        try:
            return msgspec.structs.replace(cls.of(told.read_text(errors="replace")), cores=cores)
        except OSError:
            return cls(bfloat16=False, narrow=True, cores=cores)

    @classmethod
    def of(cls, told: str) -> Self:
        """Understand the flags (x86) or features (Arm) of the first processor."""
        lines = (line.partition(":") for line in told.splitlines())
        flags = next((value.split() for name, _, value in lines if name.strip().lower() in {"flags", "features"}), [])
        return cls(bfloat16=bool(_BFLOAT16 & set(flags)), narrow=not _SUMS_IN_32_BITS & set(flags))
