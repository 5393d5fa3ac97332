"""Tokenizer files for the C tests, with the ids and texts of the `tokenizers` library. The format is in tests/data/tokenizers/README.md."""

import argparse
import contextlib
import json
import os
import struct
import zlib
from pathlib import Path

import tokenizers
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from tokenizer_strings import Strings

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "tests/data/tokenizers"
CORPUS = ROOT / "tests/data/corpus/tinyshakespeare.txt"
COUNT, FULL_EVERY, SWEEP_BLOCK = 10000, 16, 256
FORGED = 1  # in the library merges lead to a special token or past it, or it is a word; the product must not let them
SWEEP = [(0, 0xD800), (0xE000, 0x40000), (0xE0000, 0xE0200)]

CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
LAST = r"\s*[\r\n]+|\s+(?!\S)|\s+"
LLAMA3 = CONTRACTIONS + r"|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|" + LAST
QWEN2 = LLAMA3.replace("{1,3}", "")
TEKKEN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|"
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|" + LAST
)

# Added tokens: their spelling is the same everywhere, their options move by one from tokenizer to tokenizer.
ADDED = ["<|im_start|>", "<|im", "[INST]", "tool", "na\u00efve", "na\u00efvet\u00e9", "\u65e5\u672c", "  ", "\n\n", "\u2126", " x", "e\u0301!", "\u2581\u2581\u2581", "Ab"]
OPTIONS = [  # lstrip, rstrip, single_word, normalized, special
    "s", "", "n", "w", "ln", "rn", "lrs", "wn", "lw", "rws", "lrn", "r", "ns", "l",
]


def added(index, vocab_ids):
    """The library numbers those that the vocabulary lacks from its end on, whatever the file says."""
    out, next_id = [], len(vocab_ids)
    for i, content in enumerate(ADDED):
        options = OPTIONS[(i + index * 3) % len(OPTIONS)]
        next_id += content not in vocab_ids
        out.append({
            "id": vocab_ids.get(content, next_id - 1), "content": content, "single_word": "w" in options, "lstrip": "l" in options, "rstrip": "r" in options,
            "normalized": "n" in options, "special": "s" in options,
        })
    return out


def byte_level(prefix=False, regex=False):
    return {"type": "ByteLevel", "add_prefix_space": prefix, "trim_offsets": True, "use_regex": regex}


def split(pattern, behavior="Isolated", invert=False):
    return {"type": "Split", "pattern": {"Regex": pattern}, "behavior": behavior, "invert": invert}


def sequence(kind, *items):
    return {"type": "Sequence", kind: list(items)}


def metaspace(scheme, cut):
    return {"type": "Metaspace", "replacement": "\u2581", "prepend_scheme": scheme, "split": cut}


def template(name, token_id):
    token = {"SpecialToken": {"id": name, "type_id": 0}}
    text = [{"Sequence": {"id": x, "type_id": 0}} for x in "AB"]
    return {
        "type": "TemplateProcessing", "single": [token, text[0]], "pair": [token, text[0], token, text[1]],
        "special_tokens": {name: {"id": name, "ids": [token_id], "tokens": [name]}},
    }


