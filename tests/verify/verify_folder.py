"""Compares nibl with transformers + compressed-tensors on folders that `nibl quantize` wrote: logits of one text on the
exact path. Where the library cannot unpack zero points yet (compressed-tensors 0.12 and older), its own functions unpack and
dequantize the matrices first. Exits with 0 only if all are within 2e-2."""

import argparse
import json
import pathlib
import sys

import numpy as np
import torch
import transformers
from compressed_tensors.compressors.quantized_compressors.pack_quantized import unpack_from_int32
from compressed_tensors.quantization.lifecycle.forward import dequantize
from safetensors.torch import load_file

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "fixtures"))
from oracle import ROOT, logits
from verify import EXACT, nibl_logits

TEXT = "Call me Ishmael. In 1851 the price of a whale-ship was $25,000; def f(x): return x ** 2\n\n  Ça va? " * 3


def scheme_of(config, module):
    for group in config["config_groups"].values():
        if module in group["targets"] or "Linear" in group["targets"]:
            return group["weights"]
    raise SystemExit(f"no scheme for {module}")


def unpacked(folder, config):
    quantization = config.pop("quantization_config")
    tensors = {}
    for file in sorted(folder.glob("*.safetensors")):
        tensors |= load_file(file)
    state = {}
    for name, tensor in tensors.items():
        if not name.endswith("weight_packed"):
            if not name.rpartition(".")[2].startswith("weight_"):
                state[name] = tensor.float()
            continue
        base = name.removesuffix(".weight_packed")
        bits = scheme_of(quantization, base)["num_bits"]
        shape = torch.Size(tensors[base + ".weight_shape"])
        scale, zero = tensors[base + ".weight_scale"].float(), tensors.get(base + ".weight_zero_point")
        if zero is not None:
            zero = unpack_from_int32(zero, bits, torch.Size((shape[0], scale.shape[1])), packed_dim=0)
        state[base + ".weight"] = dequantize(unpack_from_int32(tensor, bits, shape), scale, zero)
    model = transformers.AutoModelForCausalLM.from_config(
        transformers.AutoConfig.for_model(**config), torch_dtype=torch.float32
    )
    if config["tie_word_embeddings"]:
        state["lm_head.weight"] = state["model.embed_tokens.weight"]
    model.load_state_dict(state)
    return model.eval()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folders", nargs="+", type=pathlib.Path)
    parser.add_argument("--nibl", default=ROOT / "build/native/nibl")
    arguments = parser.parse_args()
    failed = False
    for folder in arguments.folders:
        config = json.loads((folder / "config.json").read_text())
        whole = all(g["weights"]["symmetric"] for g in config["quantization_config"]["config_groups"].values())
        ids = transformers.PreTrainedTokenizerFast(tokenizer_file=str(folder / "tokenizer.json"))(TEXT)["input_ids"]
        if whole:
            model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
        else:
            model = unpacked(folder, dict(config))
        expected = logits(model, ids)
        got = nibl_logits(arguments.nibl, folder, ids, EXACT, expected.shape[1])
        worst = float(np.abs(got - expected).max())
        failed = failed or not worst < 2e-2
        print(f"{folder.name}: {len(ids)} tokens, largest difference {worst:.2g}, by {'transformers' if whole else 'its parts'}")
    return failed


if __name__ == "__main__":
    sys.exit(main())
