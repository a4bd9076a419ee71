// The `nibl` command as its users meet it: verbs, exit codes, messages, pipes, files that are no models.

import assert from 'node:assert/strict'
import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import fs from 'node:fs'
import path from 'node:path'
import { describe, test } from 'node:test'
import { HANG, binary, file, fixture, folder, json, needsModel, nibl, realModel, refuse, root, succeed, tiny } from './command.js'

/** A token file as `nibl eval` reads it. @param {string} name @param {number[][]} sequences */
function tokenFile(name, sequences) {
  const words = [sequences.length, ...sequences.flatMap(ids => [ids.length, ...ids])]
  const bytes = Buffer.alloc(4 * words.length)
  words.forEach((word, i) => bytes.writeInt32LE(word, 4 * i))
  return file(name, bytes)
}

describe('help', () => {
  const verbs = ['run', 'embed', 'imatrix', 'inspect', 'fit', 'bench', 'eval', 'hash']

  test('names every verb, and every verb has its own', () => {
    const { stdout } = succeed(['--help'])
    for (const verb of verbs) {
      assert.match(stdout, new RegExp(`^  ${verb} `, 'm'))
      const help = succeed(['help', verb]).stdout
      assert.match(help, new RegExp(`^usage: nibl ${verb} MODEL`))
      assert.equal(succeed([verb, '--help']).stdout, help)
      assert.equal(succeed([verb, tiny, '-h']).stdout, help)
    }
  })

  test('tells defaults from the table', () => {
    const { stdout } = succeed(['help', 'run'])
    assert.match(stdout, /--temp X .*\(default: 0\.8\)/)
    assert.match(stdout, /--top-k N .*\(default: 40\)/)
    assert.match(stdout, /-ctk, --cache-type-k i8\|f16\|f32\|q8_0 .*\(default: i8\)/)
  })

  test('--version', () => {
    assert.match(succeed(['--version']).stdout, /^nibl \d+\.\d+\.\d+ \(\w+.*\)\n$/)
  })
})

describe('bad usage exits with 2 and says what is wrong', () => {
  /** @type {[string[], RegExp][]} */
  const cases = [
    [[], /a verb is missing/],
    [['rnu'], /unknown verb 'rnu'; did you mean run\?/],
    [['frobnicate'], /unknown verb 'frobnicate'\n/],
    [['help', 'rum'], /did you mean run\?/],
    [['run'], /MODEL is missing/],
    [['run', tiny, tiny], /one too many/],
    [['run', tiny, '--tempp', '1'], /unknown option --tempp; did you mean --temp\?/],
    [['run', tiny, '--repeat-penlaty=1'], /did you mean --repeat-penalty\?/],
    [['run', tiny, '--zzzzzzzz'], /unknown option --zzzzzzzz\n/],
    [['run', tiny, '-z'], /unknown option -z\n/],
    [['run', tiny, '-p'], /-p needs a value/],
    [['run', tiny, '-p', 'a', '--json=1'], /--json takes no value/],
    [['run', tiny, '-p', 'a', '-n', '1x'], /-n must be a whole number from -1 to 2147483647, not '1x'/],
    [['run', tiny, '-p', 'a', '-n', ''], /-n must be/],
    [['run', tiny, '-p', 'a', '-n', ' 1'], /-n must be/],
    [['run', tiny, '-p', 'a', '-n', '1.5'], /-n must be/],
    [['run', tiny, '-p', 'a', '-n', '0x10'], /-n must be/],
    [['run', tiny, '-p', 'a', '-n', '2147483648'], /-n must be/],
    [['run', tiny, '-p', 'a', '-n', '99999999999999999999'], /-n must be/],
    [['run', tiny, '-p', 'a', '-s', '9223372036854775808'], /-s must be a whole number/],
    [['run', tiny, '-p', 'a', '--threads=-1'], /--threads must be/],
    [['run', tiny, '-p', 'a', '--chunk', '100000'], /--chunk must be a whole number from 0 to \d+, not '100000'/],
    [['run', tiny, '-p', 'a', '--temp', 'nan'], /--temp must be a number from 0 to 100, not 'nan'/],
    [['run', tiny, '-p', 'a', '--temp', 'inf'], /--temp must be/],
    [['run', tiny, '-p', 'a', '--temp', '1e999'], /--temp must be/],
    [['run', tiny, '-p', 'a', '--top-p', '1.01'], /--top-p must be/],
    [['run', tiny, '-p', 'a', '-ctk', 'q4_0', '-ctv', 'q4_0'], /-ctk must be one of i8\|f16\|f32\|q8_0, not 'q4_0'/],
    [['run', tiny, '-p', 'a', '-ctk', 'f32'], /-ctk and -ctv must name the same type/],
    [['run', tiny, '-p', 'a', '-f', 'b'], /-p and -f contradict each other/],
    [['run', tiny, '-p', 'a', '--chat', '--no-chat'], /contradict/],
    [['run', tiny, '-p', 'a', '--no-chat', '--system', 's'], /--system/],
    [['run', tiny, '-p', 'a', '--stop', ''], /--stop needs a text/],
    [['run', tiny, '-p', 'a', ...Array(17).fill('--stop=x')], /--stop may be given at most 16 times/],
    [['run', '-'], /the model comes from stdin/],
    [['run', tiny, '-p', 'a', '--prompt-cache-all'], /need --prompt-cache FILE/],
    [['run', tiny, '-p', 'a', '--prompt-cache', 'x', '--prompt-cache-all', '--prompt-cache-ro'], /contradict/],
    [['embed', '-'], /the model comes from stdin/],
    [['embed', tiny, '-p', 'a', '--pooling', 'max'], /--pooling must be one of mean\|last/],
    [['eval', tiny, '--tokens', 'x'], /--tokens and --logits are both needed/],
    [['bench', tiny, '-p', '0', '-n', '0'], /nothing to run/],
    [['bench', tiny, '-o', 'html'], /-o must be one of md\|csv\|json/],
    [['hash', tiny, '--prefill', '0'], /--prefill must be/],
  ]
  for (const [args, message] of cases)
    test(args.map(a => a.replace(root, '') || "''").slice(0, 6).join(' ') || '(nothing)', () => refuse(args, 2, message))

  test('after -- a name may begin with a dash', () => refuse(['inspect', '--', '-missing-'], 1, /-missing-: No such file/))
})

