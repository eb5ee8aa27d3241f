"""Finished runs: opening the folder that --run names, and reporting on it."""

import shlex

import keras
from rich.console import Console

from avsdn_tf.cli.flags import to_flags
from avsdn_tf.data.dataset import Dataset
from avsdn_tf.errors import UserError
from avsdn_tf.evaluation import Predictions
from avsdn_tf.files import explain_unwritable
from avsdn_tf.report.run_report import read_history, write_run_report
from avsdn_tf.report.terminal import print_plainly, results_table
from avsdn_tf.run_folder import RunFolder
from avsdn_tf.training.config import CROSS_MODAL, Config
from avsdn_tf.training.tasks import restore_task


def open_run(
    run: str, labels_segments: bool = False
) -> tuple[RunFolder, Config, keras.Model]:
    """Open a run whose training has ended; `labels_segments` refuses other networks.

    Raises:
        UserError: If there is no such run, or it can't be read.
    """
    folder = RunFolder(run)
    folder.check_ended()
    config = Config.from_dict(folder.read_settings())
    if labels_segments and config.mode == CROSS_MODAL:
        raise UserError(
            f"Expected a run that labels segments. Received one of mode {CROSS_MODAL}, "
            "which compares sound with picture.",
            field="run",
            value=run,
        )
    return folder, config, folder.load_model()


def disclaimer_of(folder: RunFolder) -> str | None:
    """Return what must be said of all results of a run, or None."""
    report = folder.read_report()
    # Version 0.1.0 wrote "notice".
    return report.get("disclaimer") or report.get("notice")


def report_run(
    console: Console,
    folder: RunFolder,
    config: Config,
    dataset: Dataset,
    model: keras.Model,
) -> None:
    """Score the test split, write outputs and report, and print the scores.

    Raises:
        UserError: If the data set doesn't fit the network, outputs are not finite, or a
            file can't be written.
    """
    task = restore_task(model, config, dataset)
    history = read_history(folder)
    scores, outputs = task.evaluate("test")
    right, total = task.score_validation()
    with explain_unwritable(folder.predictions, "Make space, and repeat the command."):
        outputs.save(folder.predictions)
    title = f"{config.model}, {config.mode}, on {config.dataset}"
    report = write_run_report(
        folder,
        title=title,
        disclaimer=dataset.disclaimer,
        command=shlex.join(["python", "-m", "avsdn_tf.main", *to_flags(config)]),
        settings=config.to_dict(),
        history=history,
        scores={
            **scores,
            "validation_accuracy": float(right / total),
            "dataset_hash": dataset.content_hash(),
        },
        predictions=outputs if isinstance(outputs, Predictions) else None,
        categories=dataset.categories,
    )
    console.print(results_table(report, title, dataset.disclaimer))
    print_plainly(console, f"Run folder: {folder.path}\nPage to open: {folder.page}")
