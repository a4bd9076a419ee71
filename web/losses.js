/**
 * What recipes lose, as measured by this project: SmolLM2-135M-Instruct, 2,040 positions of prose, embedding and head Q8_0
 * (of awq,gptq F16); change of perplexity and KL in nats, each with its paired standard error. How: tests/bench/MEASURED.md,
 * "Quantization" and "Evaluation". Small models lose most: one of several billion parameters loses a fraction of it. `nibl
 * fit` reads the list too: it must stay plain JSON. The order is that of the loss; `method` is what `nibl quantize` is told.
 */
export default [
  { "type": "q8_0", "method": "rtn", "perplexity": [0.0024, 0.003], "kl": [0.007, 0.0002] },
  { "type": "iq4_nl", "method": "awq,gptq", "perplexity": [0.034, 0.009], "kl": [0.0586, 0.0023] },
  { "type": "q4_0", "method": "awq,gptq", "perplexity": [0.052, 0.01], "kl": [0.0769, 0.0032] },
  { "type": "q5_0", "method": "rtn", "perplexity": [0.054, 0.011], "kl": [0.0864, 0.0022] },
  { "type": "iq4_nl", "method": "rtn", "perplexity": [0.181, 0.018], "kl": [0.1784, 0.0046] },
  { "type": "nvfp4", "method": "rtn", "perplexity": [0.241, 0.021], "kl": [0.2208, 0.0053] },
  { "type": "q4_0", "method": "rtn", "perplexity": [0.228, 0.023], "kl": [0.3255, 0.0068] },
  { "type": "mxfp4", "method": "rtn", "perplexity": [0.725, 0.044], "kl": [0.5018, 0.0122] }
]