describe('files that are no models exit with 1 and leave stdout empty', () => {
  const bytes = fs.readFileSync(tiny)
  const names = {
    missing: path.join(folder, 'missing.gguf'),
    folder,
    empty: file('empty.gguf', ''),
    html: file('page.gguf', '<!doctype html><title>404</title>' + ' '.repeat(4096)),
    short: file('short.gguf', 'GGU'),
    zeros: file('zeros.gguf', Buffer.alloc(65536)),
  }
  const messages = {
    missing: /missing\.gguf: No such file or directory/,
    folder: /'config.json' is missing/,
    empty: /empty\.gguf: .*empty/,
    html: /page\.gguf: ./,
    short: /short\.gguf: ./,
    zeros: /zeros\.gguf: ./,
  }
  for (const [kind, name] of Object.entries(names))
    for (const args of [['run', '-p', 'a'], ['inspect'], ['bench'], ['hash']])
      test(`${args[0]}: ${kind}`, () =>
        refuse([...args, name], 1, messages[/** @type {keyof typeof messages} */ (kind)]))

  for (let i = 1; i <= 12; i++)
    test(`cut at ${i}/13`, () => {
      const cut = file(`cut-${i}.gguf`, bytes.subarray(0, Math.floor((bytes.length * i) / 13)))
      refuse(['hash', cut], 1, /cut-\d+\.gguf: .*\d/)
    })

  test('a cut stream', () => {
    for (const length of [0, 1, 3000, bytes.length - 1]) {
      const result = nibl(['hash', '-'], { input: bytes.subarray(0, length) })
      assert.equal(result.status, 1, result.stderr)
      assert.match(result.stderr, /^nibl: standard input: ./)
      assert.equal(result.stdout, '')
    }
  })

  test('a prompt file that is missing', () => refuse(['run', tiny, '-f', names.missing], 1, /missing\.gguf: No such/))
  test('a prompt that does not fit', () =>
    refuse(['run', tiny, '-c', '32', '-p', 'abc '.repeat(100)], 1, /the prompt: ./))
  test('a prompt that is empty', () => refuse(['run', tiny, '--no-chat', '-p', ''], 1, /the prompt is empty/))
  test('a message with a NUL byte', () => {
    const result = nibl(['run', tiny], { input: 'a\0b' })
    assert.equal(result.status, 1)
    assert.match(result.stderr, /NUL/)
    succeed(['run', tiny, '--no-chat', '-n', '1'], 'a\0b')
  })
})

