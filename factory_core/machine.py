"""What this machine offers: cores, free disk, memory used."""

from __future__ import annotations

import math
import os
import shutil
import sys
from pathlib import Path

GIB = 2**30
CPU_QUOTA = Path("/sys/fs/cgroup/cpu.max")  # of a container: microseconds of CPU time, of how many


def available_cpus() -> int:
    """Cores that this process may use, at most those whose time its container may take."""
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
    cores = len(allowed) if allowed else os.cpu_count() or 1
    return min(cores, cpu_quota() or cores)


def cpu_quota() -> int | None:
    """The cores that a container may keep busy, rounded up; None without a limit."""
    try:
        quota, period = CPU_QUOTA.read_text().split()
        return max(1, math.ceil(int(quota) / int(period)))
    except (OSError, ValueError):  # no control groups; or the quota is `max`
        return None


def disk_free_bytes(folder: Path) -> int:
    """Free space on the disk that `folder` is on, or would be on."""
    folder = folder.resolve()
    existing = next(path for path in [folder, *folder.parents] if path.exists())
    return shutil.disk_usage(existing).free


def memory_bytes() -> int:
    """Memory of this machine; 0 if unknown (Windows)."""
    if not hasattr(os, "sysconf"):
        return 0
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def peak_memory_bytes() -> int:
    """Largest resident memory of this process so far; 0 if unknown (Windows)."""
    try:
        import resource
    except ImportError:
        return 0
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
