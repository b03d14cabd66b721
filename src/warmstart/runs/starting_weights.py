"""Start a fit from another run: ``ckpt`` resumes its whole state, ``ckpt_weights`` copies weights only.

    python run.py encoder=bert decoder=gpt2 ckpt=runs/a data=news                        # with optimizer and schedule
    python run.py encoder=bert decoder=gpt2 ckpt_weights=runs/a bridge.lora=decoder      # a second stage

``ckpt_weights`` copies the encoder, the decoder and the cross-attention, each only if it is the same in both runs.
Settings and vocabularies are compared, because equal shapes prove nothing: bert-base and e5-base have the same shapes.
"""

import logging
from pathlib import Path
from typing import Any

from warmstart.config.schema import Config, plain
from warmstart.errors import UserError
from warmstart.runs.saved_model import SavedModel

_log = logging.getLogger(__name__)
_SHOWN = 10
_ROLES = {"encoder": "source", "decoder": "target"}  # the sides of a TokenizerPair
# Keys that may differ. Tokenizers are compared by their vocabularies, not by their paths.
_FREE = {
    **dict.fromkeys(("encoder", "decoder"), ("name", "tokenizer")),
    "bridge": ("init", "warmup_steps", "dropout"),
}


def fault_of_start(settings: Config) -> str | None:
    """Return what is wrong with ``ckpt_weights``, or None."""
    if settings.ckpt_weights is None:
        return None
    if settings.ckpt not in (None, "last", "new"):
        return (
            f"ckpt={settings.ckpt} resumes a run, but ckpt_weights={settings.ckpt_weights} starts a new one. Set only "
            "one of them."
        )
    return SavedModel(settings.ckpt_weights, "ckpt_weights").fault


def check_same_pair(settings: Config, resume: SavedModel) -> None:
    """Check that encoder, decoder and bridge are those of the checkpoint to resume.

    Raises:
        UserError: they differ.
    """
    recorded = resume.config
    found = [line for group in _FREE for line in _differences(settings, recorded, group)]
    if found:
        pair = " x ".join(str(recorded.get(role, {}).get("name")) for role in ("encoder", "decoder"))
        weights = resume.folder if settings.ckpt == "last" else settings.ckpt
        raise UserError(
            f"ckpt={settings.ckpt} ({pair}) cannot be resumed by this fit ({settings.encoder.name} x "
            f"{settings.decoder.name}): they differ in {_listed(found)}. To start a new fit from the weights that both "
            f"have in common, set ckpt_weights={weights} instead."
        )


def unchanged_tokenizers(settings: Config, resume: SavedModel) -> dict[str, Any]:
    """Load the checkpoint's tokenizers whose settings have not changed since.

    Returns:
        Tokenizers by role: ``encoder``, ``decoder``, both or none.

    Raises:
        UserError: they are missing, damaged, or not those of the checkpoint.
    """
    pair = resume.tokenizers()
    now, before = plain(settings), resume.config
    named = {
        role: [of.get(role, {}).get(key) for of in (now, before) for key in ("tokenizer", "path")] for role in _ROLES
    }
    same = [role for role, values in named.items() if role not in before or values[:2] == values[2:]]
    return {role: getattr(pair, side) for role, side in _ROLES.items() if role in same}


def check_same_tokenizers(settings: Config, resume: SavedModel, tokenizers: Any) -> None:
    """Check that the fit's tokenizers are those of the checkpoint to resume.

    Raises:
        UserError: they encode the same text to different ids.
    """
    from warmstart.data.tokenization.pair import TokenizerPair

    folder = resume.checkpoints.tokenizers
    saved = TokenizerPair.load(folder)
    if saved.fingerprint() == tokenizers.fingerprint():
        return
    roles = {"encoder": (saved.source, tokenizers.source), "decoder": (saved.target, tokenizers.target)}
    other = [role for role, (before, now) in roles.items() if not _same_ids(before, now)] or list(roles)
    sizes = ", ".join(f"{role}: {len(roles[role][0])} tokens, here {len(roles[role][1])}" for role in other)
    folders = {role: folder / f"{role}_tokenizer" for role in other}
    # Since format 2 the decoder's tokenizer lies in the folder itself.
    options = " ".join(f"{role}.tokenizer={path if path.exists() else folder}" for role, path in folders.items())
    raise UserError(
        f"ckpt={settings.ckpt} was trained with another tokenizer ({sizes}), so its embeddings do not match the token "
        f"ids of this fit. Set {options}."
    )


def check_same_weights(settings: Config, resume: SavedModel, model: Any) -> None:
    """Check that the weights of the checkpoint to resume have the names and shapes of the model's.

    They differ if the folder of a pretrained model has changed since.

    Raises:
        UserError: they differ, or the checkpoint has no optimizer state.
    """
    from warmstart.runs.checkpoint_io import OPTIMIZER

    checkpoint = resume.checkpoint
    if OPTIMIZER not in checkpoint:
        raise UserError(
            f"ckpt={settings.ckpt} holds weights without an optimizer state, so a fit cannot resume it. Set "
            f"ckpt={resume.checkpoints.last}, or start a new fit from these weights: ckpt_weights={settings.ckpt}."
        )
    found = _mismatches({name.removeprefix("model."): v for name, v in checkpoint["state_dict"].items()}, model)
    if found:
        raise UserError(
            f"ckpt={settings.ckpt} does not fit the model that is now built from encoder={settings.encoder.name}, "
            f"decoder={settings.decoder.name} and bridge: {_listed(found)}. Restore the contents of encoder.path and "
            "decoder.path with which the checkpoint was trained."
        )


