"""A trained model on disk, as named by ``ckpt``: a checkpoint of a run, or an export.

    saved = SavedModel("runs/demo")
    model, tokenizers, _ = saved.load()

Each object reads and hashes its file at most once, because both take minutes for a large checkpoint.
"""

import logging
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple
from zipfile import is_zipfile

from warmstart.damaged_files import DamagedFile, read_yaml
from warmstart.errors import UserError, says_nothing_of_the_file
from warmstart.runs.run_dir import CheckpointDir, RunDir

OF_EXPORT = "run_config.yaml"
_log = logging.getLogger(__name__)


class Trained(NamedTuple):
    """A loaded model, in evaluation mode."""

    model: Any
    tokenizers: Any
    """A ``TokenizerPair``."""
    folder: Path
    """The run directory of the checkpoint, or the folder of the export."""


class SavedModel:
    """A model on disk; each file is only read when it is needed.

    Args:
        given: path of a run directory (its best checkpoint), a checkpoint file or an exported folder.
        option: the option that names it, for messages.
    """

    def __init__(self, given: str, option: str = "ckpt") -> None:
        """Keep the path."""
        self.given, self.named = given, f"{option}={given}"

    @cached_property
    def is_export(self) -> bool:
        """Whether the path is an exported folder, from ``task=export`` or ``save_pretrained``."""
        return (Path(self.given) / "config.json").exists()

    @cached_property
    def file(self) -> Path:
        """The checkpoint file; for a run directory the best checkpoint, or the last one if there is no best.

        Raises:
            UserError: there is no such file.
        """
        path = Path(self.given)
        if not path.exists():
            is_ckpt = self.named.startswith("ckpt=")
            last = "; ckpt=last is the last checkpoint of the run called name=" if is_ckpt else ""
            raise UserError(
                f"{self.named} was requested, but there is no such file or folder. Name a run directory, a .ckpt file "
                f"or an export{last}."
            )
        if not path.is_dir():
            return path
        folder = RunDir(path).checkpoints
        if folder.best.exists():
            return folder.best
        if folder.last.exists():
            _log.info("%s: there is no %s, so %s is read.", self.named, folder.best.name, folder.last.name)
            return folder.last
        raise UserError(
            f"{self.named}: {path} contains neither an export (config.json) nor checkpoints/{folder.best.name}. "
            "Name the folder of a run or of an export."
        )

    @property
    def fault(self) -> str | None:
        """Why the path names no model, without reading weights; None if it names one."""
        try:
            if not self.is_export:
                _ = self.hyper_parameters
        except UserError as error:
            return str(error)
        return None

    @property
    def checkpoints(self) -> CheckpointDir:
        """The folder of the checkpoint file and of its tokenizers."""
        return CheckpointDir(self.file.parent)

    @property
    def folder(self) -> Path:
        """The run directory of the checkpoint, or the folder of the export."""
        return Path(self.given) if self.is_export else self.checkpoints.run.path

    @cached_property
    def checkpoint(self) -> dict[str, Any]:
        """The contents of the checkpoint file. Tensors stay on disk until they are used.

        Raises:
            UserError: there is no such file, or it is damaged.
        """
        import torch

        try:
            checkpoint: dict[str, Any] = torch.load(self.file, map_location="cpu", weights_only=True, mmap=True)
            if not isinstance(checkpoint["hyper_parameters"], dict):
                raise TypeError("its hyper_parameters are not a dict")
        except Exception as error:
            if says_nothing_of_the_file(error) or self._is_as_written():
                raise
            raise self._damaged(self.file, error) from error
        return checkpoint

    @cached_property
    def hyper_parameters(self) -> dict[str, Any]:
        """What the fit saved in the checkpoint in addition to weights: model config, settings, parameter counts."""
        found: dict[str, Any] = self.checkpoint["hyper_parameters"]
        return found

    def release(self) -> None:
        """Drop the tensors, so that the disk space of a replaced checkpoint is freed; ``hyper_parameters`` stay."""
        if "checkpoint" in self.__dict__:
            _ = self.hyper_parameters
            del self.__dict__["checkpoint"]

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the checkpoint file, or of the weights of an export."""
        from warmstart.runs.checkpoint_io import digest_of

        return digest_of(*(sorted(Path(self.given).glob("*.safetensors")) if self.is_export else [self.file]))

    @property
    def identity(self) -> dict[str, str]:
        """File name and SHA-256 of the weights, as ``result.json`` records them."""
        return {"name": RunDir(Path()).export.name if self.is_export else self.file.name, "sha256": self.digest}

    @cached_property
    def config(self) -> dict[str, Any]:
        """The settings of the run; an export has only some of them. Empty if none are recorded."""
        found: dict[str, Any] = self._record if self.is_export else self.hyper_parameters.get("config", {})
        return found

    @property
    def config_file(self) -> Path:
        """The file with these settings; it may be missing in an export."""
        return Path(self.given) / OF_EXPORT if self.is_export else self.file

    @property
    def parameters(self) -> dict[str, int] | None:
        """Parameter counts of the fit; None if they are not recorded, as in checkpoints of earlier versions."""
        found: dict[str, int] | None = (self._record if self.is_export else self.hyper_parameters).get("parameters")
        return found

    def tokenizers(self) -> Any:
        """Load the tokenizers that the model was trained with.

        Returns:
            A ``TokenizerPair``.

        Raises:
            UserError: they are missing, damaged, or not those of the checkpoint.
        """
        from warmstart.data.tokenization.pair import TokenizerPair

        if self.is_export:
            return TokenizerPair.load(Path(self.given))
        folder = self.checkpoints.tokenizers
        if not folder.is_dir():
            raise UserError(
                f"{self.file} was requested, but the tokenizers that it was trained with are missing: there is no "
                f"{folder}. Copy that folder from the run."
            )
        pair = TokenizerPair.load(folder)
        # Checkpoints of earlier versions do not record their vocabularies.
        if self.hyper_parameters.get("vocabularies", pair.vocabularies()) != pair.vocabularies():
            raise UserError(
                f"{self.file} was trained with other vocabularies than those of the tokenizers in {folder}. Copy that "
                "folder from the run."
            )
        return pair

    def load(self) -> Trained:
        """Load the model and its tokenizers.

        Raises:
            UserError: the path does not exist, the model is damaged or was not written by warmstart, or its tokenizers
                are missing.
        """
        model = self._model_of_export() if self.is_export else self._model_of_checkpoint()
        tokenizers = self.tokenizers()
        for role, tokenizer in (("encoder", tokenizers.source), ("decoder", tokenizers.target)):
            size = getattr(model.config, role).vocab_size
            if len(tokenizer) > size:
                raise UserError(
                    f"{self.named}: its {role} has embeddings for {size} tokens, but the {role}'s tokenizer has "
                    f"{len(tokenizer)} tokens. Restore the tokenizers that the model was trained with."
                )
        return Trained(model.eval(), tokenizers, self.folder)

    def _model_of_checkpoint(self) -> Any:
        from warmstart.model.variants import model_class
        from warmstart.runs.checkpoint_io import evaluated_weights

        checkpoint = self.checkpoint
        if not self._is_sound():
            raise UserError(
                f"{self.named}: checksum mismatch, {self.file} is damaged. Choose another checkpoint of the run."
            )
        try:
            config = checkpoint["hyper_parameters"]["model_config"]
            of_model = model_class(config)
            model = of_model(of_model.config_class(**config))
            weights = evaluated_weights(checkpoint)
            model.load_state_dict({name.removeprefix("model."): v for name, v in weights.items()})
        except Exception as error:  # a modified checkpoint raises dozens of unrelated types
            if says_nothing_of_the_file(error) or self._is_as_written():
                raise
            raise self._damaged(self.file, error) from error
        self.release()
        return model

    def _model_of_export(self) -> Any:
        import json

        from warmstart.model.variants import model_class

        folder = Path(self.given)
        try:
            of_model = model_class(json.loads((folder / "config.json").read_text(encoding="utf-8")))
            loaded: Any = of_model.from_pretrained(self.given, use_safetensors=True, output_loading_info=True)
        except Exception as error:  # without a checksum; a damaged file raises dozens of unrelated types
            if says_nothing_of_the_file(error):
                raise
            raise self._damaged(folder, error) from error
        model, info = loaded
        if missing := sorted(info["missing_keys"]):
            raise self._damaged(folder, KeyError(f"{len(missing)} weights are missing, such as {missing[0]}"))
        return model

    @cached_property
    def _record(self) -> dict[str, Any]:
        """The run's settings that an export records."""
        try:
            found: dict[str, Any] = read_yaml(Path(self.given) / OF_EXPORT)
        except FileNotFoundError:  # save_pretrained does not write it
            return {}
        except DamagedFile as error:
            raise UserError(f"{error} Export the model again.") from error
        return found

    def _is_sound(self) -> bool:
        """Return whether the file is intact, by its checksum, or by those within the file if it has none."""
        from warmstart.runs.checkpoint_io import is_sound, read_sums

        sums = read_sums(self.file.parent).get(self.file.name)
        return is_sound(self.file) if sums is None else self.digest in sums

    def _is_as_written(self) -> bool:
        """Return whether a checksum exists and matches; an error while loading is then not the file's fault."""
        from warmstart.runs.checkpoint_io import read_sums

        return self.file.name in read_sums(self.file.parent) and self._is_sound()

    def _damaged(self, path: Path, error: Exception) -> UserError:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        if path.is_file() and not is_zipfile(path):
            reason = "not a file of torch.save"
        return UserError(
            f"{self.named}: {path} is damaged or was not written by warmstart ({reason}). Choose another "
            "one; debug=true shows the traceback."
        )
