"""One HTML page that compares runs.

python run.py task=report sweep=runs/multirun/matrix
python run.py task=report 'runs=[runs/demo,runs/other]' output=compared.html
"""

from pathlib import Path

from warmstart.app.schema import Config
from warmstart.atomic import write_text
from warmstart.errors import UserError


def run(settings: Config, run_dir: Path) -> None:
    """Write the page, and say where it is."""
    from warmstart.report.collect import collect
    from warmstart.report.page import render

    if not settings.runs:
        raise UserError("task=report needs sweep=FOLDER or runs=[FOLDER,...]: a sweep's folder, or runs' folders.")
    folders = [Path(folder) for folder in settings.runs]
    runs = collect(folders)
    output = Path(settings.output) if settings.output else folders[0] / "report.html"
    page = render(runs, title=", ".join(folder.name for folder in folders), texts=settings.texts)
    write_text(output, page)
    counts = {status: sum(run.status == status for run in runs) for status in {run.status: 0 for run in runs}}
    said = ", ".join(f"{count} {status}" for status, count in counts.items())
    print(f"{output}: {len(runs)} runs ({said}), {len(page) / 1e6:.1f} MB")
