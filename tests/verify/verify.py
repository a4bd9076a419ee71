"""Compares nibl with transformers live, on whole rows of logits of the default model.

1. The exact path (activations and KV cache in F32) on the prompts of smollm2-logits.bin: largest difference of any logit.
2. The fast path (int8, KV cache too) on the text of smollm2-kl.bin: mean KL divergence, share of positions with the
   same top token, perplexity beside the reference's.

Prints a table and exits with 0 only if every bar is met. Needs tests/fixtures/setup.sh, the default model and a build.
"""

import argparse
import pathlib
import struct
import subprocess
import sys
import tempfile

import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "fixtures"))
from oracle import FIXTURES, ROOT, default_model, load_reference, log_softmax, logits

EXACT = ["--activations", "f32", "-ctk", "f32", "-ctv", "f32"]
FAST = ["--activations", "i8", "-ctk", "i8", "-ctv", "i8"]
MAX_DIFFERENCE = 2e-3
MAX_KL = 0.005
MIN_SAME_TOP = 0.95


def nibl_logits(binary, model, ids, flags, vocabulary):
    """The rows of logits, float32 [len(ids), vocabulary], that the native build computes for one fresh sequence."""
    with tempfile.TemporaryDirectory() as folder:
        tokens, rows = pathlib.Path(folder, "tokens"), pathlib.Path(folder, "logits")
        tokens.write_bytes(np.array([1, len(ids), *ids], dtype="<i4").tobytes())
        command = [binary, "eval", model, "--tokens", tokens, "--logits", rows, *flags]
        done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        if done.returncode != 0:
            raise SystemExit(f"{binary} eval failed with {done.returncode}: {done.stderr.strip()}")
        result = np.fromfile(rows, dtype="<f4")
    if result.size != len(ids) * vocabulary:
        raise SystemExit(f"{binary} eval wrote {result.size} logits instead of {len(ids)} x {vocabulary}")
    return result.reshape(len(ids), vocabulary)


def read_prompts():
    data = (FIXTURES / "smollm2-logits.bin").read_bytes()
    prompts, fixed, top, _ = struct.unpack_from("<4I", data)
    at = 16 + 2 * fixed
    for _ in range(prompts):
        (tokens,) = struct.unpack_from("<I", data, at)
        yield np.frombuffer(data, "<u2", tokens, at + 8).astype(int)
        at += 8 + 2 * (tokens + -tokens % 4) + tokens * (24 + 4 * fixed + 6 * top)


def read_windows():
    data = (FIXTURES / "smollm2-kl.bin").read_bytes()
    windows, length, first, scored = struct.unpack_from("<4I", data)
    ids = np.frombuffer(data, "<u2", windows * length, 24).astype(int)
    return ids.reshape(windows, length), slice(first, first + scored)


def verdict(ok):
    return "ok" if ok else "MISSED"


def compare_exact(compute, reference):
    """Prints the largest difference per prompt; returns whether all are within the bar."""
    worst = 0.0
    print("exact path (f32 activations, f32 KV cache)\n prompt  tokens  max abs difference")
    for number, ids in enumerate(read_prompts()):
        ours, theirs = compute(ids, EXACT), logits(reference, ids)
        difference = np.abs(ours - theirs).max()
        worst = max(worst, difference) if np.isfinite(difference) else np.inf
        print(f" {number:6}  {len(ids):6}  {difference:.2e}")
    ok = worst <= MAX_DIFFERENCE
    print(f" worst {worst:.2e}, bar {MAX_DIFFERENCE:.0e}: {verdict(ok)}\n")
    return ok


def compare_text(compute, reference):
    """Prints KL, top-token agreement and perplexity over the scored positions; returns whether the bars are met."""
    windows, scored = read_windows()
    kl, same, surprise = [], [], []
    for window in windows:
        following = window[scored.start + 1 : scored.stop + 1]
        p = log_softmax(logits(reference, window)[scored])
        q = log_softmax(compute(window, FAST)[scored])
        kl.append((np.exp(p) * (p - q)).sum(axis=1))
        same.append(p.argmax(axis=1) == q.argmax(axis=1))
        surprise.append(-np.stack([p, q])[:, np.arange(len(following)), following])
    kl, same, surprise = np.concatenate(kl), np.concatenate(same), np.concatenate(surprise, axis=1)
    theirs, ours = np.exp(surprise.mean(axis=1))
    kl_ok, same_ok = kl.mean() <= MAX_KL, same.mean() >= MIN_SAME_TOP
    print(f"fast path (int8 activations, int8 KV cache), {len(kl)} positions of text")
    print(f" mean KL         {kl.mean():.2e} +- {kl.std() / np.sqrt(len(kl)):.1e}, bar {MAX_KL}: {verdict(kl_ok)}")
    print(f" median, 99 %, max  {np.median(kl):.2e}  {np.quantile(kl, 0.99):.2e}  {kl.max():.2e}")
    print(f" same top token  {same.mean():.2%}, bar {MIN_SAME_TOP:.0%}: {verdict(same_ok)}")
    print(f" perplexity      {ours:.3f}, reference {theirs:.3f} ({ours / theirs - 1:+.2%})\n")
    return kl_ok and same_ok


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", type=pathlib.Path, default=ROOT / "build" / "native" / "nibl")
    binary = parser.parse_args().binary
    if not binary.exists():
        raise SystemExit(f"{binary} is missing: run `npm run build` first, or name another with --binary")
    path = default_model()
    reference = load_reference(path)

    def compute(ids, flags):
        return nibl_logits(binary, path, ids, flags, reference.config.vocab_size)

    results = [compare_exact(compute, reference), compare_text(compute, reference)]
    sys.exit(0 if all(results) else 1)


if __name__ == "__main__":
    main()