describe('run', () => {
  const greedy = ['run', tiny, '--temp', '0', '-n', '40']

  test('the text on stdout is the text of --json', () => {
    const [answer] = json([...greedy, '-p', 'hello'])
    const { stdout, stderr } = succeed([...greedy, '-p', 'hello'])
    assert.equal(stdout.replace(/\n$/, ''), answer.text.replace(/\n$/, ''))
    assert.equal(answer.generated_tokens, answer.tokens.length)
    assert.match(stderr, /^prefill \d+ tokens [\d.]+ tok\/s \| decode \d+ tokens .* \| load .* \| memory .* \| isa .* \| threads \d+ \| seed \d+\n$/)
  })

  test('stdout is valid UTF-8 and --raw adds nothing', () => {
    const args = ['run', tiny, '-s', '5', '--temp', '2', '-n', '300', '--ignore-eos', '--raw', '-p', 'x']
    const result = spawnSync(binary, args, { timeout: HANG })
    assert.equal(result.status, 0)
    const text = new TextDecoder('utf-8', { fatal: true }).decode(result.stdout)
    assert.equal(text, json(args)[0].text)
    assert.equal(result.stderr.length, 0)
  })

  test('a seed fixes the text; the seed told is the seed used', () => {
    const sampled = ['run', tiny, '-n', '30', '-p', 'hello', '--temp', '1.5']
    const tokens = (/** @type {string} */ seed) => json([...sampled, '-s', seed])[0].tokens
    assert.deepEqual(tokens('7'), tokens('7'))
    assert.notDeepEqual(tokens('7'), tokens('8'))
    const [first] = json(sampled)
    assert.deepEqual(tokens(String(first.seed)), first.tokens)
  })

  test('sampling options reach the sampler', () => {
    const tokens = (/** @type {string[]} */ ...more) => json(['run', tiny, '-n', '30', '-s', '3', '-p', 'hello', ...more])[0].tokens
    const likeliest = tokens('--temp', '0')
    for (const one of [['--top-k', '1'], ['--top-p', '0.000001'], ['--min-p', '1']])
      assert.deepEqual(tokens('--temp', '5', ...one), likeliest, one.join(' '))
    assert.notDeepEqual(tokens('--temp', '5', '--top-k', '0', '--top-p', '1', '--min-p', '0'), likeliest)
    const penalised = tokens('--temp', '0', '--repeat-penalty', '100', '--repeat-last-n', '512')
    assert.equal(new Set(penalised).size, penalised.length)
  })

  test('a question is written as the template has it, --no-chat completes', () => {
    const [chat] = json([...greedy, '-p', 'hello'])
    const [same] = json([...greedy, '--no-chat', '-p', '<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\n'])
    const [completed] = json([...greedy, '--no-chat', '-p', 'hello'])
    assert.equal(chat.chat, true)
    assert.equal(completed.chat, false)
    assert.deepEqual(same.tokens, chat.tokens)
    assert.equal(same.prompt_tokens, chat.prompt_tokens)
    assert.ok(completed.prompt_tokens < chat.prompt_tokens)
    const [system] = json([...greedy, '--system', 'short', '-p', 'hello'])
    assert.ok(system.prompt_tokens > chat.prompt_tokens)
  })

  test('the prompt comes from -p, a file, a file named -, or a pipe', () => {
    const [expected] = json([...greedy, '-p', 'hello there'])
    const prompt = file('prompt.txt', 'hello there\n')
    assert.deepEqual(json([...greedy, '-f', prompt])[0].tokens, expected.tokens)
    assert.deepEqual(json([...greedy, '-f', '-'], 'hello there\n')[0].tokens, expected.tokens)
    assert.deepEqual(json(greedy, 'hello there\n')[0].tokens, expected.tokens)
  })

  test('-n limits, the context ends, and both are told', () => {
    assert.equal(json([...greedy, '-p', 'a', '-n', '3', '--ignore-eos'])[0].finish, 'length')
    assert.equal(json([...greedy, '-p', 'a', '-n', '0'])[0].tokens.length, 0)
    const [full] = json(['run', tiny, '-c', '64', '--ignore-eos', '--temp', '0', '-p', 'a'])
    assert.equal(full.finish, 'context')
    assert.equal(full.prompt_tokens + full.generated_tokens, 65)
  })

  test('a stop string is never shown, whatever pieces it comes in', () => {
    const args = ['run', tiny, '--temp', '0', '-n', '60', '--ignore-eos', '--no-chat', '-p', 'hello']
    const [{ text }] = json(args)
    for (const [from, length] of [[5, 1], [9, 4], [14, 9]]) {
      const stop = text.slice(from, from + length)
      const expected = text.slice(0, text.indexOf(stop))
      const [answer] = json([...args, '--stop', 'never said', '--stop', stop])
      assert.equal(answer.text, expected)
      assert.equal(answer.finish, 'stop')
      assert.equal(succeed([...args, '--raw', '--stop', stop]).stdout, expected)
    }
    const tail = text.slice(-3)
    assert.equal(json([...args, '--stop', tail + 'never'])[0].text, text)
  })

  test('a conversation through a pipe computes only what is new', () => {
    const [first, second, third] = json([...greedy, '--chat', '-n', '6', '--ignore-eos'], 'hello\n\nand then?\nmore\n')
    assert.equal(first.reused_tokens, 0)
    assert.equal(second.reused_tokens, first.prompt_tokens + first.generated_tokens - 1)
    assert.equal(third.reused_tokens, second.prompt_tokens + second.generated_tokens - 1)
    assert.ok(second.prompt_tokens > first.prompt_tokens + first.generated_tokens)
  })

  test('what was kept gives the same logits as what is computed anew', () => {
    const turns = ['hello', 'and then?', 'more'].join('\n')
    const args = [...greedy, '--chat', '-n', '6', '--ignore-eos', '--logits-hash']
    const once = json(args, turns)
    const again = json([...args, '-t', '1', '--chunk', '1'], turns)
    assert.deepEqual(again.map(a => a.logits_hash), once.map(a => a.logits_hash))
    assert.equal(new Set(once.map(a => a.logits_hash)).size, 3)
    assert.match(once[0].logits_hash, /^[0-9a-f]{16}$/)
  })

  test('/exit ends a conversation', () => {
    assert.equal(json([...greedy, '--chat'], 'hello\n/exit\nhello\n').length, 1)
    assert.equal(succeed([...greedy, '--chat'], '').stdout, '')
  })

  test('on a terminal it asks, answers and leaves', () => {
    const command = `exec '${binary}' run '${tiny}' -n 5 --temp 0`
    const result = spawnSync('script', ['-qec', command, path.join(folder, 'typescript')], { input: 'hello\n/exit\n', timeout: HANG })
    if (result.error) throw result.error
    const shown = result.stdout.toString()
    assert.equal(result.status, 0, shown)
    assert.match(shown, /\/exit ends the conversation/)
    assert.match(shown, /> [^]*> [^]*prefill \d+ tokens/)
  })

  test('Ctrl-C stops the answer, not the conversation', needsModel, async () => {
    // exec: a shell in between would die of the same Ctrl-C
    const command = `exec '${binary}' run '${realModel}' --ignore-eos --temp 0`
    const child = spawn('script', ['-qec', command, path.join(folder, 'typescript')], { timeout: HANG })
    let shown = ''
    child.stdout.on('data', data => {
      shown += data
    })
    const until = async (/** @type {RegExp} */ pattern) => {
      while (!pattern.test(shown)) await once(child.stdout, 'data')
      shown = ''
    }
    await until(/> $/)
    child.stdin.write('Tell me a story.\n')
    await until(/story\.\r\n[^]*\w/)
    child.stdin.write('\x03')
    await until(/> $/)
    child.stdin.write('/exit\n')
    const [status] = await once(child, 'close')
    assert.equal(status, 0, shown)
  })

  test('guesses change the time only', needsModel, () => {
    const prompt = 'one two three four five six seven eight nine ten, '.repeat(4)
    let right = 0
    for (const sampling of [['--temp', '0'], ['--temp', '0.3', '-s', '5', '--repeat-penalty', '1.02']]) {
      const [on, off] = ['on', 'off'].map((speculate) => {
        const args = ['-p', prompt, '--no-chat', '-n', '60', '--ignore-eos', '--logits-hash', ...sampling]
        return json(['run', realModel, ...args, '--speculate', speculate])[0]
      })
      right += on.guessed_right
      assert.equal(off.guessed_tokens, 0)
      for (const name of ['text', 'tokens', 'logits_hash', 'finish']) assert.deepEqual(on[name], off[name], name)
    }
    assert.ok(right > 5, `${right} right`)
  })

  test('the default model knows', needsModel, () => {
    const [answer] = json(['run', realModel, '--no-chat', '-p', 'The capital of France is', '-n', '4', '--temp', '0'])
    assert.match(answer.text, /Paris/)
  })

  test('the default model takes its weights, its KV cache and at most 32 MiB', needsModel, () => {
    const [{ plan, model }] = json(['inspect', realModel])
    assert.ok(plan.weights <= 1.02 * model.file_tensor_bytes, JSON.stringify(plan))
    const tokens = 200
    const [{ memory }] = json(['run', realModel, '--no-chat', '-p', 'Once', '-n', String(tokens), '--ignore-eos', '--temp', '0'])
    const kv = (plan.kv / plan.context_length) * Math.ceil((tokens + 2) / 64) * 64
    assert.ok(memory.process_peak <= plan.weights + kv + (32 << 20), JSON.stringify(memory))
  })
})

