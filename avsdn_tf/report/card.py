"""Write the model card of a shared run."""

import pathlib

from avsdn_tf.errors import UserError
from avsdn_tf.report.scores import list_scores, title_of
from avsdn_tf.report.templating import render
from avsdn_tf.run_folder import RunFolder


def write_card(path: pathlib.Path, folder: RunFolder, repo_id: str) -> None:
    """Write the model card of a run that is shared in the repository `repo_id`.

    Raises:
        UserError: If the run's files can't be read.
    """
    report = folder.read_report()
    try:
        title, scores = title_of(report), list_scores(report)
    except (KeyError, TypeError) as error:
        raise UserError(
            f"{folder.report}: expected the report of a finished run. Received a "
            f"report without its scores: {error}"
        ) from error
    settings = folder.read_settings()
    # Don't publish local paths.
    settings.pop("data_dir", None)
    text = render(
        "card.md",
        title=title,
        repo_id=repo_id,
        disclaimer=report.get("disclaimer"),
        scores=scores,
        settings=settings,
        versions=folder.read_versions(),
    )
    path.write_text(text, encoding="utf-8")
