"""Describe the commit, the machine and the package versions of a measurement."""

import os
import pathlib
import platform
import subprocess
from typing import Any

from avsdn_tf.run_folder import package_version, versions
from avsdn_tf.training.distribution import num_cores

_ROOT = pathlib.Path(__file__).resolve().parents[2]
# Files that affect results: code, and recipes of experiments.
_CODE = ("*.py", "experiments/*.json", "experiments/published/*.json")
# Packages of the baselines, and packages that TensorFlow and Keras import if installed,
# which costs memory and time.
_PACKAGES = ("torch", "h5py", "jax", "pandas")


def describe_machine() -> dict[str, Any]:
    """Return code, processor, memory and package versions."""
    memory_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "code": describe_code(),
        "cores": num_cores(),
        "processor": processor(),
        "memory_gb": round(memory_bytes / 1e9, 1),
        "versions": {**versions(), **{n: package_version(n) for n in _PACKAGES}},
    }


def describe_code() -> str:
    """Return the commit of the running code, as the end of a sentence."""
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
    # git is missing, or there is no commit.
    except (OSError, subprocess.CalledProcessError):
        return "by an unknown commit"
    return f"by commit {commit}{' with uncommitted changes' if is_changed else ''}"


def processor() -> str:
    """Return the processor's name on Linux, else its architecture.

    Family and model distinguish generations that share a name in virtual machines.
    """
    info = _cpuinfo()
    name = info.get("model name", platform.machine())
    if "cpu family" not in info:
        return name
    return f"{name} (family {info['cpu family']}, model {info['model']})"


def has_bfloat16() -> bool:
    """Return whether the processor has bfloat16 instructions; False except on Linux.

    PyTorch's LSTM fails in bfloat16 on some processors without these instructions.
    """
    info = _cpuinfo()
    # The flags are avx512_bf16 and amx_bf16 on x86, bf16 on Arm.
    return "bf16" in info.get("flags", "") + info.get("Features", "")


def _cpuinfo() -> dict[str, str]:
    """Return the fields of the first processor in /proc/cpuinfo."""
    path = pathlib.Path("/proc/cpuinfo")
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    pairs = (line.partition(":") for line in text.split("\n\n")[0].splitlines())
    return {key.strip(): value.strip() for key, _, value in pairs}
