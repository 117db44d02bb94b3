"""What the figures were measured on."""

import importlib.metadata
import os
import platform
import re
import subprocess
from pathlib import Path
from typing import Any

CPUINFO = Path("/proc/cpuinfo")


def conditions() -> dict[str, Any]:
    """The processor, the versions of what is ours, and how busy the machine is at present."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "load": os.getloadavg()[0],
        "versions": {
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in ("jax", "jaxlib", "jaxlirpa")},
        },
    }


def peer_versions(checkout: Path, python: str) -> dict[str, str]:
    """The versions of the checkout of auto_LiRPA and of the torch that it runs on."""
    script = "import torch; print(torch.__version__)"
    torch = subprocess.run([python, "-c", script], capture_output=True, text=True, check=True)
    source = (checkout / "auto_LiRPA" / "__init__.py").read_text()
    found = re.search(r"__version__ *= *['\"](.*?)['\"]", source)
    return {"torch": torch.stdout.strip(), "auto_LiRPA": found[1] if found else "unknown"}


def _processor() -> str:
    if CPUINFO.exists():
        found = re.search(r"^model name\s*: (.*)$", CPUINFO.read_text(), re.MULTILINE)
        if found:
            return found[1]
    return platform.processor() or platform.machine()
