"""200 pairs of prediction and reference in each of five languages, made from templates, and tiny random models."""

import json
import random

import torch

_PARTS = {
    "en": (
        ["The mayor", "A teacher", "The river", "Our team", "An old bridge"],
        ["closed", "opened", "visited", "has rebuilt", "was watching"],
        ["the school", "three roads", "the running matches", "12,500 houses", "the museum of bridges"],
        ["on Monday.", "in 2024.", "after the storm.", "because it rained."],
        " ",
    ),
    "de": (
        ["Die Bürgermeisterin", "Ein Lehrer", "Der Fluss", "Unsere Mannschaft", "Eine alte Brücke"],
        ["schloss", "öffnete", "besuchte", "erneuerte", "überquerte"],
        ["die Schule", "drei Straßen", "die Spiele", "12.500 Häuser", "das Museum der Brücken"],
        ["am Montag.", "im Jahr 2024.", "nach dem Sturm.", "wegen des Regens."],
        " ",
    ),
    "hi": (
        ["महापौर ने", "एक शिक्षक ने", "नदी ने", "हमारी टीम ने", "पुराने पुल ने"],
        ["विद्यालय को", "तीन सड़कों को", "खेलों को", "12500 घरों को", "संग्रहालय को"],
        ["सोमवार को", "2024 में", "तूफ़ान के बाद", "वर्षा के कारण"],
        ["बंद किया।", "खोला।", "देखा।", "फिर से बनाया।"],
        " ",
    ),
    "zh": (
        ["市长", "一位老师", "这条河", "我们的球队", "一座旧桥"],
        ["星期一", "二〇二四年", "暴风雨之后", "因为下雨"],
        ["关闭了", "打开了", "参观了", "重建了"],
        ["学校。", "三条道路。", "比赛。", "12500座房屋。", "桥梁博物馆。"],
        "",
    ),
    "ar": (
        ["العمدة", "المعلم", "النهر", "فريقنا", "الجسر القديم"],
        ["أغلق", "فتح", "زار", "بنى", "شاهد"],
        ["المدرسة", "ثلاثة طرق", "المباريات", "12500 منزل", "متحف الجسور"],
        ["يوم الاثنين.", "في عام 2024.", "بعد العاصفة.", "بسبب المطر؟"],
        " ",
    ),
}


def _pairs(language):
    *slots, blank = _PARTS[language]
    rng = random.Random(language)

    def sentence():
        return blank.join(rng.choice(slot) for slot in slots)

    def text():
        return (blank or "").join(sentence() for _ in range(rng.choice((1, 1, 1, 2))))

    pairs = [(text(), text()) for _ in range(190)]
    same = [text() for _ in range(8)]
    return [*pairs, *((one, one) for one in same), ("", text()), (text().split()[0], text())]


PAIRS = {language: _pairs(language) for language in _PARTS}


def tiny_bert(folder):
    """Save a BERT of two layers with numbers from a formula as weights, and a tokenizer of the pairs' words."""
    from transformers import BertConfig, BertModel, BertTokenizer

    texts = [text for pairs in PAIRS.values() for pair in pairs for text in pair]
    characters = sorted({character for text in texts for character in text.lower() if not character.isspace()})
    vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *characters, *(f"##{one}" for one in characters)]
    tokenizer = BertTokenizer(vocab={word: i for i, word in enumerate(vocabulary)}, model_max_length=128)
    config = BertConfig(
        vocab_size=len(vocabulary), hidden_size=16, num_hidden_layers=3, num_attention_heads=2, intermediate_size=32
    )
    model = BertModel(config)
    _fill(model)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(folder)
    model.save_pretrained(folder)


def tiny_byte_level(folder, kind):
    """Save a RoBERTa or a GPT-2 like ``tiny_bert``, with a tokenizer of bytes that knows "The" and " The" as words."""
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import GPT2Config, GPT2Model, GPT2Tokenizer, RobertaConfig, RobertaModel, RobertaTokenizer

    merges = [("T", "h"), ("Th", "e"), ("\u0120", "The"), ("O", "u"), ("Ou", "r"), ("\u0120", "Our")]
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"] if kind == "roberta" else ["<|endoftext|>"]
    words = [*special, *sorted(ByteLevel.alphabet()), *("".join(merge) for merge in merges)]
    folder.mkdir(parents=True, exist_ok=True)
    # These two files are what tokenizers of transformers 4, which bert-score needs, are read from.
    (folder / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}))
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *(" ".join(merge) for merge in merges)]) + "\n")
    if kind == "roberta":
        sizes = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 32}
        model = RobertaModel(RobertaConfig(vocab_size=len(words), max_position_embeddings=514, **sizes))
        tokenizer = RobertaTokenizer.from_pretrained(folder, model_max_length=512)
    else:
        ends = {"bos_token_id": 0, "eos_token_id": 0}
        model = GPT2Model(GPT2Config(vocab_size=len(words), n_positions=512, n_embd=16, n_layer=3, n_head=2, **ends))
        tokenizer = GPT2Tokenizer.from_pretrained(folder, model_max_length=512)
    _fill(model)
    tokenizer.save_pretrained(folder)
    model.save_pretrained(folder)


def _fill(model):
    """Give a model numbers from a formula as weights."""
    # Numbers of torch's generator may differ between releases; the fraction of a large sine does not. The bias of the
    # norms makes cosines positive, as those of real encoders are.
    with torch.no_grad():
        for number, (name, weight) in enumerate(model.named_parameters()):
            if "LayerNorm" in name or ".ln_" in name or name.startswith("ln_"):
                weight.fill_(1.0 if name.endswith("weight") else 0.3)
            else:
                values = torch.sin(torch.arange(weight.numel(), dtype=torch.float64) + 1000 * number) * 43758.5453
                weight.copy_((values - values.floor() - 0.5).view_as(weight))
