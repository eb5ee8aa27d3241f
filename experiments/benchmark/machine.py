"""The commit, the processor and the versions that a speed depends on."""

import os
import pathlib
import platform
import subprocess
from typing import Any

from avsdn_tf.run_folder import package_version, versions
from avsdn_tf.training.distribution import num_cores

_ROOT = pathlib.Path(__file__).resolve().parents[2]
# What decides a program's results: its code, and the recipes of the experiments.
_CODE = ("*.py", "experiments/*.json", "experiments/published/*.json")
# The programs that parts compare with; then packages that TensorFlow and Keras import
# where they are installed, which takes memory and time.
_PACKAGES = ("torch", "h5py", "jax", "pandas")


def describe_machine() -> dict[str, Any]:
    """Return everything besides the program that a speed depends on."""
    memory_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "code": describe_code(),
        "cores": num_cores(),
        "processor": processor(),
        "memory_gb": round(memory_bytes / 1e9, 1),
        "versions": {**versions(), **{n: package_version(n) for n in _PACKAGES}},
    }


def describe_code() -> str:
    """Return the commit of the code that runs, as the end of a sentence."""
    if not (_ROOT / ".git").exists():
        return "by code outside of git"

    def git(*words: str) -> str:
        command = ["git", "-C", str(_ROOT), *words]
        return subprocess.check_output(
            command, text=True, stderr=subprocess.DEVNULL
        ).strip()

    try:
        commit = git("rev-parse", "--short", "HEAD")
        is_changed = bool(git("status", "--porcelain", "--", *_CODE))
    # No git, or no commit yet.
    except (OSError, subprocess.CalledProcessError):
        return "by an unknown commit"
    return f"by commit {commit}{' with uncommitted changes' if is_changed else ''}"


def processor() -> str:
    """Return the processor's name where Linux knows it, else its architecture.

    Virtual machines give several generations the same name; family and model tell them
    apart.
    """
    info = _cpuinfo()
    name = info.get("model name", platform.machine())
    if "cpu family" not in info:
        return name
    return f"{name} (family {info['cpu family']}, model {info['model']})"


def has_bfloat16() -> bool:
    """Return whether the processor multiplies in bfloat16, as far as Linux knows.

    PyTorch's LSTM fails in bfloat16 on some processors without it.
    """
    info = _cpuinfo()
    # avx512_bf16 and amx_bf16 on x86, bf16 on Arm.
    return "bf16" in info.get("flags", "") + info.get("Features", "")


def _cpuinfo() -> dict[str, str]:
    """Return what /proc/cpuinfo says of the first processor."""
    path = pathlib.Path("/proc/cpuinfo")
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    pairs = (line.partition(":") for line in text.split("\n\n")[0].splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}
