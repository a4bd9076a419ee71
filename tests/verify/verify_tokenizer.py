"""Compares nibl's tokenizer and chat templates with Hugging Face's tokenizers and with Jinja, live.

1. Token ids of 20,000 records (prose, code, numbers, scripts, emoji, combining marks, ill-formed UTF-8, every
   special token) with the default model's vocabulary, for each pre-tokenizer; and the text that comes back.
2. The words every Unicode code point is cut into, for each pre-tokenizer.
3. Streamed decoding of random tokens against Python's incremental decoder, piece by piece.
4. Chat templates, known ones and seeded changes of them, against Jinja: those accepted must be written alike.

Needs tests/fixtures/setup.sh, the default model, npm and a build. Exits with 0 only if nothing differs.
"""

import argparse
import codecs
import ctypes
import pathlib
import random
import re
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests" / "fixtures" / "tokenizer"))
import tools

tools.install()

import corpus
import jinja2.sandbox
import make_template
import reference
from gguf import GGUFReader

RECORDS, SEED = 20000, 7
SPECIAL = 1


def read_code():
    """Lines of Python's own library."""
    folder = pathlib.Path(codecs.__file__).parent
    texts = [(folder / f"{name}.py").read_text() for name in ("argparse", "_pydecimal", "tarfile")]
    return [line for text in texts for line in text.split("\n") if line.strip()]


class Message(ctypes.Structure):
    _fields_ = [("role", ctypes.c_char_p), ("content", ctypes.c_char_p)]


class Writer(ctypes.Structure):
    _fields_ = [("text", ctypes.c_char_p), ("capacity", ctypes.c_size_t), ("length", ctypes.c_size_t)]


WORDS = """
#include "core/pretokenize.h"
long words(const char *name, size_t name_length, const char *text, size_t length, uint32_t *ends) {
    const nibl_pre_row *row = nibl_pre_find(name, name_length);
    size_t patterns = 0, at, n;
    while (patterns < NIBL_PRE_PATTERNS && row->patterns[patterns]) patterns++;
    nibl_pretokenizer pre;
    if (nibl_pretokenizer_new(&pre, row->patterns, patterns) < 0) return -1;
    nibl_words w;
    long count = 0;
    nibl_words_start(&w, &pre, text, length);
    while (nibl_words_next(&w, &at, &n)) ends[count++] = (uint32_t)(at + n);
    nibl_pretokenizer_free(&pre);
    return count;
}
"""


