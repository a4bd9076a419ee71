/**
 * What recipes lose, as measured by this project: SmolLM2-135M-Instruct, the protocol of tests/bench/MEASURED.md
 * ("Quantization": 2,040 positions of prose; change of perplexity and KL in nats, each with its paired standard error).
 * Small models lose most: a model of several billion parameters loses a fraction of it. `nibl fit` reads the list too:
 * it must stay plain JSON. The order is that of the loss; `method` is what `nibl quantize` is told.
 */
export default [
  { "type": "q8_0", "method": "rtn", "perplexity": [0.001, 0.001], "kl": [0.0006, 0.0001] },
  { "type": "q4_0", "method": "awq,gptq", "perplexity": [0.048, 0.01], "kl": [0.08, 0.004] },
  { "type": "q4_0", "method": "rtn", "perplexity": [0.226, 0.023], "kl": [0.321, 0.007] }
]
