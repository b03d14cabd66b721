"""Write one HTML page that compares runs.

python run.py task=report sweep=runs/matrix           # short for runs/multirun/matrix
python run.py task=report 'runs=[runs/demo,runs/other]' output=compared.html
"""

from pathlib import Path

from warmstart.atomic import write_text
from warmstart.config.schema import Config
from warmstart.errors import UserError
from warmstart.printing import say


def run(settings: Config, run_dir: Path) -> None:
    """Write the page and print its path.

    Raises:
        UserError: no runs are named, or a named folder contains none.
    """
    from warmstart.report.collect import collect
    from warmstart.report.page import render

    if not settings.runs:
        raise UserError("task=report needs sweep=FOLDER or runs=[FOLDER,...]: a sweep's folder, or runs' folders.")
    folders = [_sweep_or_run(Path(folder)) for folder in settings.runs]
    runs = collect(folders)
    output = Path(settings.output) if settings.output else folders[0] / "report.html"
    page = render(runs, title=", ".join(folder.name for folder in folders), texts=settings.texts)
    write_text(output, page)
    counts = {status: sum(run.status == status for run in runs) for status in {run.status: 0 for run in runs}}
    by_status = ", ".join(f"{count} {status}" for status, count in counts.items())
    say(f"{output}: {len(runs)} runs ({by_status}), {len(page) / 1e6:.1f} MB")


def _sweep_or_run(folder: Path) -> Path:
    """Return the folder, or ``multirun/NAME`` next to it if only that exists: the folder of the sweep NAME."""
    sweep = folder.parent / "multirun" / folder.name
    return sweep if sweep.is_dir() and not folder.is_dir() else folder
