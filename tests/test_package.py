"""The sdist and the wheel are complete, and the wheel works when installed."""

import ast
import configparser
import importlib.metadata
import os
import pathlib
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]


def call(*words, cwd, env=None):
    done = subprocess.run(
        words, cwd=cwd, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Build both distributions without warnings, and return their folder."""
    folder = tmp_path_factory.mktemp("package")
    source = folder / "source"
    shutil.copytree(
        ROOT, source, ignore=shutil.ignore_patterns(".*", "*.egg-info", "build", "runs")
    )
    # setuptools warns if this variable prevents it from writing byte code.
    env = {n: v for n, v in os.environ.items() if n != "PYTHONDONTWRITEBYTECODE"}
    output = call(sys.executable, "-m", "build", ".", cwd=source, env=env)
    lines = [line for line in output.splitlines() if "warn" in line.lower()]
    assert not lines
    return source / "dist"


def imported(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            yield node.module


def test_every_imported_library_is_a_declared_dependency():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    sections = config["options"]["install_requires"]
    for extra in ("export", "hub", "video"):
        sections += config["options.extras_require"][extra]
    declared = set(re.findall(r"^([\w-]+)\b", sections, re.MULTILINE))
    distributions = importlib.metadata.packages_distributions()
    known = {"avsdn_tf", "tfds_ave", "__future__", *sys.stdlib_module_names}
    for package in ("avsdn_tf", "tfds_ave"):
        for path in (ROOT / package).rglob("*.py"):
            tree = ast.parse(path.read_text(encoding="utf-8"))
            for module in {name.split(".")[0] for name in imported(tree)} - known:
                # If a module's extra is not installed, the distribution is unknown: use
                # the module's name instead.
                names = distributions.get(module, [module.replace("_", "-")])
                assert {name.lower() for name in names} & declared, (path, module)


@pytest.mark.slow
def test_both_distributions_are_valid_and_complete(built):
    files = sorted(built.iterdir())
    output = call(sys.executable, "-m", "twine", "check", "--strict", *files, cwd=built)
    assert output.count("PASSED") == 2
    with tarfile.open(next(built.glob("*.tar.gz"))) as archive:
        names = {name.split("/", 1)[-1] for name in archive.getnames()}
    wanted = {"LICENSE", "CHANGELOG.md", "CITATION.cff", "README.md", "mkdocs.yml"}
    wanted |= {"tests/conftest.py", "tests/fixtures/0.1.0/avsdn.keras"}
    assert wanted <= names
    wanted = {"docs/javascripts/iframe-worker.js", "docs/notebooks/train.ipynb"}
    assert {*wanted, "experiments/best.json"} <= names
    with zipfile.ZipFile(next(built.glob("*.whl"))) as archive:
        packaged = set(archive.namelist())
    assert {"avsdn_tf/py.typed", "tfds_ave/categories.txt"} <= packaged
    for folder in ("avsdn_tf/report/static", "avsdn_tf/report/templates"):
        wanted = {f"{folder}/{file.name}" for file in (ROOT / folder).iterdir()}
        assert wanted <= packaged
    assert {name.split("/")[0].split("-")[0] for name in packaged} == {
        "avsdn_tf",
        "tfds_ave",
    }


@pytest.mark.slow
def test_the_wheel_works_outside_the_repository(built, tmp_path):
    environment = tmp_path / "venv"
    call(sys.executable, "-m", "venv", environment, cwd=tmp_path)
    packages = next(environment.glob("lib/*/site-packages"))
    # Link the installed dependencies, but not this package.
    dependencies = tmp_path / "dependencies"
    dependencies.mkdir()
    for path in pathlib.Path(sysconfig.get_path("purelib")).iterdir():
        if "avsdn" not in path.name:
            (dependencies / path.name).symlink_to(path)
    (packages / "dependencies.pth").write_text(f"{dependencies}\n")
    programs = environment / "bin"
    wheel = next(built.glob("*.whl"))
    call(programs / "pip", "install", "--no-deps", wheel, cwd=tmp_path)
    env = {"PATH": f"{programs}:/usr/bin:/bin", "HOME": str(tmp_path)}
    program = "import avsdn_tf; print(avsdn_tf.__file__)"
    where = call(programs / "python", "-c", program, cwd=tmp_path, env=env)
    assert str(packages) in where
    done = subprocess.run(
        [programs / "avsdn", "fly"], cwd=tmp_path, env=env, stderr=subprocess.PIPE
    )
    assert done.returncode == 2
    assert b"train, evaluate" in done.stderr
    call(
        *(programs / "python", "-m", "tensorflow_datasets.scripts.cli.main"),
        *("build", "tfds_ave", "--imports=tfds_ave", f"--data_dir={tmp_path / 'data'}"),
        cwd=tmp_path,
        env=env,
    )
    assert list(tmp_path.glob("data/tfds_ave/synthetic/*/dataset_info.json"))
    model = ROOT / "tests" / "fixtures" / "0.1.0" / "avsdn.keras"
    program = (
        "import avsdn_tf, keras\n"
        f"print(keras.models.load_model({str(model)!r}).categories)"
    )
    assert "Bark" in call(programs / "python", "-c", program, cwd=tmp_path, env=env)


WITHOUT_VIDEO = """
import importlib.util, sys
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: (
    None if name in ("av", "tensorflow_hub") else find(name, *rest)
)
sys.modules["av"] = sys.modules["tensorflow_hub"] = None
import avsdn_tf, numpy as np
import avsdn_tf.training.run, avsdn_tf.export, avsdn_tf.cli.app
model = avsdn_tf.AVSDN(["Bark"], 3, (4,), units=2)
clips = {"audio": np.zeros((1, 5, 3)), "visual": np.zeros((1, 5, 4))}
print(avsdn_tf.localize(model, clips))
try:
    avsdn_tf.localize(model, "dog.mp4")
except avsdn_tf.UserError as error:
    print(error)
"""


def test_only_reading_videos_needs_the_extra_video():
    output = call(sys.executable, "-c", WITHOUT_VIDEO, cwd=ROOT)
    assert "avsdn_tf[video]" in output
