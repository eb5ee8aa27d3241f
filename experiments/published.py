"""Load published results and recipes from the files in published/."""

import dataclasses
import json
import pathlib
from typing import Any

from avsdn_tf.errors import UserError
from tfds_ave.configs import CONFIGS

_FOLDER = pathlib.Path(__file__).with_name("published")
_BEST = pathlib.Path(__file__).with_name("best.json")

# Tables of AVEL, DMRN and the networks of later papers, on the same features.
HEADS = ("heads", "weak_heads")
# table1 to table3 are Lin et al.'s tables; tian has DMRN and AVDLN of Tian et al.
PUBLISHED_TABLES = ("table1", "table2", "table3", "tian", *HEADS)
# Tables of AVSDN from the paper's recipe to the best recipe, one change per row.
CHANGES = ("changes_supervised", "changes_weak")
# Table of weakly supervised AVEL and AVSDN on equal training labels.
LABELS = "labels"
# Tables in which each row is compared with the previous row.
STEPWISE = (*CHANGES, LABELS)
TITLES = {
    "table1": "Table 1 of Lin et al., supervised",
    "table2": "Table 2 of Lin et al., weakly supervised",
    "table3": "Table 3 of Lin et al., initial state of the decoder, weakly supervised",
    "tian": "DMRN and AVDLN of Tian et al., beside AVSDN",
    "heads": "The field's networks on the same features, supervised",
    "weak_heads": "The field's networks on the same features, weakly supervised",
    "changes_supervised": "AVSDN from the paper's recipe to the best, supervised",
    "changes_weak": "AVSDN from the paper's recipe to the best, weakly supervised",
    LABELS: "AVEL and AVSDN on equal labels, weakly supervised",
}
RECIPES = ("paper", "best")
# Maps a table to its first rows, which come from other tables.
_FIRST_ROWS = {
    "heads": ("table1_avel_att_vgg19", "tian_dmrn"),
    "weak_heads": ("table2_avel_att_vgg19",),
}

# Maps a config to another config with features of the same network.
_SAME_FEATURES = {"synthetic": "resnet152", "videos": "resnet152"}
# Configs with AVE's classes.
_USABLE = tuple(config.name for config in CONFIGS if config.source != "custom")


@dataclasses.dataclass(frozen=True)
class Row:
    """A row of a table, and the recipe of its system.

    Attributes:
        name: Name of the row's file.
        table: `"table1"` (supervised), `"table2"` (weak) or `"table3"` (ablation) of
            Lin et al., ICASSP 2019, arXiv 1902.07473; `"tian"` for Tian et al., ECCV
            2018, arXiv 1803.08842; or one of `HEADS` or `STEPWISE`.
        order: Number of the row in the table, from 1.
        system: Name of the system in the paper.
        features: Name of the visual network. The papers call VGG-19 "VGG16".
        dataset_config: The config of tfds_ave with these features; None if the system
            needs no visual features.
        mode: `Config.mode`.
        model: `Config.model`.
        settings: Further settings of the recipe. AVEL's program lowers the learning
            rate after 15,000 steps (`decay_steps`). A run of at most 60 epochs ends
            after about 3,000 steps, before the learning rate changes.
        paper: Published accuracy in percent, or None.
        metric: Name of the score in a run's report.
        encoders: Name of the row whose run of the same seed initializes the encoders.
        recipe: `"paper"`, `"best"`, or `"step"` between the two.
        reported: Accuracy in percent that other authors measured with the system's
            program, or None.
    """

    name: str
    table: str
    order: int
    system: str
    features: str
    dataset_config: str | None
    mode: str
    model: str
    settings: dict[str, Any]
    paper: float | None
    metric: str = "accuracy"
    encoders: str | None = None
    recipe: str = "paper"
    reported: float | None = None

    def fits(self, dataset: str) -> bool:
        """Return whether a data set has the features that the row needs.

        Raises:
            UserError: If the data set doesn't have AVE's classes.
        """
        config = config_of(dataset)
        return self.dataset_config in (None, _SAME_FEATURES.get(config, config))


def config_of(dataset: str) -> str:
    """Return the config in a data set's name, without the version.

    Raises:
        UserError: If the data set doesn't have AVE's classes.
    """
    name, _, config = dataset.partition("/")
    config = config.split(":")[0]
    if name != "tfds_ave" or config not in _USABLE:
        raise UserError(
            "Expected tfds_ave/CONFIG, where CONFIG has AVE's classes: "
            f"{', '.join(_USABLE)}.",
            field="dataset",
            value=dataset,
        )
    return config


def load_row(name: str) -> Row:
    """Load a row from its file."""
    fields = json.loads((_FOLDER / f"{name}.json").read_text())
    # The command is for readers of the file; `experiments.runs.plan` derives it.
    del fields["command"]
    return Row(name=name, **fields)


def load_table(table: str) -> list[Row]:
    """Load the rows of a table in order."""
    if table in CHANGES:
        return _load_changes(table)
    if table == LABELS:
        return _load_labels()
    rows = [load_row(path.stem) for path in sorted(_FOLDER.glob(f"{table}_*.json"))]
    rows.sort(key=lambda row: row.order)
    first = map(load_row, _FIRST_ROWS.get(table, ()))
    rows[:0] = [
        dataclasses.replace(r, table=table, order=n) for n, r in enumerate(first, 1)
    ]
    if table == "tian":
        # Add AVSDN for comparison.
        avsdn = load_row("table1_avsdn")
        rows.append(dataclasses.replace(avsdn, table=table, order=len(rows) + 1))
    return rows


def best_changes(mode: str) -> list[dict[str, Any]]:
    """Load the changes from the paper's recipe to the best recipe."""
    return json.loads(_BEST.read_text()).get(mode, [])


def _load_changes(table: str) -> list[Row]:
    """Load the rows of a table in `CHANGES`."""
    mode = table.removeprefix("changes_")
    published = load_row("table1_avsdn" if mode == "supervised" else "table2_avsdn")
    rows = [dataclasses.replace(published, table=table, order=1, paper=None)]
    changes = best_changes(mode)
    for order, change in enumerate(changes, start=2):
        text = ", ".join(f"{name} {value}" for name, value in change.items())
        rows.append(
            dataclasses.replace(
                rows[-1],
                order=order,
                system=f"+ {text.removesuffix(' True')}",
                settings={**rows[-1].settings, **change},
                recipe="step" if order <= len(changes) else "best",
            )
        )
    return rows


def _load_labels() -> list[Row]:
    """Load the rows of the table `LABELS`: AVEL, and AVSDN on either paper's labels."""
    avel, avsdn = load_row("table2_avel_resnet152"), load_row("table2_avsdn")
    settings = {**avsdn.settings, "weak_label": avel.settings["weak_label"]}
    equal = {"name": "labels_avsdn", "settings": settings, "paper": None}
    rows = [
        avel,
        dataclasses.replace(avsdn, system="AVSDN, AVEL's labels", **equal),
        dataclasses.replace(avsdn, system="AVSDN, its own labels"),
    ]
    return [
        dataclasses.replace(r, table=LABELS, order=n) for n, r in enumerate(rows, 1)
    ]