describe('output that goes nowhere', () => {
  test('a reader that leaves ends the program', async () => {
    const child = spawn(binary, ['run', tiny, '--ignore-eos', '--raw', '-p', 'a'], { timeout: HANG })
    child.stdout.destroy()
    const [status, signal] = await once(child, 'close')
    assert.notEqual(status, 0)
    assert.notEqual(signal, 'SIGTERM', 'it hung')
  })

  test('the same where SIGPIPE is ignored', () => {
    const script = `trap '' PIPE; ("$0" run "$1" --ignore-eos --raw -p a; echo "code $?" >&2) | true`
    const result = spawnSync('bash', ['-c', script, binary, tiny], { timeout: HANG })
    assert.match(result.stderr.toString(), /nibl: standard output: .*\ncode 1\n/)
  })

  test('a full disk is a failure', () => {
    const full = fs.openSync('/dev/full', 'w')
    for (const args of [['--help'], ['inspect', tiny], ['hash', tiny, '--prefill', '8'], ['run', tiny, '-p', 'a', '-n', '3'], ['run', tiny, '-p', 'a', '--json']]) {
      const result = nibl(args, { stdio: ['ignore', full, 'pipe'] })
      assert.equal(result.status, 1, args.join(' '))
      assert.match(result.stderr, /nibl: standard output: ./)
    }
    fs.closeSync(full)
  })
})