REPLACE_MARK = {"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "}
SPM_DECODER = sequence("decoders", REPLACE_MARK, {"type": "ByteFallback"}, {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0})
SPM_NORMALIZER = sequence(
    "normalizers", {"type": "Prepend", "prepend": "\u2581"}, {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"}
)

# size: of the trained vocabulary; old: merges as "a b"; bytes: fallback tokens, each: only that many of the 256.
CASES = {
    "gpt2": {"pre": byte_level(regex=True), "old": True},
    "gpt2-prefix": {"pre": byte_level(prefix=True, regex=True), "size": 1000},
    "llama3": {"pre": sequence("pretokenizers", split(LLAMA3), byte_level()), "model": {"ignore_merges": True}, "bos": True},
    "qwen2": {"pre": sequence("pretokenizers", split(QWEN2), byte_level()), "normalizer": {"type": "NFC"}, "old": True},
    "smollm": {"pre": sequence("pretokenizers", {"type": "Digits", "individual_digits": True}, byte_level(regex=True)), "old": True},
    "tekken": {"pre": sequence("pretokenizers", split(TEKKEN), byte_level()), "model": {"ignore_merges": True}},
    "spm-normalizer": {"normalizer": SPM_NORMALIZER, "bytes": 256, "model": {"fuse_unk": True}, "old": True, "bos": True, "decoder": SPM_DECODER},
    "spm-metaspace": {"pre": metaspace("first", False), "bytes": 256, "model": {"fuse_unk": True}, "bos": True, "decoder": SPM_DECODER},
    "spm-words": {"pre": metaspace("always", True), "bytes": 256, "size": 1000, "decoder": metaspace("always", True)},
    "spm-few-bytes": {"pre": metaspace("never", False), "bytes": 0xC8, "size": 1000, "model": {"fuse_unk": True}, "decoder": SPM_DECODER},
    "plain-spaces": {"bytes": 256, "size": 1000, "decoder": sequence("decoders", {"type": "ByteFallback"}, {"type": "Fuse"})},
}


def train(case, lines):
    """Vocabulary (in id order) and merges of the library's trainer."""
    tok = Tokenizer(models.BPE())
    for name in ("normalizer", "pre"):
        if name in case:
            spec = json.loads(tok.to_str())
            spec["normalizer" if name == "normalizer" else "pre_tokenizer"] = case[name]
            tok = Tokenizer.from_str(json.dumps(spec))
    alphabet = [] if "bytes" in case else pre_tokenizers.ByteLevel.alphabet()
    limit = {"limit_alphabet": 300} if "bytes" in case else {}
    trainer = trainers.BpeTrainer(vocab_size=case.get("size", 2000), initial_alphabet=alphabet, show_progress=False, **limit)
    tok.train_from_iterator(lines, trainer)
    model = json.loads(tok.to_str())["model"]
    return sorted(model["vocab"], key=model["vocab"].get), model["merges"], tok


def whole_words(tok, lines, vocab):
    """Frequent words that no merges lead to; only `ignore_merges` may give them."""
    count, known = {}, set(vocab)
    for line in lines:
        if tok.pre_tokenizer:
            line = line if not tok.normalizer else tok.normalizer.normalize_str(line)
            for word, _ in tok.pre_tokenizer.pre_tokenize_str(line):
                count[word] = count.get(word, 0) + 1
    return [w for w in sorted(count, key=lambda w: (-count[w], w)) if w not in known][:150]


def make(index, case, lines):
    vocab, merges, tok = train(case, lines)
    vocab += whole_words(tok, lines, vocab)
    if "bytes" in case:
        vocab = ["<unk>", "<s>", "</s>"] + ["<0x%02X>" % b for b in range(case["bytes"])] + [t for t in vocab if t not in ("<unk>", "<s>", "</s>")]
        merges += [m for m in (["\u2581", "\u2581"], ["\u2581\u2581", "\u2581\u2581"]) if m not in merges and m[0] in vocab]
        vocab += [t for t in ("\u2581\u2581", "\u2581\u2581\u2581\u2581") if t not in vocab]
    else:
        vocab = ["<s>"] + vocab
    first = {"id": vocab.index("<s>"), "content": "<s>", "single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    vocab_ids = {t: i for i, t in enumerate(vocab)}
    model = {
        "type": "BPE", "dropout": None, "unk_token": "<unk>" if "bytes" in case else None, "continuing_subword_prefix": None,
        "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": "bytes" in case, "ignore_merges": False,
        "vocab": vocab_ids, "merges": [" ".join(m) for m in merges] if case.get("old") else merges,
    } | case.get("model", {})
    return json.dumps({
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": [first] + added(index, vocab_ids), "normalizer": case.get("normalizer"),
        "pre_tokenizer": case.get("pre"), "post_processor": template("<s>", first["id"]) if case.get("bos") else byte_level(),
        "decoder": case.get("decoder", byte_level()), "model": model,
    }, ensure_ascii=False, separators=(",", ":"))


def sweep_texts():
    """Every code point in the places where its class matters. The C test builds the same texts."""
    for low, high in SWEEP:
        for block in range(low, high, SWEEP_BLOCK):
            yield "".join("a{0}B{0}1{0} {0}{0}!{0}tool{0}".format(chr(c)) for c in range(block, min(block + SWEEP_BLOCK, high)))


def ids_bytes(ids):
    return struct.pack("<%dI" % len(ids), *ids)


def answered(tok, text):
    """The library panics where an rstrip and an lstrip token claim the same space; such a string has no expected ids."""
    try:
        return tok.encode(text) is not None
    except BaseException as error:
        if type(error).__name__ != "PanicException":
            raise
        return False


@contextlib.contextmanager
def quiet():
    """The library writes of its panics to the descriptor of stderr."""
    kept, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)


def answers(tok, strings):
    encoded = [e.ids for e in tok.encode_batch(strings)]
    sweep = [e.ids for e in tok.encode_batch(list(sweep_texts()))]
    tok.encode_special_tokens = True  # of users: special tokens in the text stay text
    users = [e.ids for e in tok.encode_batch(strings)]
    bare = [e.ids for e in tok.encode_batch(strings, add_special_tokens=False)]
    tok.encode_special_tokens = False
    own = [zlib.crc32(s.encode()) for s in strings]
    kept = [zlib.crc32(tok.decode(ids, skip_special_tokens=False).encode()) for ids in encoded]
    # Taken out by id: the library's own skipping goes by spelling and keeps the tokens that normalisation respells.
    special = {i for i, token in tok.get_added_tokens_decoder().items() if token.special}
    merged = {"".join(m) for m in json.loads(tok.to_str())["model"]["merges"]} & {tok.id_to_token(i) for i in special}
    plain = [[i for i in ids if i not in special] for ids in encoded]
    skipped = [zlib.crc32(tok.decode(ids, skip_special_tokens=False).encode()) for ids in plain]
    sums = [zlib.crc32(ids_bytes(ids)) for ids in encoded]
    columns = [
        [len(ids) for ids in encoded],
        sums,
        [FORGED if special & set(b) or any(m in s for m in merged) else zlib.crc32(ids_bytes(u)) ^ a
         for s, u, b, a in zip(strings, users, bare, sums)],
        [a ^ b for a, b in zip(kept, own)],  # mostly 0, which compresses well
        [a ^ b for a, b in zip(skipped, kept)],
        [i for ids in encoded[::FULL_EVERY] for i in ids],
        [zlib.crc32(ids_bytes(ids)) for ids in sweep],
    ]
    return b"".join(struct.pack("<I", len(c)) + ids_bytes(c) for c in columns)


def training_lines(corpus, strings):
    return corpus[:300000].splitlines() + strings.text(30000)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--show", nargs=2, metavar=("NAME", "INDEX"), help="the library's answer for one string; INDEX s17 is text 17 of the sweep")
    args = parser.parse_args()
    if args.show:
        return show(*args.show)
    corpus = CORPUS.read_text()
    strings = Strings(corpus, ADDED + ["<s>", "<unk>"], 20251125)
    lines = training_lines(corpus, strings)
    specs = {name: make(index, case, lines) for index, (name, case) in enumerate(CASES.items())}
    toks = {name: Tokenizer.from_str(spec) for name, spec in specs.items()}
    with quiet():
        texts = strings.many(COUNT, lambda text: all(answered(tok, text) for tok in toks.values()))
    raw = [t.encode() for t in texts]
    packed = struct.pack("<I", len(raw)) + ids_bytes([len(r) for r in raw]) + b"".join(raw)
    (FOLDER / "strings.z").write_bytes(zlib.compress(packed, 9))
    for name, tok in toks.items():
        spec = specs[name].encode()
        spec += b" " * (-len(spec) % 4)
        (FOLDER / (name + ".z")).write_bytes(zlib.compress(struct.pack("<I", len(spec)) + spec + answers(tok, texts), 9))
        print("%-16s %5d tokens, %6d bytes" % (name, tok.get_vocab_size(), (FOLDER / (name + ".z")).stat().st_size), flush=True)
    print("tokenizers", tokenizers.__version__, sum(f.stat().st_size for f in FOLDER.glob("*.z")), "bytes in all")


def show(name, index):
    packed = zlib.decompress((FOLDER / "strings.z").read_bytes())
    count = struct.unpack_from("<I", packed)[0]
    lengths = struct.unpack_from("<%dI" % count, packed, 4)
    if index.startswith("s"):
        text = list(sweep_texts())[int(index[1:])]
    else:
        start = 4 + 4 * count + sum(lengths[:int(index)])
        text = packed[start:start + lengths[int(index)]].decode()
    case = zlib.decompress((FOLDER / (name + ".z")).read_bytes())
    tok = Tokenizer.from_str(case[4:4 + struct.unpack_from("<I", case)[0]].decode())
    answer = tok.encode(text)
    print(ascii(text))
    for token_id, token, span in zip(answer.ids, answer.tokens, answer.offsets):
        print(token_id, ascii(token), ascii(text[span[0]:span[1]]))
    print(ascii(tok.decode(answer.ids, skip_special_tokens=False)))


if __name__ == "__main__":
    main()
