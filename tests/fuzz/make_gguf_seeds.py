"""Makes the seeds of fuzz_gguf: tiny whole models, one of each type of weights. First byte: how it is fed."""

import pathlib
import struct

CORPUS = pathlib.Path(__file__).parent / "corpus" / "gguf"
U32, I32, F32, BOOL, STRING, ARRAY = 4, 5, 6, 7, 8, 9
TYPES = {  # id, elements and bytes of a block
    "f32": (0, 1, 4),
    "f16": (1, 1, 2),
    "q4_0": (2, 32, 18),
    "q4_1": (3, 32, 20),
    "q8_0": (8, 32, 34),
    "bf16": (30, 1, 2),
}
WIDTH, FFN, TOKENS = 32, 32, ["<|endoftext|>", "a", "b", "c", "ab", "abc"]


def text(s):
    return struct.pack("<Q", len(s)) + s.encode()


def value(kind, v):
    if kind == STRING:
        return text(v)
    if kind == ARRAY:
        return struct.pack("<IQ", v[0], len(v[1])) + b"".join(value(v[0], e) for e in v[1])
    return struct.pack({U32: "<I", I32: "<i", F32: "<f", BOOL: "<?"}[kind], v)


def model(type_name, alignment=None):
    type_id, block, size = TYPES[type_name]
    keys = [
        ("general.architecture", STRING, "llama"),
        ("llama.block_count", U32, 1),
        ("llama.context_length", U32, 16),
        ("llama.embedding_length", U32, WIDTH),
        ("llama.feed_forward_length", U32, FFN),
        ("llama.attention.head_count", U32, 2),
        ("llama.attention.layer_norm_rms_epsilon", F32, 1e-5),
        ("tokenizer.ggml.model", STRING, "gpt2"),
        ("tokenizer.ggml.pre", STRING, "smollm"),
        ("tokenizer.ggml.tokens", ARRAY, (STRING, TOKENS)),
        ("tokenizer.ggml.token_type", ARRAY, (I32, [3] + [1] * (len(TOKENS) - 1))),
        ("tokenizer.ggml.merges", ARRAY, (STRING, ["a b", "ab c"])),
        ("tokenizer.ggml.eos_token_id", U32, 0),
        ("tokenizer.ggml.add_bos_token", BOOL, False),
    ]
    if alignment:
        keys.append(("general.alignment", U32, alignment))
    alignment = alignment or 32
    square, norm = (type_id, WIDTH, WIDTH), (0, WIDTH, None)
    tensors = {"token_embd": (type_id, WIDTH, len(TOKENS)), "output_norm": norm}
    for name in ("attn_norm", "ffn_norm"):
        tensors["blk.0." + name] = norm
    for name in ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"):
        tensors["blk.0." + name] = square
    out = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(keys))
    for key, kind, v in keys:
        out += text(key) + struct.pack("<I", kind) + value(kind, v)
    offset = 0
    for name, (kind, columns, rows) in sorted(tensors.items()):
        dims = [columns] if rows is None else [columns, rows]
        out += text(name + ".weight") + struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, kind, offset)
        bytes_of = columns * 4 if rows is None else columns // block * size * rows
        offset += -(-bytes_of // alignment) * alignment
    out += bytes(-len(out) % alignment)
    return out + bytes(i * 7 % 64 for i in range(offset))


def main():
    CORPUS.mkdir(parents=True, exist_ok=True)
    for i, name in enumerate(TYPES):
        (CORPUS / name).write_bytes(bytes([i * 4 + i % 4]) + model(name))
    (CORPUS / "aligned").write_bytes(bytes([24]) + model("q4_0", alignment=128))
    (CORPUS / "page").write_bytes(b"\0<!DOCTYPE html>")


if __name__ == "__main__":
    main()
