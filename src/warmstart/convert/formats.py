"""Convert a model to the format of another runtime, and write the code that runs it there."""

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from string import Template
from typing import Any

from warmstart.config.evaluation import GenerationSettings, LengthPenaltyKind
from warmstart.config.model import NO_ENCODER
from warmstart.config.schema import ExportFormat
from warmstart.errors import UserError, install_extra

_PACKAGES = {ExportFormat.onnx: ("onnx", "onnxscript"), ExportFormat.ctranslate2: ("ctranslate2",)}

_USE = Template("""## Use

$about

```python
$imports
from transformers import AutoTokenizer

folder = "."  # this folder
encoder_tokenizer = AutoTokenizer.from_pretrained(folder, subfolder="encoder_tokenizer")
decoder_tokenizer = AutoTokenizer.from_pretrained(folder)
$code
print(decoder_tokenizer.decode(ids, skip_special_tokens=True).strip())
```

$search
""")

_ONNX = Template("""encode = onnxruntime.InferenceSession(f"{folder}/encode.onnx")
step = onnxruntime.InferenceSession(f"{folder}/step.onnx")

document = "The council met on Monday and voted to close the school."
source = encoder_tokenizer(document, truncation=True, max_length=$longest, return_tensors="np")
mask = source["attention_mask"]
values = encode.run(None, {"input_ids": source["input_ids"], "attention_mask": mask})
inputs = {output.name: value for output, value in zip(encode.get_outputs(), values)}
caches = [one for one in step.get_inputs() if one.name.startswith("past_")]
past = {one.name: np.zeros((1, one.shape[1], 0, one.shape[3]), np.float32) for one in caches}
ids, last = [], $start
while len(ids) < $most:
    token = {"decoder_input_ids": np.array([[last]]), "attention_mask": mask}
    logits, *present = step.run(None, inputs | past | token)
    past = dict(zip(past, present))
    if len(ids) < $least:
        logits[:, $ends] = -np.inf
    last = int(logits[0].argmax())
    if last in $ends:
        break
    ids.append(last)""")

_TORCH = Template("""encode = torch.export.load(f"{folder}/encode.pt2").module()
step = torch.export.load(f"{folder}/step.pt2").module()

document = "The council met on Monday and voted to close the school."
source = encoder_tokenizer(document, truncation=True, max_length=$longest, return_tensors="pt")
mask = source.attention_mask
values = encode(input_ids=source.input_ids, attention_mask=mask)
past = [torch.zeros(1, heads, 0, size) for heads, size in $shapes]
ids, last = [], $start
while len(ids) < $most:
    token = torch.tensor([[last]])
    logits, past = step(decoder_input_ids=token, attention_mask=mask, source=values, past=past)
    if len(ids) < $least:
        logits[:, $ends] = -torch.inf
    last = int(logits[0].argmax())
    if last in $ends:
        break
    ids.append(last)""")

_CTRANSLATE2 = Template("""translator = ctranslate2.Translator(folder, compute_type="float32")

document = "The council met on Monday and voted to close the school."
source = encoder_tokenizer(document, truncation=True, max_length=$longest)
tokens = encoder_tokenizer.convert_ids_to_tokens(source.input_ids)
(found,) = translator.translate_batch(
    [tokens],
    beam_size=$beams,
    length_penalty=$penalty,
    no_repeat_ngram_size=$no_repeat,
    min_decoding_length=$least,
    max_decoding_length=$most,
)
ids = decoder_tokenizer.convert_tokens_to_ids(found.hypotheses[0])""")

_GREEDY = (
    "The code is greedy search with the run's lengths. Blocked n-grams, beams and sampling are up to the program that "
    "calls the two graphs. Pad sources of a batch on the right."
)
_RENORMALIZED = (
    "The search is the run's, without sampling. CTranslate2 spreads the probability of a blocked token over the "
    "others, and transformers does not, so beams can differ where a minimum length or blocked n-grams take effect."
)