describe('inspect', () => {
  test('tells what the file holds', () => {
    const { stdout } = succeed(['inspect', tiny, '--tensors', '--metadata'])
    assert.match(stdout, /^architecture +llama$/m)
    assert.match(stdout, /^size +153472 bytes$/m)
    assert.match(stdout, /token_embd\.weight/)
    assert.match(stdout, /general\.architecture = "llama"/)
    assert.match(stdout, /^memory +[\d.]+ MiB/m)
  })

  test('--json is one document that agrees with itself', () => {
    const [report] = json(['inspect', tiny])
    assert.equal(report.file_bytes, fs.statSync(tiny).size)
    const { tensors, types, parameters } = report.model
    const product = (/** @type {number[]} */ shape) => shape.reduce((a, b) => a * b, 1)
    const sum = (/** @type {number[]} */ list) => list.reduce((a, b) => a + b, 0)
    assert.equal(sum(tensors.map((/** @type {any} */ t) => product(t.shape))), parameters)
    assert.equal(sum(Object.values(types).map(t => t.tensors)), tensors.length)
    const last = tensors.reduce((/** @type {any} */ a, /** @type {any} */ b) => (a.offset > b.offset ? a : b))
    assert.ok(last.offset + last.bytes <= report.file_bytes)
  })

  test('the plan follows the context', () => {
    const kv = (/** @type {string[]} */ ...more) => json(['inspect', tiny, ...more])[0].plan.kv
    assert.equal(kv('-c', '256'), 2 * kv('-c', '128'))
    assert.equal(kv('-ctk', 'f32', '-ctv', 'f32'), 2 * kv('-ctk', 'f16', '-ctv', 'f16'))
    assert.equal(kv('-ctk', 'q8_0', '-ctv', 'i8'), kv())
    assert.ok(kv() < kv('-ctk', 'f16', '-ctv', 'f16'))
  })

  test('the header is enough', () => {
    const bytes = fs.readFileSync(tiny)
    const { stdout } = succeed(['inspect', '-', '--tensors'], bytes)
    assert.match(stdout, /token_embd\.weight/)
  })

  test('a name cannot steer the terminal', () => {
    const bytes = Buffer.from(fs.readFileSync(tiny))
    const at = bytes.indexOf('tiny llama Q4_1')
    bytes.write('\x1b[31m"\n', at, 'latin1')
    const { stdout } = succeed(['inspect', file('escape.gguf', bytes), '--metadata'])
    assert.ok(!stdout.includes('\x1b'))
    assert.match(stdout, /\\u001b/)
  })

  test('the default model', needsModel, () => {
    const [report] = json(['inspect', realModel])
    assert.equal(report.model.parameters, 134_515_008)
    assert.equal(report.plan.context_length, 4096)
  })
})

