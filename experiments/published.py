"""The numbers that papers published, one small file each under published/."""

import dataclasses
import json
import pathlib
from typing import Any

_FOLDER = pathlib.Path(__file__).with_name("published")
_BEST = pathlib.Path(__file__).with_name("best.json")

# table1 to table3 are those of Lin et al.; tian is what Tian et al. published besides.
PUBLISHED_TABLES = ("table1", "table2", "table3", "tian")
# AVSDN's way from the paper's recipe to the best one, a change a row.
CHANGES = ("changes_supervised", "changes_weak")
RECIPES = ("paper", "best")

# What stands in for a configuration that has the same shapes.
_SAME_SHAPES = {"synthetic": "resnet152"}


@dataclasses.dataclass(frozen=True)
class Row:
    """A row of a table, and how to train what it belongs to.

    Attributes:
        name: Name of its file.
        table: `"table1"` (supervised), `"table2"` (weak) or `"table3"` (ablation) of
            Lin et al., ICASSP 2019, arXiv 1902.07473; `"tian"` for Tian et al., ECCV
            2018, arXiv 1803.08842; `"changes"` for a step to the best recipe.
        order: Its place in the table, from 1.
        system: The row's name in the paper.
        features: The visual network, as the tables of this project name it. What the
            paper calls VGG16 is VGG-19.
        dataset_config: The configuration of tfds_ave with these features; None if the
            system needs no visual ones.
        mode: `--mode`.
        model: `--model`.
        settings: Further flags of the recipe.
        paper: Published accuracy in percent; None where nothing was published.
        metric: The score in a run's report that is meant.
        encoders: Name of the row whose run of the same seed this one starts from.
        recipe: `"paper"` or `"best"`.
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

    def fits(self, dataset: str) -> bool:
        """Returns whether a data set has the features that the row needs."""
        config = dataset.split("/")[-1]
        return self.dataset_config in (None, _SAME_SHAPES.get(config, config))


def load_row(name: str) -> Row:
    """Returns the row of a file."""
    return Row(name=name, **json.loads((_FOLDER / f"{name}.json").read_text()))


def load_table(table: str) -> list[Row]:
    """Returns the rows of a published table, or of `CHANGES`, in their order."""
    if table in CHANGES:
        return _load_changes(table.removeprefix("changes_"))
    rows = [load_row(path.stem) for path in sorted(_FOLDER.glob(f"{table}_*.json"))]
    return sorted(rows, key=lambda row: row.order)


def best_changes(mode: str) -> list[dict[str, Any]]:
    """Returns by what the best recipe departs from the paper's, change by change."""
    return json.loads(_BEST.read_text()).get(mode, [])


def _load_changes(mode: str) -> list[Row]:
    """Returns AVSDN's rows from the paper's recipe to the best."""
    table = "table1" if mode == "supervised" else "table2"
    paper = next(row for row in load_table(table) if row.model == "avsdn")
    rows = [dataclasses.replace(paper, table="changes", order=1, paper=None)]
    for change in best_changes(mode):
        last = rows[-1]
        told = ", ".join(f"{name} {value}" for name, value in change.items())
        rows.append(
            dataclasses.replace(
                last,
                order=last.order + 1,
                system=f"+ {told.removesuffix(' True')}",
                settings={**last.settings, **change},
                recipe="best",
            )
        )
    return rows
