"""Import rules between modules, and the maximum length of a file."""

import ast
import graphlib
import pathlib

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]
PACKAGES = ("avsdn_tf", "tfds_ave", "experiments")
# Lowest layer first. A module may import from its own layer and from lower layers.
LAYERS = (
    {"version", "errors", "text"},
    {
        "files",
        "arrays",
        "schemas",
        "startup",
        "backbones",
        "intervals",
        "losses",
        "metrics",
        "models",
        "windows",
    },
    {"attention", "events", "model_file", "run_folder"},
    {"evaluation", "cross_modality", "official_weights"},
    {"data", "features", "report", "zero_shot"},
    {"hub", "videos", "export", "demo", "labels"},
    {"inference"},
    {"training"},
    {"runs"},
    {"cli"},
    {"main", "__main__"},
)
LAYER_OF = {name: i for i, names in enumerate(LAYERS) for name in names}
# For some parts of avsdn_tf, the parts that they may import.
MAY_SEE = {
    "models": {"models", "losses"},
    "losses": {"losses"},
    "metrics": {"metrics"},
    "report": {
        "report",
        "errors",
        "evaluation",
        "cross_modality",
        "events",
        "files",
        "run_folder",
        "schemas",
        "text",
    },
    "data": {"data", "backbones", "errors", "files", "schemas", "text"},
    "features": {
        "features",
        "backbones",
        "errors",
        "files",
        "schemas",
        "startup",
        "text",
    },
}
LONGEST = 400


def files():
    return [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]


def name_of(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


MODULES = {name_of(path): path for path in files()}


def imported(path):
    """Return the project's modules that a file imports, at its top or in functions."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                found.add(full if full in MODULES else node.module)
    return {name for name in found if name.split(".")[0] in PACKAGES}


GRAPH = {name: imported(path) for name, path in MODULES.items()}


def part_of(name):
    return name.split(".")[1] if "." in name else ""


def test_no_imports_are_circular():
    # avsdn_tf/__init__.py imports the public names from all parts: ignore it.
    graph = {
        name: {other for other in others if other != "avsdn_tf"}
        for name, others in GRAPH.items()
        if name != "avsdn_tf"
    }
    list(graphlib.TopologicalSorter(graph).static_order())


def test_no_module_imports_from_a_higher_layer():
    upward = [
        f"{name} imports {other}"
        for name, others in GRAPH.items()
        for other in others
        if name.startswith("avsdn_tf.")
        and other.startswith("avsdn_tf.")
        and LAYER_OF[part_of(name)] < LAYER_OF[part_of(other)]
    ]
    assert not upward


@pytest.mark.parametrize("part", MAY_SEE)
def test_a_part_imports_only_allowed_parts(part):
    foreign = {
        f"{name} imports {other}"
        for name, others in GRAPH.items()
        for other in others
        if name.startswith("avsdn_tf.")
        and part_of(name) == part
        and other.startswith("avsdn_tf")
        and part_of(other) not in MAY_SEE[part]
    }
    assert not foreign


def test_a_package_imports_only_allowed_packages():
    for name, others in GRAPH.items():
        packages = {other.split(".")[0] for other in others}
        if name.startswith("avsdn_tf"):
            assert "experiments" not in packages, name
            # This import registers the data sets. TFDS then finds them by name.
            if "tfds_ave" in packages:
                assert name == "avsdn_tf.data.dataset"
        if name.startswith("tfds_ave"):
            seen = {part_of(other) for other in others if other.startswith("avsdn_tf")}
            assert seen <= {
                "arrays",
                "features",
                "backbones",
                "errors",
                "files",
                "schemas",
                "text",
            }, name


@pytest.mark.parametrize("part", ["models", "losses", "metrics"])
def test_networks_import_no_backend(part):
    for name, path in MODULES.items():
        if name.startswith("avsdn_tf.") and part_of(name) == part:
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, (ast.Import, ast.ImportFrom)):
                    names = (
                        [alias.name for alias in node.names]
                        if isinstance(node, ast.Import)
                        else [node.module]
                    )
                    for found in names:
                        assert found.split(".")[0] not in ("tensorflow", "jax", "torch")


def test_only_training_commands_and_experiments_import_the_config():
    for name, others in GRAPH.items():
        if "avsdn_tf.training.config" in others:
            is_allowed = part_of(name) in ("training", "runs", "cli")
            assert is_allowed or name.startswith("experiments"), name


def test_a_long_file_states_its_reason():
    for path in files():
        text = path.read_text()
        if len(text.splitlines()) > LONGEST:
            opening = "\n".join(text.splitlines()[:12])
            assert "One file, since" in opening, f"{path} has over {LONGEST} lines"


def test_removed_names_are_absent():
    for path in files():
        for word in ("fcntl", "matching.py", "share_cores", "FusedAdam"):
            assert word not in path.read_text(), f"{path}: {word}"