describe('eval', () => {
  for (const type of ['f32', 'f16', 'bf16', 'q8_0', 'q4_0', 'q4_1'])
    test(`${type}: the logits of transformers at every position`, () => {
      const reference = fs.readFileSync(fixture(`tiny-llama-${type}.logits`))
      const count = reference.readUInt32LE(0)
      const ids = Array.from({ length: count }, (_, i) => reference.readInt32LE(8 + 4 * i))
      const expected = new Float32Array(new Uint8Array(reference.subarray(8 + 4 * count)).buffer)
      const tokens = tokenFile(`${type}.ids`, [ids, ids.slice(0, 5)])
      const out = path.join(folder, `${type}.logits`)
      const lines = json(['eval', fixture(`tiny-llama-${type}.gguf`), '--tokens', tokens, '--logits', out, '--activations', 'f32', '-ctk', 'f32', '-ctv', 'f32', '--chunk', '7'])
      const got = new Float32Array(new Uint8Array(fs.readFileSync(out)).buffer)
      const width = expected.length / count
      assert.equal(got.length, (count + 5) * width)
      let worst = 0
      got.forEach((value, i) => {
        const of = i < expected.length ? i : i - expected.length
        worst = Math.max(worst, Math.abs(value - expected[of]))
      })
      assert.ok(worst <= 1e-4, `differs by ${worst}`)
      assert.equal(lines.length, 2)
      assert.deepEqual(lines.map(l => l.tokens), [count, 5])
      assert.notEqual(lines[0].hash, lines[1].hash)
    })

  test('a text is scored by windows: alone, beside its reference, beside itself', () => {
    const model = fixture('tiny-llama-f16.gguf')
    const [window, chunks] = [12, 3]
    const name = file('scored.txt', 'There is the other thing: it is in the mind and on the water. '.repeat(8))
    const args = ['eval', model, '-f', name, '-c', String(window), '--chunks', String(chunks)]
    const compared = [...args, '-f', `some=${name}`, '--quantize', 'q4_0', '--reference', model]
    const [alone] = json(args)
    const [quantized, some] = json(compared)
    assert.deepEqual([some.text, some.windows, some.window, some.positions], ['some', chunks, window, chunks * (window / 2 - 1)])
    assert.deepEqual({ ...quantized, text: 'some' }, some, 'a text scored twice')
    assert.deepEqual(json([...compared, '-t', '1', '--chunk', '5'])[1], some, 'other threads and chunks')
    assert.deepEqual(some.reference_perplexity, alone.perplexity)
    assert.ok(some.kl.value > 1e-5 && some.kl_max >= some.kl_99 && some.kl_99 >= some.kl_median)
    assert.ok(Math.abs(some.perplexity_ratio.value - some.perplexity.value / alone.perplexity.value) < 1e-6)

    const [itself] = json([...args, '--reference', model])
    const none = { value: 0, error: 0 }
    const one = { value: 1, error: 0 }
    assert.deepEqual([itself.kl, itself.kl_max, itself.p_change_rms], [none, 0, none])
    assert.deepEqual([itself.same_top, itself.perplexity_ratio, itself.perplexity], [one, one, alone.perplexity])  })

  test('texts that cannot be scored are refused', () => {
    const empty = file('empty.txt', '')
    const short = file('short.txt', 'one')
    refuse(['eval', tiny, '-f', path.join(folder, 'none.txt')], 1, /none\.txt/)
    refuse(['eval', tiny, '-f', empty], 1, /is empty/)
    refuse(['eval', tiny, '-f', short], 1, /less than a window of 512/)
    refuse(['eval', tiny, '-f', short, '-c', '3'], 2, /-c must be 4 at least/)
    refuse(['eval', tiny, '-f', short, '--logits', 'x'], 2, /not both/)
    refuse(['eval', tiny, '--tokens', short, '--reference', tiny], 2, /not both/)
  })

  test('a failure leaves no file and keeps an old one', () => {
    const place = fs.mkdtempSync(path.join(folder, 'out-'))
    const out = path.join(place, 'logits.bin')
    const bad = tokenFile('bad.ids', [[1, 2, 3], [4, 100_000]])
    const args = ['eval', tiny, '--tokens', bad, '--logits', out]
    assert.equal(nibl(args).status, 1)
    assert.deepEqual(fs.readdirSync(place), [])
    fs.writeFileSync(out, 'old')
    assert.equal(nibl(args).status, 1)
    assert.deepEqual(fs.readdirSync(place), ['logits.bin'])
    assert.equal(fs.readFileSync(out, 'utf8'), 'old')
    succeed(['eval', tiny, '--tokens', tokenFile('good.ids', [[1]]), '--logits', out])
    assert.deepEqual(fs.readdirSync(place), ['logits.bin'])
    assert.equal(fs.statSync(out).size, 320 * 4)
  })

  test('an interrupted one leaves no file', needsModel, async () => {
    const place = fs.mkdtempSync(path.join(folder, 'out-'))
    const ids = tokenFile('long.ids', Array.from({ length: 64 }, () => Array.from({ length: 500 }, (_, i) => i)))
    const child = spawn(binary, ['eval', realModel, '--tokens', ids, '--logits', path.join(place, 'logits.bin')], { timeout: HANG })
    const closed = once(child, 'close')
    while (fs.readdirSync(place).length === 0 && child.exitCode === null) await new Promise(resolve => setTimeout(resolve, 10))
    child.kill('SIGTERM')
    const [status, signal] = await closed
    assert.deepEqual([status, signal], [1, null])
    assert.deepEqual(fs.readdirSync(place), [])
  })

  test('a pipe that has a name is written as it is', async () => {
    const pipe = path.join(fs.mkdtempSync(path.join(folder, 'pipe-')), 'logits')
    assert.equal(spawnSync('mkfifo', [pipe]).status, 0)
    const reader = spawn('cat', [pipe], { timeout: HANG })
    let bytes = 0
    reader.stdout.on('data', data => {
      bytes += data.length
    })
    const closed = once(reader, 'close')
    const writer = spawn(binary, ['eval', tiny, '--tokens', tokenFile('one.ids', [[1]]), '--logits', pipe], { timeout: HANG })
    const [status] = await once(writer, 'close')
    assert.equal(status, 0)
    assert.ok(fs.statSync(pipe).isFIFO(), 'it was replaced by a file')
    await closed
    assert.equal(bytes, 320 * 4)
  })

  test('token files that are none', () => {
    /** @type {[string, Buffer, RegExp][]} */
    const cases = [
      ['nothing', Buffer.alloc(0), /too few/],
      ['three', Buffer.alloc(3), /too few/],
      ['cut', Buffer.from([1, 0, 0, 0, 2, 0, 0, 0, 1, 0, 0, 0]), /ends inside sequence 0/],
      ['huge', Buffer.from([255, 255, 255, 255, 255, 255, 255, 255]), /ends inside sequence 0/],
      ['more', Buffer.from([0, 0, 0, 0, 9]), /1 bytes follow/],
      ['empty', Buffer.from([1, 0, 0, 0, 0, 0, 0, 0]), /sequence 0 is empty/],
    ]
    for (const [name, bytes, message] of cases)
      refuse(['eval', tiny, '--tokens', file(name, bytes), '--logits', path.join(folder, 'none')], 1, message)
    assert.ok(!fs.existsSync(path.join(folder, 'none')))
  })
})