@dataclass(frozen=True)
class Search:
    """The search that the code of a card runs."""

    generation: GenerationSettings
    max_source_length: int
    """Longest source in tokens."""


def convert(to: ExportFormat, model: Any, tokenizers: Any, folder: Path, search: Search) -> tuple[str, str]:
    """Write a model in another format than safetensors.

    Args:
        to: The format.
        model: The joint model in float32, with merged adapters.
        tokenizers: Its pair of tokenizers.
        folder: An existing folder.
        search: The search that the code runs.

    Returns:
        Name of the library that runs the model, and the section "Use" of its card.

    Raises:
        UserError: The model cannot be converted, or the format's extra is not installed.
    """
    if tokenizers.marks.as_dict():
        raise UserError(
            f"format={to.value} is not possible: this model reads or writes marked sentences (data.source_form, "
            "data.target_form), which only warmstart makes. Set format=safetensors."
        )
    if any(find_spec(name) is None for name in _PACKAGES.get(to, ())):
        raise UserError(
            f"format={to.value} was requested, but its packages are not installed. {install_extra(to.value)}."
        )
    generation, config = search.generation, model.config
    if config.encoder.model_type == NO_ENCODER:
        raise UserError(
            f"format={to.value} was requested, but this model has no encoder (encoder=none), which the format needs. "
            "Set format=safetensors."
        )
    if config.prompt_ids:  # the settings may not record it, such as for a checkpoint that was made elsewhere
        raise UserError(
            f"format={to.value} was requested, but this model begins every target with a prompt of "
            f"{len(config.prompt_ids)} tokens (data.prompt, data.start_tokens), which the format cannot hold. Set "
            "format=safetensors."
        )
    ends = config.eos_token_id
    values: dict[str, Any] = {
        "longest": search.max_source_length,
        "start": config.decoder_start_token_id,
        "ends": ends if isinstance(ends, list) else [ends],
        "least": generation.min_new_tokens,
        "most": generation.max_new_tokens,
    }
    if to is ExportFormat.onnx:
        from warmstart.convert import to_onnx

        to_onnx.write(model, folder)
        about = "ONNX Runtime runs this model: `encode.onnx` reads a source, and `step.onnx` writes one token."
        imports = "import numpy as np\nimport onnxruntime"
        return "onnx", _use(about, imports, _ONNX.substitute(values), _GREEDY)
    if to is ExportFormat.torch_export:
        from warmstart.convert import to_torch_export

        values["shapes"] = to_torch_export.write(model, folder)
        about = "torch runs this model without warmstart: `encode.pt2` reads a source, and `step.pt2` writes one token."
        return "pytorch", _use(about, "import torch", _TORCH.substitute(values), _GREEDY)
    from warmstart.convert import to_ctranslate2

    to_ctranslate2.write(model, _tokens(tokenizers.source), _tokens(tokenizers.target), folder)
    values["beams"], values["no_repeat"] = generation.num_beams, generation.no_repeat_ngram_size
    values["penalty"] = generation.length_penalty if generation.num_beams > 1 else 1.0
    about = 'CTranslate2 runs this model. `compute_type="int8"` needs less memory, and its texts may differ.'
    if generation.no_repeat_word_ngram_size or generation.length_penalty_kind is not LengthPenaltyKind.transformers:
        about += " It has no blocked n-grams of words and no GNMT length penalty, so its search is not the run's."
    return "ctranslate2", _use(about, "import ctranslate2", _CTRANSLATE2.substitute(values), _RENORMALIZED)


def _use(about: str, imports: str, code: str, search: str) -> str:
    return _USE.substitute(about=about, imports=imports, code=code, search=search)


def _tokens(tokenizer: Any) -> list[str]:
    """Return the tokens by id; an id without a token gets a name of its own."""
    named = {i: token for token, i in tokenizer.get_vocab().items()}
    return [named.get(i, f"<unused_{i}>") for i in range(1 + max(named))]
