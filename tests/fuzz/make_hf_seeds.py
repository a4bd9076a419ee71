"""Makes the seeds of fuzz_hf (tiny folders, each one input), fuzz_json and fuzz_tokenizer_json."""

import json
import pathlib
import struct

CORPUS = pathlib.Path(__file__).parent / "corpus"
CONFIG, GENERATION, TOKENIZER_CONFIG, TEMPLATE, TOKENIZER, INDEX, FIRST, SECOND = range(8)
WIDTH, TOKENS = 32, ["<|endoftext|>", "a", "b", "c", "ab", "abc"]
BYTES = [f"<0x{i:02X}>" for i in range(256)]
SIZES = {"F32": 4, "F16": 2, "BF16": 2, "I32": 4, "I8": 1, "U8": 1, "F8_E4M3": 1}

config = {
    "model_type": "llama",
    "hidden_size": WIDTH,
    "intermediate_size": WIDTH,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "max_position_embeddings": 16,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": True,
    "vocab_size": len(TOKENS),
}


def tokenizer(kind):
    split = {"type": "Digits", "individual_digits": True}
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    pieces = {
        "normalizer": {
            "type": "Sequence",
            "normalizers": [
                {"type": "Prepend", "prepend": "\u2581"},
                {"type": "Replace", "pattern": {"String": " "}, "content": "\u2581"},
            ],
        },
        "pre_tokenizer": None,
        "decoder": {
            "type": "Sequence",
            "decoders": [
                {"type": "Replace", "pattern": {"String": "\u2581"}, "content": " "},
                {"type": "ByteFallback"},
                {"type": "Fuse"},
                {"type": "Strip", "content": " ", "start": 1, "stop": 0},
            ],
        },
    }
    levels = {
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, level]},
        "decoder": level,
    }
    return {
        "version": "1.0",
        "added_tokens": [
            {"id": 0, "content": TOKENS[0], "single_word": False, "lstrip": False, "rstrip": False,
             "normalized": False, "special": True}
        ],
        **(levels if kind == "levels" else pieces),
        "post_processor": None,
        "model": {
            "type": "BPE",
            "unk_token": TOKENS[0] if kind == "pieces" else None,
            "fuse_unk": kind == "pieces",
            "byte_fallback": kind == "pieces",
            "vocab": {t: i for i, t in enumerate(TOKENS + (BYTES if kind == "pieces" else []))},
            "merges": ["a b", "ab c"],
        },
    }  # fmt: skip


def weights(names, dtype):
    header, at = {}, 0
    for name in names:
        norm = "norm" in name
        shape = [WIDTH] if norm else [len(TOKENS) if "embed" in name else WIDTH, WIDTH]
        kind = "F32" if norm else dtype
        end = at + (shape[0] * WIDTH if not norm else WIDTH) * SIZES[kind]
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": [at, end]}
        at = end
    text = json.dumps(header, separators=(",", ":")).encode()
    return struct.pack("<Q", len(text)) + text + bytes(i * 7 % 60 for i in range(at))


LINEAR = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")
# layout: quantization_config, then the tensors of each matrix of 32 x 32: suffix, type, shape
QUANTIZED = {
    "awq": (
        {"quant_method": "awq", "bits": 4, "group_size": 32, "version": "gemm"},
        [("qweight", "I32", [32, 4]), ("qzeros", "I32", [1, 4]), ("scales", "F16", [1, 32])],
    ),
    "gptq": (
        {"quant_method": "gptq", "bits": 4, "group_size": 32, "sym": False},
        [("qweight", "I32", [4, 32]), ("qzeros", "I32", [1, 4]), ("scales", "F16", [1, 32]), ("g_idx", "I32", [32])],
    ),
    "packed": (
        {"quant_method": "compressed-tensors", "format": "pack-quantized", "config_groups": {"0": {"weights": {"num_bits": 4}}}},
        [("weight_packed", "I32", [32, 4]), ("weight_scale", "BF16", [32, 1]), ("weight_zero_point", "I32", [4, 1]),
         ("weight_g_idx", "I32", [32])],
    ),
    "int8": (
        {"quant_method": "compressed-tensors", "format": "int-quantized", "config_groups": {"0": {"weights": {"num_bits": 8}}}},
        [("weight", "I8", [32, 32]), ("weight_scale", "F32", [1])],
    ),
    "nvfp4": (
        {"quant_method": "compressed-tensors", "format": "nvfp4-pack-quantized"},
        [("weight_packed", "U8", [32, 16]), ("weight_scale", "F8_E4M3", [32, 2]), ("weight_global_scale", "F32", [1])],
    ),
    "bitnet": (
        {"quant_method": "bitnet", "linear_class": "autobitlinear"},
        [("weight", "U8", [8, 32]), ("weight_scale", "BF16", [1])],
    ),
}  # fmt: skip


