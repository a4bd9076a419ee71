"""nibl's tokenizer and templates as a Python object, for the comparisons here."""

import ctypes
import pathlib
import subprocess

ROOT = pathlib.Path(__file__).resolve().parents[2]


class Message(ctypes.Structure):
    _fields_ = [("role", ctypes.c_char_p), ("content", ctypes.c_char_p)]


class Writer(ctypes.Structure):
    _fields_ = [("text", ctypes.c_char_p), ("capacity", ctypes.c_size_t), ("length", ctypes.c_size_t)]


GLUE = """
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

#include "core/hf.h"
/* The header of a tokenizer.json. */
int from_json(const char *text, size_t length, nibl_gguf **out) {
    nibl_hf_parsed hf = {0};
    nibl_gguf_builder b = {0};
    nibl_status status = nibl_json_parse("tokenizer.json", text, length, &hf.json[NIBL_HF_TOKENIZER]);
    if (status == NIBL_OK) status = nibl_hf_build_tokenizer(&hf, &b);
    if (status == NIBL_OK) status = nibl_gguf_build_end(&b, out);
    nibl_json_free(&hf.json[NIBL_HF_TOKENIZER]);
    return status;
}
"""


class Nibl:
    """The core as a shared library."""

    def __init__(self, archive, folder):
        path = pathlib.Path(folder, "libnibl.so")
        whole = ["-Wl,--whole-archive", archive, "-Wl,--no-whole-archive"]
        glue = pathlib.Path(folder, "glue.c")
        glue.write_text(GLUE)
        options = ["-O2", "-std=c11", f"-I{ROOT}", "-shared", "-fPIC"]
        subprocess.run(["cc", *options, "-o", path, glue, *whole, "-lm", "-lpthread"], check=True)
        self.c = c = ctypes.CDLL(str(path))
        handle, text, size = ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t
        c.nibl_last_message.restype = text
        c.nibl_gguf_feed.argtypes = [handle, text, size, handle]
        c.nibl_nfc.argtypes = [text, size, handle, handle]
        c.from_json.argtypes = [text, size, handle]
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

    def from_json(self, text):
        gguf, out, data = ctypes.c_void_p(), ctypes.c_void_p(), text.encode()
        self.check(self.c.from_json(data, len(data), ctypes.byref(gguf)))
        self.check(self.c.nibl_tokenizer_new(gguf, ctypes.byref(out)))
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

    def normalize(self, data):
        out, length = ctypes.POINTER(ctypes.c_char)(), ctypes.c_size_t(len(data))
        self.check(self.c.nibl_nfc(data, len(data), ctypes.byref(out), ctypes.byref(length)))
        text = ctypes.string_at(out, length.value) if out else data
        self.c.nibl_free(out)
        return text

    def words(self, pre, text):
        ends = (ctypes.c_uint32 * len(text))()
        return ends[: self.c.words(pre.encode(), len(pre), text, len(text), ends)]

    def prompt(self, jinja, messages, generation):
        """None where the template is refused."""
        u64 = lambda n: n.to_bytes(8, "little")
        string = lambda data: u64(len(data)) + data
        key = lambda name, kind: string(b"tokenizer." + name) + kind.to_bytes(4, "little")
        tokens = b"\x08\0\0\0" + u64(3) + string(b"<unk>") + string(b"<s>") + string(b"</s>")
        data = key(b"chat_template", 8) + string(jinja.encode()) + key(b"ggml.tokens", 9) + tokens
        data += key(b"ggml.bos_token_id", 4) + b"\1\0\0\0" + key(b"ggml.eos_token_id", 4) + b"\2\0\0\0"
        gguf = self.header(b"GGUF\3\0\0\0" + u64(0) + u64(4) + data)
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
