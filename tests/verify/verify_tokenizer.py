"""Compares nibl's tokenizer and chat templates with Hugging Face's tokenizers and with Jinja, live.

1. Token ids of 20,000 records (prose, code, numbers, scripts, emoji, combining marks, ill-formed UTF-8, every
   special token) with the default model's vocabulary, for each pre-tokenizer; and the text that comes back.
2. The words every Unicode code point is cut into, for each pre-tokenizer.
3. Streamed decoding of random tokens against Python's incremental decoder, piece by piece.
4. Normalization form C of all code points, alone, after others and in random rows, against unicodedata2.
5. Chat templates, known ones and seeded changes of them, against Jinja: those accepted must be written alike.

Needs tests/fixtures/setup.sh, the default model, npm and a build. Exits with 0 only if nothing differs.
"""

import argparse
import codecs
import ctypes
import pathlib
import random
import re
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "fixtures" / "tokenizer"))
import tools

tools.install()

import corpus
import make_template
import reference
import unicodedata2
from gguf import GGUFReader
from nibl import Nibl, Report

RECORDS, SEED = 20000, 7
SPECIAL = 1
# Falcon's splits some words inside of characters, as its own vocabulary never merges: verify_families.py has it.
PRE = [pre for pre in reference.PRE if pre != "falcon"]


def read_code():
    """Lines of Python's own library."""
    folder = pathlib.Path(codecs.__file__).parent
    texts = [(folder / f"{name}.py").read_text() for name in ("argparse", "_pydecimal", "tarfile")]
    return [line for text in texts for line in text.split("\n") if line.strip()]


def with_pre(header, pre):
    """The header's bytes with another pre-tokenizer named in them."""
    key = b"tokenizer.ggml.pre\x08\0\0\0"
    at = header.index(key) + len(key)
    length = int.from_bytes(header[at : at + 8], "little")
    return header[:at] + len(pre).to_bytes(8, "little") + pre.encode() + header[at + 8 + length :]


def token_bytes(model):
    """What each token stands for; nothing for control tokens."""
    fields = GGUFReader(model).fields
    tokens, types = (fields[f"tokenizer.ggml.{key}"].contents() for key in ("tokens", "token_type"))
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    alphabet = {chr(b): b for b in printable}
    alphabet |= {chr(256 + i): b for i, b in enumerate(b for b in range(256) if b not in printable)}
    return [b"" if kind == 3 else bytes(alphabet[c] for c in token) for token, kind in zip(tokens, types)]


def compare_ids(nibl, report, model, records):
    header = model.open("rb").read(8 << 20)
    lost = bytes(set(range(256)) - {b for text in token_bytes(model) for b in text})
    for pre in PRE:
        theirs, _ = reference.from_gguf(model, pre)
        ours = nibl.tokenizer(with_pre(header, pre))
        wrong, back = [], []
        for special, data in records:
            wanted = reference.encode(theirs, special, data)
            got = nibl.encode(ours, data, SPECIAL if special else 0)
            if wanted != got:
                wrong.append((special, data, wanted, got))
            text = data.decode("utf-8", "replace")
            text = unicodedata2.normalize("NFC", text) if pre in reference.NFC else text
            text = text.encode().translate(None, lost)
            if nibl.decode(ours, wanted) != text:
                back.append((data, nibl.decode(ours, wanted)))
        report.line(f"{pre}: ids of records", len(records), wrong)
        report.line(f"{pre}: their text again", len(records), back)
    return ours


def compare_words(nibl, report):
    """Code points between others: all where some are assigned, some of the rest; many in one text, for speed."""
    empty = range(0x32000, 0xE0000)
    codes = [c for c in range(0xE1000) if not 0xD800 <= c < 0xE000 and (c not in empty or c % 97 == 0)]
    around = lambda c: f"a{c} {c}1 {c}!B{c}c{c}{c}'{c}\n"
    for pre in PRE:
        splitter, wrong = reference.PRE[pre](), []
        for first in range(0, len(codes), 64):
            text = "".join(around(chr(code)) for code in codes[first : first + 64])
            at, ends = 0, []
            for _, (a, b) in splitter.pre_tokenize_str(text):
                at += len(text[a:b].encode())
                ends.append(at)
            if nibl.words(pre, text.encode()) != ends:
                wrong.append(hex(codes[first]))
        report.line(f"{pre}: words around code points", len(codes), wrong)