describe('bench', () => {
  const args = ['bench', tiny, '-p', '16', '-n', '4', '-r', '3']

  test('a table like others have', () => {
    const { stdout } = succeed(args)
    const lines = stdout.trimEnd().split('\n')
    assert.equal(lines[0], '| model | size | params | backend | threads | test | t/s | median |')
    assert.match(lines[2], /^\| tiny llama Q4_1 \| [\d.]+ MiB \| 0\.21 M \| CPU .+ \| \d+ \| pp16 \| [\d.]+ ± [\d.]+ \| [\d.]+ \|$/)
    assert.match(lines[3], / tg4 /)
  })

  test('as CSV and as JSON', () => {
    const csv = succeed([...args, '-o', 'csv']).stdout.trimEnd().split('\n').map(line => line.split(','))
    assert.equal(csv.length, 3)
    for (const row of csv) assert.equal(row.length, csv[0].length)
    const { results } = JSON.parse(succeed([...args, '-o', 'json']).stdout)
    assert.deepEqual(results.map((/** @type {any} */ r) => r.test), ['pp16', 'tg4'])
    for (const { samples, mean, sd, median } of results) {
      assert.equal(samples.length, 3)
      const average = (samples[0] + samples[1] + samples[2]) / 3
      const square = samples.reduce((/** @type {number} */ sum, /** @type {number} */ x) => sum + (x - average) ** 2, 0)
      assert.ok(Math.abs(mean - average) <= 1e-6 * average)
      assert.ok(Math.abs(sd - Math.sqrt(square / 2)) <= 1e-4 * average)
      assert.equal(median, [...samples].sort((a, b) => a - b)[1])
    }
  })

  test('behind a context that is there already', () => {
    const { stdout } = succeed([...args, '-d', '40', '-o', 'json'])
    const { results } = JSON.parse(stdout)
    assert.deepEqual(results.map((/** @type {any} */ r) => r.test), ['pp16 @ d40', 'tg4 @ d40'])
    for (const { cpu_seconds_per_token } of results) assert.ok(cpu_seconds_per_token > 0)
  })

  test('one test alone', () => {
    assert.equal(succeed(['bench', tiny, '-p', '0', '-n', '2', '-r', '1']).stdout.trimEnd().split('\n').length, 3)
  })

  test('behind a context', () => {
    const { stdout } = succeed(['bench', tiny, '-p', '4', '-n', '4', '-d', '70', '-r', '2', '-o', 'csv'])
    assert.match(stdout, /,pp4 @ d70,[^]*,tg4 @ d70,/)
  })
})