def start_from(settings: Config, model: Any, tokenizers: Any) -> None:
    """Copy the weights of ``ckpt_weights`` into the model, and log what was copied and what was not.

    Encoder, decoder and cross-attention are each copied if they are the same in both runs. Cross-attention is only
    copied together with both submodels. LoRA adapters of the other run are merged first; new adapters start at zero.

    Args:
        settings: the config of the fit.
        model: the new model; it is changed.
        tokenizers: its ``TokenizerPair``.

    Raises:
        UserError: no weight can be copied, a weight is not finite, or ``bridge.share`` differs.
    """
    import torch

    from warmstart.model.bridge.lora import is_lora, merge_lora
    from warmstart.runs.load import refuse_nonfinite

    given = str(settings.ckpt_weights)
    saved = SavedModel(given, "ckpt_weights")
    other, pair, _ = saved.load()
    refuse_nonfinite(f"ckpt_weights={given}", other)
    merge_lora(other)
    recorded = saved.config
    share = recorded.get("bridge", {}).get("share", settings.bridge.share.value)
    if settings.bridge.share.value not in ("none", share):
        raise UserError(
            f"ckpt_weights={given} was trained with bridge.share={share}, but this fit has "
            f"bridge.share={settings.bridge.share.value}: weights with different values cannot become shared. "
            f"Set bridge.share={share}."
        )
    left = {role: _differences(settings, recorded, role) for role in ("encoder", "decoder")}
    for role, before, now in (("encoder", pair.source, tokenizers.source), ("decoder", pair.target, tokenizers.target)):
        if not left[role] and not _same_ids(before, now):
            left[role] = [f"the {role}'s tokenizer"]
    left["cross-attention"] = [f"the {role}" for role in ("encoder", "decoder") if left[role]]
    graft = [{**(one.config.graft or {}), "dropout": None} for one in (other, model)]
    if not left["cross-attention"] and graft[0] != graft[1]:
        changed = sorted(name for name in graft[0] | graft[1] if graft[0].get(name) != graft[1].get(name))
        left["cross-attention"] = [
            f"bridge.{name} ({graft[0].get(name)}, here {graft[1].get(name)})" for name in changed
        ]
    weights, taken, kept = other.state_dict(), dict.fromkeys(left, 0), []
    part = _parts(model)
    with torch.no_grad():
        for name, value in model.state_dict().items():
            source = weights.get(name.replace(".base_layer.", "."))
            if is_lora(name) or left[part(name)]:
                continue
            if source is None or source.shape != value.shape:
                kept.append(
                    f"{name} ({'missing' if source is None else f'{list(source.shape)}, here {list(value.shape)}'})"
                )
                continue
            value.copy_(source)
            taken[part(name)] += 1
    if not any(taken.values()):
        raise UserError(
            f"ckpt_weights={given} has neither the encoder nor the decoder of this fit. Differences: "
            + " ".join(f"{name}: {_listed(why)}." for name, why in left.items() if why)
        )
    copied = ", ".join(f"{name} ({count} tensors)" for name, count in taken.items() if count)
    _log.info("Weights copied from %s: %s. Optimizer and schedule start over.", given, copied)
    for name, why in left.items():
        if why:
            _log.warning("Not copied from %s: %s, because these differ: %s.", given, name, _listed(why))
    if kept:
        _log.warning("Not copied from %s, because of other shapes: %s.", given, _listed(kept))


def _differences(settings: Config, recorded: dict[str, Any], group: str) -> list[str]:
    """Describe each key of a config group whose different value means different weights."""
    now, before = plain(settings)[group], recorded.get(group, {})
    keys = [key for key in now if key in before and key not in _FREE[group]]
    if group == "bridge" and now["lora"] == before.get("lora") == "none":
        keys = [key for key in keys if not key.startswith("lora_")]
    other = [key for key in keys if not _same(before[key], now[key])]
    if "path" in other:  # the path implies these two
        other = [key for key in other if key not in ("model_type", "architecture")]
    return [f"{group}.{key} ({before[key]}, here {now[key]})" for key in other]


def _same(before: Any, now: Any) -> bool:
    # An export records only the last component of a local path.
    return before == now or (isinstance(now, str) and Path(now).exists() and Path(now).name == before)


def _same_ids(before: Any, now: Any) -> bool:
    return bool(before.get_vocab() == now.get_vocab())


def _mismatches(weights: dict[str, Any], model: Any) -> list[str]:
    own = model.state_dict()
    found = [f"{name} is not in the checkpoint" for name in own if name not in weights]
    found += [f"{name} is not in the model" for name in weights if name not in own]
    both = ((name, list(weights[name].shape), list(own[name].shape)) for name in own if name in weights)
    return found + [f"{name} has shape {before}, here {now}" for name, before, now in both if before != now]


def _parts(model: Any) -> Any:
    from warmstart.model.decoders import cross_attention_modules

    across = tuple(f"decoder.{name}." for name in cross_attention_modules(model.decoder))

    def part(name: str) -> str:
        role = name.partition(".")[0]
        return role if role in ("encoder", "decoder") and not name.startswith(across) else "cross-attention"

    return part


def _listed(entries: list[str]) -> str:
    more = f" and {len(entries) - _SHOWN} more" if len(entries) > _SHOWN else ""
    return ", ".join(entries[:_SHOWN]) + more