class Nibl:
    """The core as a shared library."""

    def __init__(self, archive, folder):
        path = pathlib.Path(folder, "libnibl.so")
        whole = ["-Wl,--whole-archive", archive, "-Wl,--no-whole-archive"]
        words = pathlib.Path(folder, "words.c")
        words.write_text(WORDS)
        options = ["-O2", "-std=c11", f"-I{ROOT}", "-shared", "-fPIC"]
        subprocess.run(["cc", *options, "-o", path, words, *whole, "-lm", "-lpthread"], check=True)
        self.c = c = ctypes.CDLL(str(path))
        handle, text, size = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t
        c.nibl_last_message.restype = text
        c.nibl_gguf_feed.argtypes = [handle, text, size, handle]
        c.nibl_tokenizer_encode.argtypes = [handle, text, size, ctypes.c_uint32, handle, size, handle]
        c.nibl_tokenizer_decode.argtypes = [handle, handle, size, ctypes.c_bool, text, size, handle]
        c.nibl_template_write.argtypes = [handle, handle, size, ctypes.c_bool, handle]

    def check(self, status):
        if status < 0:
            raise SystemExit(f"nibl: {self.c.nibl_last_message().decode()}")

    def header(self, data):
        gguf, taken = ctypes.c_void_p(), ctypes.c_size_t()
        self.check(self.c.nibl_gguf_new(ctypes.byref(gguf)))
        self.check(self.c.nibl_gguf_feed(gguf, data, len(data), ctypes.byref(taken)))
        return gguf

    def tokenizer(self, data):
        out = ctypes.c_void_p()
        self.check(self.c.nibl_tokenizer_new(self.header(data), ctypes.byref(out)))
        return out

    def encode(self, tokenizer, data, flags):
        ids, count = (ctypes.c_int32 * (3 * len(data) + 1))(), ctypes.c_size_t()
        encode = self.c.nibl_tokenizer_encode
        self.check(encode(tokenizer, data, len(data), flags, ids, len(ids), ctypes.byref(count)))
        return ids[: count.value]

    def decode(self, tokenizer, ids):
        array, length = (ctypes.c_int32 * len(ids))(*ids), ctypes.c_size_t()
        text = ctypes.create_string_buffer(1 << 16)
        decode = self.c.nibl_tokenizer_decode
        self.check(decode(tokenizer, array, len(ids), True, text, len(text), ctypes.byref(length)))
        return text.raw[: length.value]

    def pieces(self, decoder, ids):
        piece, length = ctypes.POINTER(ctypes.c_char)(), ctypes.c_size_t()
        for token in ids:
            self.check(self.c.nibl_decoder_push(decoder, token, ctypes.byref(piece), ctypes.byref(length)))
            yield ctypes.string_at(piece, length.value)

    def words(self, pre, text):
        ends = (ctypes.c_uint32 * len(text))()
        return ends[: self.c.words(pre.encode(), len(pre), text, len(text), ends)]

    def prompt(self, jinja, messages, generation):
        """None where the template is refused."""
        u64 = lambda n: n.to_bytes(8, "little")
        string = lambda data: u64(len(data)) + data
        key = string(b"tokenizer.chat_template") + b"\x08\0\0\0"
        gguf = self.header(b"GGUF\3\0\0\0" + u64(0) + u64(1) + key + string(jinja.encode()))
        text = ctypes.create_string_buffer(1 << 14)
        writer = Writer(ctypes.cast(text, ctypes.c_char_p), len(text), 0)
        array = (Message * (len(messages) + 1))(*[Message(r.encode(), c.encode()) for r, c in messages])
        write = self.c.nibl_template_write
        status = write(gguf, array, len(messages), generation, ctypes.byref(writer))
        self.c.nibl_gguf_free(gguf)
        return text.raw[: writer.length].decode() if status == 0 else None


class Report:
    def __init__(self):
        self.failed = False

    def line(self, what, count, wrong):
        print(f" {what:55} {count:9}  {'ok' if not wrong else f'{len(wrong)} DIFFER'}", flush=True)
        for example in wrong[:5]:
            print("   ", example)
        self.failed |= bool(wrong)


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
    for pre in reference.PRE:
        theirs, _ = reference.from_gguf(model, pre)
        ours = nibl.tokenizer(with_pre(header, pre))
        wrong, back = [], []
        for special, data in records:
            wanted = reference.encode(theirs, special, data)
            got = nibl.encode(ours, data, SPECIAL if special else 0)
            if wanted != got:
                wrong.append((special, data, wanted, got))
            text = data.decode("utf-8", "replace").encode().translate(None, lost)
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
    for pre in reference.PRE:
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
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    rng, wrong, accepted, tried = random.Random(SEED), [], 0, 0
    for source in [make_template.own_template(model), *make_template.KNOWN]:
        for round in range(500):
            jinja = changed(source, rng) if round else source
            tried += 1
            for generation, messages in make_template.CONVERSATIONS:
                got = nibl.prompt(jinja, messages, generation)
                if got is None:
                    if not round:
                        wrong.append((jinja, "refused"))
                    break
                accepted += 1
                try:
                    wanted = environment.from_string(jinja).render(
                        messages=[{"role": r, "content": c} for r, c in messages],
                        add_generation_prompt=bool(generation),
                    )
                except jinja2.TemplateError as error:
                    wanted = error
                if got != wanted:
                    wrong.append((jinja, got, wanted))
                    break
    report.line(f"prompts of {tried} templates, those accepted", accepted, wrong)


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
    sys.exit(report.failed)


if __name__ == "__main__":
    main()
