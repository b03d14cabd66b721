"""A trained model on disk, as ``ckpt=`` names it: a checkpoint of a run, or an export.

    saved = SavedModel("runs/demo")
    model, tokenizers, _ = saved.load()

Whatever is asked of the object, its file is read once and hashed once: both take minutes where it is large.
"""

from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from warmstart.damaged_files import DamagedFile, read_yaml
from warmstart.errors import UserError, says_nothing_of_the_file
from warmstart.runs.run_dir import CheckpointDir, RunDir

OF_EXPORT = "run_config.yaml"


class Trained(NamedTuple):
    """A model that was loaded, in evaluation mode."""

    model: Any
    tokenizers: Any
    """A ``TokenizerPair``."""
    folder: Path
    """The run directory of the checkpoint, or the folder of the export."""


class SavedModel:
    """What a path names. Nothing is read before it is needed.

    Args:
        given: a run directory (its best checkpoint), a checkpoint file or an exported folder.
    """

    def __init__(self, given: str) -> None:
        """Keep the path."""
        self.given = given

    @cached_property
    def is_export(self) -> bool:
        """Whether ``task=export`` or ``save_pretrained`` wrote the folder."""
        return (Path(self.given) / "config.json").exists()

    @cached_property
    def file(self) -> Path:
        """The checkpoint file; of a run directory the best one, else the last one.

        Raises:
            UserError: there is none.
        """
        path = Path(self.given)
        if not path.exists():
            raise UserError(
                f"ckpt={self.given} was asked for, but nothing is there. Name a run directory, a .ckpt or an export; "
                "ckpt=last is the last checkpoint of the run that name= says."
            )
        if not path.is_dir():
            return path
        folder = RunDir(path).checkpoints
        for file in (folder.best, folder.last):
            if file.exists():
                return file
        raise UserError(
            f"ckpt={self.given}: {path} holds neither an export (config.json) nor checkpoints/{folder.best.name}."
        )

    @property
    def checkpoints(self) -> CheckpointDir:
        """The folder of the checkpoint file, where its tokenizers are, too."""
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
                raise TypeError("its hyper_parameters are no dict")
        except Exception as error:
            if says_nothing_of_the_file(error) or self._is_as_written():
                raise
            raise self._damaged(self.file, error) from error
        return checkpoint

    @cached_property
    def hyper_parameters(self) -> dict[str, Any]:
        """What the fit recorded next to the weights: model config, settings, parameter counts."""
        found: dict[str, Any] = self.checkpoint["hyper_parameters"]
        return found

    def release(self) -> None:
        """Let go of the tensors, so that the disk space of a replaced checkpoint is freed; the rest stays known."""
        if "checkpoint" in self.__dict__:
            _ = self.hyper_parameters
            del self.__dict__["checkpoint"]

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the checkpoint, or of an export's weights."""
        from warmstart.runs.checkpoint_io import digest_of

        return digest_of(*(sorted(Path(self.given).glob("*.safetensors")) if self.is_export else [self.file]))

    @property
    def identity(self) -> dict[str, str]:
        """Name and digest of the weights: what a result says it is a result of."""
        return {"name": RunDir(Path()).export.name if self.is_export else self.file.name, "sha256": self.digest}

    @cached_property
    def config(self) -> dict[str, Any]:
        """The settings that the run recorded, of an export those that it keeps; empty where there are none."""
        found: dict[str, Any] = self._record if self.is_export else self.hyper_parameters.get("config", {})
        return found

    @property
    def config_file(self) -> Path:
        """The file that holds these settings; an export need not have it."""
        return Path(self.given) / OF_EXPORT if self.is_export else self.file

    @property
    def parameters(self) -> dict[str, int] | None:
        """The parameters that the fit counted; None in a checkpoint of an earlier version and in other exports."""
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
                f"{folder}. Copy that folder of its run there."
            )
        pair = TokenizerPair.load(folder)
        # Checkpoints of earlier versions do not name their vocabularies.
        if self.hyper_parameters.get("vocabularies", pair.vocabularies()) != pair.vocabularies():
            raise UserError(
                f"{self.file} was trained with other vocabularies than those of the tokenizers in {folder}. Copy the "
                "folder of its run there."
            )
        return pair

    def load(self) -> Trained:
        """Load the model and its tokenizers.

        Raises:
            UserError: nothing is there, it is damaged or not ours, or its tokenizers are missing.
        """
        model = self._model_of_export() if self.is_export else self._model_of_checkpoint()
        tokenizers = self.tokenizers()
        for role, tokenizer in (("encoder", tokenizers.source), ("decoder", tokenizers.target)):
            size = getattr(model.config, role).vocab_size
            if len(tokenizer) > size:
                raise UserError(
                    f"ckpt={self.given}: its {role} knows {size} tokens, but its {role}'s tokenizer has "
                    f"{len(tokenizer)}. They are not of one model; restore the folder of tokenizers."
                )
        return Trained(model.eval(), tokenizers, self.folder)

    def _model_of_checkpoint(self) -> Any:
        from warmstart.model.configuration import EncoderDecoderConfig
        from warmstart.model.modeling import EncoderDecoderModel

        checkpoint = self.checkpoint
        if not self._is_sound():
            raise UserError(
                f"ckpt={self.given}: {self.file} is damaged: its checksum is another. Name another checkpoint of the "
                "run."
            )
        try:
            model = EncoderDecoderModel(EncoderDecoderConfig(**checkpoint["hyper_parameters"]["model_config"]))
            model.load_state_dict({name.removeprefix("model."): v for name, v in checkpoint["state_dict"].items()})
        except Exception as error:  # a checkpoint that somebody changed raises dozens of unrelated types
            if says_nothing_of_the_file(error) or self._is_as_written():
                raise
            raise self._damaged(self.file, error) from error
        self.release()
        return model

    def _model_of_export(self) -> Any:
        from warmstart.model.modeling import EncoderDecoderModel

        folder = Path(self.given)
        try:
            loaded: Any = EncoderDecoderModel.from_pretrained(
                self.given, use_safetensors=True, output_loading_info=True
            )
        except Exception as error:  # there is no checksum, and a damaged file raises dozens of unrelated types
            if says_nothing_of_the_file(error):
                raise
            raise self._damaged(folder, error) from error
        model, info = loaded
        if missing := sorted(info["missing_keys"]):
            raise self._damaged(folder, KeyError(f"{len(missing)} weights are not there, such as {missing[0]}"))
        return model

    @cached_property
    def _record(self) -> dict[str, Any]:
        """What an export keeps of the run's settings."""
        try:
            found: dict[str, Any] = read_yaml(Path(self.given) / OF_EXPORT)
        except FileNotFoundError:  # of save_pretrained alone
            return {}
        except DamagedFile as error:
            raise UserError(f"{error} Export the model again.") from error
        return found

    def _is_sound(self) -> bool:
        """Whether the file is what was written: by its checksum, or by its parts' where it has none."""
        from warmstart.runs.checkpoint_io import is_sound, read_sums

        sums = read_sums(self.file.parent).get(self.file.name)
        return is_sound(self.file) if sums is None else self.digest in sums

    def _is_as_written(self) -> bool:
        """Whether the checksum is there and agrees: whatever fails then is no fault of the file."""
        from warmstart.runs.checkpoint_io import read_sums

        return self.file.name in read_sums(self.file.parent) and self._is_sound()

    def _damaged(self, place: Path, error: Exception) -> UserError:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        return UserError(
            f"ckpt={self.given}: {place} is damaged or not ours ({reason}). debug=true shows the traceback."
        )