def compare_streams(nibl, report, model, tokenizer):
    raw = token_bytes(model)
    single = [i for i, text in enumerate(raw) if len(text) == 1 and text[0] >= 0x80]
    rng, wrong, streams = random.Random(SEED), [], 2000
    decoder = ctypes.c_void_p()
    nibl.check(nibl.c.nibl_tokenizer_decoder(tokenizer, False, ctypes.byref(decoder)))
    for _ in range(streams):
        ids = [
            rng.choice(single) if rng.random() < 0.7 else rng.randrange(len(raw))
            for _ in range(rng.randrange(1, 60))
        ]
        python = codecs.getincrementaldecoder("utf-8")("replace")
        wanted = [python.decode(raw[i]).encode() for i in ids] + [python.decode(b"", True).encode()]
        got = list(nibl.pieces(decoder, ids + [-1]))
        # Python holds the first two bytes of a surrogate back, for 'surrogatepass': then only the whole agrees.
        surrogate = re.search(rb"\xed[\xa0-\xbf]", b"".join(raw[i] for i in ids))
        if b"".join(got) != b"".join(wanted) or (got != wanted and not surrogate):
            wrong.append([raw[i] for i in ids])
    report.line("streams of random tokens", streams, wrong)


def compare_normal_forms(nibl, report):
    """All code points alone and after others, and random rows of those that compose or are marks."""
    codes = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]
    texts = ["".join(map(chr, codes[i : i + 50])) for i in range(0, len(codes), 50)]
    texts += ["".join("a" + chr(c) + "x" for c in codes[i : i + 50]) for i in range(0, len(codes), 50)]
    busy = [c for c in codes if unicodedata2.combining(chr(c)) or unicodedata2.decomposition(chr(c))]
    busy += [*range(0x1100, 0x1200), *range(0xAC00, 0xAC40), *range(0x61, 0x7B), *range(0x41, 0x5B)]
    rng = random.Random(SEED)
    texts += ["".join(chr(rng.choice(busy)) for _ in range(12)) for _ in range(100000)]
    wrong = [t for t in texts if nibl.normalize(t.encode()) != unicodedata2.normalize("NFC", t).encode()]
    report.line("texts in normalization form C", len(texts), wrong)


BLANKS = [" ", "\n", "\t", "  \n "]
REPLACED = [("{{", "{{-"), ("}}", "-}}"), ("{%", "{%-"), ("%}", "-%}"), ("%}", "%}\n"), ("{%", "  {%")]
REPLACED += [("'", '"'), ("['role']", ".role"), ("\\n", "\n"), (" ", "  "), (" + ", "+")]


def changed(jinja, rng):
    """A template with some blanks put in, and some of what it says said differently."""
    for _ in range(rng.randrange(1, 6)):
        at = rng.randrange(len(jinja) + 1)
        if rng.random() < 0.4:
            jinja = jinja[:at] + rng.choice(BLANKS) + jinja[at:]
        else:
            jinja = jinja.replace(*rng.choice(REPLACED), rng.randrange(1, 9))
    return jinja


def compare_templates(nibl, report, model):
    """Both Jinjas must agree; where one refuses, nibl must."""
    rng, wrong, accepted, jobs = random.Random(SEED), [], 0, []
    sources = [make_template.own_template(model), *make_template.KNOWN, *make_template.published()]
    for source in sources:
        for round in range(200):
            jinja = changed(source, rng) if round else source
            jobs += [(jinja, *conversation) for conversation in make_template.CONVERSATIONS]
    rendered = [(jinja, make_template.variables(*conversation)) for jinja, *conversation in jobs]
    both = zip(jobs, make_template.render(rendered), make_template.render_jinja(rendered), strict=True)
    for (jinja, generation, messages), text, other in both:
        got = nibl.prompt(jinja, messages, generation)
        accepted += got is not None
        if got is not None and text == other and got != text:
            wrong.append((jinja, messages, got, text))
        if got is None and text == other and text is not None and jinja in sources:
            wrong.append((jinja, "refused"))
    report.line(f"prompts of {len(jobs)}, those accepted", accepted, wrong)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--library", type=pathlib.Path, default=ROOT / "build" / "native" / "libnibl.a")
    parser.add_argument("--model", type=pathlib.Path, default=tools.MODEL)
    options = parser.parse_args()
    for path in (options.library, options.model):
        if not path.exists():
            raise SystemExit(f"{path} is missing: run `npm run build` and `npm start` first, or name another")
    report = Report()
    _, specials = reference.from_gguf(options.model)
    records = corpus.records(RECORDS, SEED, specials, tools.read_prose(), read_code())
    with tempfile.TemporaryDirectory() as folder:
        nibl = Nibl(options.library, folder)
        tokenizer = compare_ids(nibl, report, options.model, records)
        compare_streams(nibl, report, options.model, tokenizer)
        compare_templates(nibl, report, options.model)
        compare_words(nibl, report)
        compare_normal_forms(nibl, report)
    sys.exit(report.failed)


if __name__ == "__main__":
    main()
