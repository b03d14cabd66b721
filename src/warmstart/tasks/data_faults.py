"""Find what contradicts itself in the ``data`` group of a config, without reading the data."""

from pathlib import Path

from warmstart.config.data import DataKind, DataSettings, Objective
from warmstart.config.model import PACKAGE_FILE
from warmstart.config.own_files import is_own_file
from warmstart.data.sources.base import SPLITS
from warmstart.data.sources.own_paths import is_no_hub_id, is_there, missing
from warmstart.errors import UserError, listed


def faults_of_data(data: DataSettings) -> list[str]:
    """Return one message for each invalid setting; an empty list if all are valid."""
    from warmstart.data.cleaning import steps_named

    found = []
    try:
        steps_named(data.clean)
    except UserError as error:
        found.append(str(error))
    if data.kind is DataKind.files:
        options = ("path", "train_path", "validation_path", "test_path")
        named = {f"data.{name}": Path(path).expanduser() for name in options if (path := getattr(data, name))}
        if not named:
            found.append("data=files: set data.path or data.train_path to your file or folder.")
        found += [str(missing(option, path)) for option, path in named.items() if not is_there(path)]
    else:
        own = {name: getattr(data, name) for name in ("train_path", "validation_path", "test_path")}
        found += [
            f"data.{name}={path} is only read with data=files. Add data=files." for name, path in own.items() if path
        ]
        is_on_hub = data.kind in (DataKind.cnn_dailymail, DataKind.hub)
        if is_on_hub and data.path and is_own_file(data.path):
            found.append(
                f"data.path={data.path} is a file, but data={data.name} reads a data set of the hub. "
                f"Set data=files data.path={data.path}."
            )
        elif is_on_hub and data.path and is_no_hub_id(data.path) and not data.path.startswith(PACKAGE_FILE):
            folder = Path(data.path).expanduser()
            found += [] if is_there(folder) else [str(missing("data.path", folder))]
        elif data.kind is DataKind.written and data.path:
            found.append(
                f"data.path={data.path} is not read with data={data.name}, whose texts are synthetic. Set data=files."
            )
    if data.raw_targets and data.kind is not DataKind.short_descriptions:
        found.append("data.raw_targets=true is an option of data=short_descriptions only. Remove it.")
    elif data.raw_targets and data.objective is not Objective.summary:
        found.append(
            f"data.raw_targets=true has no effect with data.objective={data.objective.value}, which reads no "
            "targets. Remove one of them."
        )
    if data.raw_targets and not data.raw_splits:
        found.append("data.raw_targets=true needs a split in data.raw_splits. Name one, or set data.raw_targets=false.")
    if list(data.raw_splits) != list(SPLITS) and data.kind is not DataKind.short_descriptions:
        found.append("data.raw_splits is an option of data=short_descriptions only. Remove it.")
    if unknown := [name for name in data.raw_splits if name not in SPLITS]:
        found.append(f"data.raw_splits has {listed(unknown)}. Choose from {listed(SPLITS)}.")
    return found