def quantized_weights(parts):
    """Zeros in whatever holds indices, small positive numbers in the rest."""
    tensors = [(f"model.layers.0.{name}.{part}", kind, shape) for name in LINEAR for part, kind, shape in parts]
    header, data = {}, b""
    for name, kind, shape in tensors:
        size = SIZES[kind]
        for extent in shape:
            size *= extent
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": [len(data), len(data) + size]}
        data += bytes(size) if "g_idx" in name else bytes(56 for i in range(size))
    text = json.dumps(header, separators=(",", ":")).encode()
    return struct.pack("<Q", len(text)) + text + data


def quantized(how, layout):
    """The floats in one file, the codes in the other."""
    settings, parts = QUANTIZED[layout]
    floats = [n for n in names() if "embed" in n or "norm" in n]
    index = {"weight_map": {"a": "a.safetensors", "b": "b.safetensors"}}
    return folder(how, {CONFIG: config | {"quantization_config": settings}, TOKENIZER: tokenizer("levels"), INDEX: index,
                        FIRST: weights(floats, "F16"), SECOND: quantized_weights(parts)})  # fmt: skip


def names():
    layer = "model.layers.0."
    return ["model.embed_tokens.weight", "model.norm.weight"] + [
        layer + n + ".weight"
        for n in ("input_layernorm", "post_attention_layernorm", "self_attn.q_proj", "self_attn.k_proj",
                  "self_attn.v_proj", "self_attn.o_proj", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")
    ]  # fmt: skip


def folder(how, parts):
    out = bytes([how])
    for which, content in parts.items():
        content = content if isinstance(content, bytes) else json.dumps(content, separators=(",", ":"), ensure_ascii=False).encode()
        out += bytes([which]) + struct.pack("<I", len(content))[:3] + content
    return out


def write(target, seeds):
    (CORPUS / target).mkdir(parents=True, exist_ok=True)
    for name, content in seeds.items():
        content = content if isinstance(content, bytes) else json.dumps(content, ensure_ascii=False).encode()
        (CORPUS / target / name).write_bytes(content)
        print(f"{target}/{name}: {len(content)} bytes")


def main():
    everything = names()
    index = {"weight_map": {n: "ab"[i % 2] + ".safetensors" for i, n in enumerate(everything)}}
    base = {CONFIG: config, TOKENIZER: tokenizer("levels")}
    write(
        "hf",
        {
            "f32": folder(3, {**base, FIRST: weights(everything, "F32")}),
            "f16": folder(2, {**base, TEMPLATE: b"{{ messages }}", FIRST: weights(everything, "F16")}),
            "bf16-shards": folder(
                7, {**base, GENERATION: {"eos_token_id": [0]}, TOKENIZER_CONFIG: {"eos_token": TOKENS[0]}, INDEX: index,
                    FIRST: weights(everything[::2], "BF16"), SECOND: weights(everything[1::2], "BF16")},
            ),
            "f16-to-q4_0": folder(11, {**base, FIRST: weights(everything, "F16")}),
            **{layout: quantized(i % 8, layout) for i, layout in enumerate(QUANTIZED)},
        },
    )  # fmt: skip
    write("tokenizer_json", {kind: tokenizer(kind) for kind in ("levels", "pieces")})
    write(
        "json",
        {
            "values": [None, True, False, 0, -1.5e-7, 18446744073709551615, "a\"\\\n\u00e9\U0001f600", {}, []],
            "nested": {"name": {"name": [[["x"], {"y": [1, 2, {"z": None}]}]]}},
            "config": config,
        },
    )


if __name__ == "__main__":
    main()
