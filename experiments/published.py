"""The numbers that papers published, one small file each under published/."""

import dataclasses
import json
import pathlib
from typing import Any

_FOLDER = pathlib.Path(__file__).with_name("published")

TABLES = ("table1", "table2", "table3")

# What stands in for a configuration that has the same shapes.
_SAME_SHAPES = {"synthetic": "resnet152"}


@dataclasses.dataclass(frozen=True)
class Published:
    """A published accuracy and how to train what it belongs to.

    Attributes:
        name: Name of its file, and of its runs.
        table: `"table1"` (supervised), `"table2"` (weak) or `"table3"` (ablation) of
            Lin et al., ICASSP 2019, arXiv 1902.07473.
        order: Its place in the table, from 1.
        system: The row's name in the paper.
        features: The visual network, as the tables of this project name it. What the
            paper calls VGG16 is VGG-19.
        dataset_config: The configuration of tfds_ave with these features; None if the
            system needs no visual ones.
        mode: `--mode`.
        model: `--model`.
        settings: Further flags of the recipe.
        paper: Published accuracy in percent of the test segments.
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
    paper: float

    def fits(self, dataset: str) -> bool:
        """Returns whether a data set has the features that the row needs."""
        config = dataset.split("/")[-1]
        return self.dataset_config in (None, _SAME_SHAPES.get(config, config))

    def flags(self, overrides: dict[str, Any]) -> list[str]:
        """Returns the flags that train it.

        Args:
            overrides: Settings that depart from the published recipe.
        """
        flags = [f"--mode={self.mode}", f"--model={self.model}"]
        for name, value in {**self.settings, **overrides}.items():
            if isinstance(value, bool):
                flags.append(f"--{name}" if value else f"--no{name}")
            else:
                flags.append(f"--{name}={value}")
        return flags


def load_table(table: str) -> list[Published]:
    """Returns the rows of a table in the paper's order."""
    rows = [
        Published(name=path.stem, **json.loads(path.read_text()))
        for path in sorted(_FOLDER.glob("*.json"))
    ]
    return sorted((row for row in rows if row.table == table), key=lambda r: r.order)