describe('hash', () => {
  const args = ['hash', tiny, '--prefill', '100', '--decode', '10']

  test('is the same for any way of computing', () => {
    const [{ hash, tokens }] = json(args)
    assert.match(hash, /^[0-9a-f]{16}$/)
    assert.equal(tokens.length, 10)
    const ways = ['--chunk 1', '--chunk 7', '--chunk 128', '--threads 1', '--threads 2', '--threads 3', '--reuse', '--batch', '--batch --reuse --chunk 7 --threads 3']
    for (const way of ways) assert.equal(json([...args, ...way.split(' ')])[0].hash, hash, way)
    assert.equal(json(['hash', '-', ...args.slice(2)], fs.readFileSync(tiny))[0].hash, hash, 'from stdin')
    assert.match(succeed(args).stdout, new RegExp(`^${hash}  isa .+  threads \\d+  prefill 100  decode 10\n$`))
  })

  test('differs where the computation differs', () => {
    const ways = [[], ['--seed', '2'], ['--activations', 'f32'], ['-ctk', 'f16', '-ctv', 'f16'], ['-ctk', 'f32', '-ctv', 'f32'], ['--prefill', '99'], ['--decode', '9']]
    const hashes = ways.map(way => json([...args, ...way])[0].hash)
    assert.equal(new Set(hashes).size, ways.length)
  })
})
