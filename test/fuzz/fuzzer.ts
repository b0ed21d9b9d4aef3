import type { Coverage } from './coverage.ts'
import { History } from './history.ts'
import { Mutator } from './mutator.ts'
import { Chance, Violation } from './target.ts'
import type { ChanceState, Subject, Target } from './target.ts'

/** Inputs between two looks at the coverage: many when nothing new is found, few when much is. */
const BATCH_MIN = 32
const BATCH_MAX = { stateless: 32_768, stateful: 256 } as const
/** A subject that remembers is replaced after this many inputs: what a failure needs is then among them. */
const SESSION_INPUTS_MAX = 512
/** How often good input is given between the others. */
const PROBE_INPUTS = { stateless: 64, stateful: 16 } as const
/** What is freed at the end of a turn would otherwise wait for the end of the batch, and rejections too. */
const TURN_INPUTS = 1_024
/** One input may take this long; when it does, it is given twice more before it is held against it. */
const INPUT_MS_MAX = 250
const POOL_MAX = 4_096

export interface FuzzOptions {
  target: Target
  seed: number
  /** Entries of the corpus beside the target's own seeds; one of several inputs is one history. */
  corpus: readonly (readonly Buffer[])[]
  /** Null fuzzes blindly, and therefore fast. */
  coverage: Coverage | null
  inputsMax: number
  /** It ends as well when so many inputs in a row have reached nothing new. */
  quietMax?: number
  /** Milliseconds of a clock that never jumps; the run ends at `untilMs` of it. */
  now: () => number
  untilMs: number
}

export interface Failure {
  /** What has to be given to a fresh subject, in order; the last one shows it. */
  inputs: Buffer[]
  error: unknown
}

export interface FuzzRun {
  inputs: number
  milliseconds: number
  /** Inputs that reached something new, in the order in which they were found. */
  found: Buffer[]
  /** Different outcomes. */
  words: Set<string>
  slowestMs: number
  failure: Failure | null
}

/** Gives a target input after input, made of those that have reached something new so far. */
export class Fuzzer {
  readonly #options: FuzzOptions
  readonly #chance: Chance
  readonly #pool: Buffer[]
  readonly #mutator: Mutator
  readonly #run: FuzzRun
  readonly #probeInputs: number
  #subject!: Subject
  /** What the subject was given, or what came after the last good probe. */
  readonly #history: History = new History()
  #sinceProbe = 0
  /** News that did not show again when its inputs were given again: taken as known the next time. */
  #elusive = false
  #escaped: unknown = null

  constructor(options: FuzzOptions) {
    const { target, seed, corpus } = options
    this.#options = options
    this.#chance = new Chance(seed)
    this.#pool = [...target.seeds(), ...corpus.flat()]
    if (this.#pool.length === 0) this.#pool.push(Buffer.alloc(0))
    this.#probeInputs = PROBE_INPUTS[target.stateful ? 'stateful' : 'stateless']
    this.#mutator = new Mutator(this.#chance, target)
    this.#run = { inputs: 0, milliseconds: 0, found: [], words: new Set(), slowestMs: 0, failure: null }
  }

  async run(): Promise<FuzzRun> {
    const { now, untilMs, inputsMax, quietMax = Infinity, coverage } = this.#options
    const beganMs = now()
    const escaped = (error: unknown): void => {
      this.#escaped ??= error
    }
    process.on('unhandledRejection', escaped)
    process.on('uncaughtException', escaped)
    // Most inputs end in an error, and a stack costs more than the input. A failure is run once more to show its own.
    const { stackTraceLimit } = Error
    Error.stackTraceLimit = 0
    coverage?.discard()
    try {
      this.#subject = await this.#options.target.open()
      await this.#replay()
      coverage?.take(true)
      let batch = BATCH_MIN
      const most = BATCH_MAX[this.#options.target.stateful ? 'stateful' : 'stateless']
      let newsAt = this.#run.inputs
      while (this.#run.inputs < inputsMax && this.#run.inputs - newsAt < quietMax && now() < untilMs) {
        const news = await this.#batch(Math.min(batch, inputsMax - this.#run.inputs))
        if (news) newsAt = this.#run.inputs
        batch = news ? Math.max(BATCH_MIN, batch >> 2) : Math.min(most, batch * 2)
      }
      await this.#probe()
    } catch (error) {
      this.#run.failure ??= { inputs: this.#history.inputs(), error }
    } finally {
      Error.stackTraceLimit = stackTraceLimit
      process.off('unhandledRejection', escaped)
      process.off('uncaughtException', escaped)
    }
    this.#run.milliseconds = now() - beganMs
    return this.#run
  }

  /** Everything that is known already: each entry of the corpus is a history of its own. */
  async #replay(): Promise<void> {
    const { target, corpus } = this.#options
    for (const entry of [...target.seeds().map((input) => [input]), ...corpus]) {
      await this.#reopen()
      for (const input of entry) await this.#give(input)
    }
    await this.#reopen()
  }

  async #batch(size: number): Promise<boolean> {
    const { coverage } = this.#options
    const { state } = this.#chance
    const historyBefore = coverage !== null && this.#options.target.stateful ? this.#history.inputs() : []
    const wordsBefore = this.#run.words.size
    const surprising: Buffer[] = []
    for (let left = size; left > 0; left--) {
      const input = this.#mutator.make(this.#pool)
      const { size: words } = this.#run.words
      const pending = this.#give(input)
      if (pending !== null) await pending
      if (this.#run.words.size > words) surprising.push(Buffer.from(input))
      if (left % TURN_INPUTS === 0) await turn()
    }
    let news = this.#run.words.size > wordsBefore
    if (coverage !== null && coverage.take(this.#elusive)) {
      news = true
      if (!this.#elusive) this.#elusive = !(await this.#attribute(this.#again(state, size), historyBefore))
      else this.#elusive = false
    }
    for (const input of surprising) this.#keep(input)
    if (this.#options.target.stateful && this.#history.length >= SESSION_INPUTS_MAX) await this.#reopen()
    return news
  }

  /** The inputs of a batch once more: the same seed and the same pool make the same. */
  #again(state: ChanceState, size: number): Buffer[] {
    const after = this.#chance.state
    this.#chance.state = state
    const inputs = Array.from({ length: size }, () => Buffer.from(this.#mutator.make(this.#pool)))
    this.#chance.state = after
    return inputs
  }

  /** Finds the inputs that reached something new, and keeps them. False when none of them does so again. */
  async #attribute(inputs: readonly Buffer[], history: readonly Buffer[]): Promise<boolean> {
    const coverage = this.#options.coverage as Coverage
    if (this.#options.target.stateful) {
      await this.#reopen()
      for (const input of history) await this.#give(input)
      coverage.discard()
    }
    const reached: Buffer[] = []
    const narrow = async (from: number, to: number): Promise<void> => {
      const step = this.#options.target.stateful ? 1 : Math.max(1, Math.ceil((to - from) / 8))
      for (let at = from; at < to; at += step) {
        const end = Math.min(to, at + step)
        for (let index = at; index < end; index++) await this.#give(inputs[index] as Buffer)
        if (!coverage.take(step === 1)) continue
        if (step === 1) reached.push(inputs[at] as Buffer)
        else await narrow(at, end)
      }
    }
    await narrow(0, inputs.length)
    for (const input of reached) this.#keep(input)
    return reached.length > 0
  }

  #keep(input: Buffer): void {
    this.#run.found.push(input)
    if (this.#pool.length < POOL_MAX) this.#pool.push(input)
    else this.#pool[this.#chance.below(POOL_MAX)] = input
  }

  /** Null when it is done, which for most targets it is at once: a turn for each input would cost more than the input. */
  #give(input: Buffer): Promise<void> | null {
    this.#history.push(input)
    this.#run.inputs += 1
    const beganMs = this.#options.now()
    const word = this.#subject.judge(input)
    if (typeof word !== 'string') return word.then((late) => this.#judged(late, beganMs) ?? undefined)
    return this.#judged(word, beganMs)
  }

  #judged(word: string, beganMs: number): Promise<void> | null {
    this.#run.words.add(word)
    const tookMs = this.#options.now() - beganMs
    if (tookMs > this.#run.slowestMs) this.#run.slowestMs = tookMs
    if (tookMs > INPUT_MS_MAX) return this.#judgeSlowness(tookMs)
    this.#sinceProbe += 1
    return this.#sinceProbe >= this.#probeInputs ? this.#probe() : null
  }

  #probe(): Promise<void> | null {
    const pending = this.#subject.probe()
    if (pending !== undefined) return pending.then(() => this.#probed())
    this.#probed()
    return null
  }

  #probed(): void {
    if (this.#escaped !== null) throw this.#escaped
    this.#sinceProbe = 0
    if (!this.#options.target.stateful) this.#history.clear()
  }

  async #reopen(): Promise<void> {
    await this.#probe()
    if (this.#options.target.stateful) this.#subject = await this.#options.target.open()
    this.#history.clear()
  }

  /** A machine that is busy, or stands still, is not the input's fault: what it takes of the processor is. */
  async #judgeSlowness(firstMs: number): Promise<void> {
    let leastMs = firstMs
    const inputs = this.#history.inputs()
    for (let times = 0; times < 2; times++) leastMs = Math.min(leastMs, await slownessOf(this.#options.target, inputs))
    if (leastMs > INPUT_MS_MAX) throw new Violation(`one input takes ${Math.round(leastMs)} ms of the processor`)
  }
}

function turn(): Promise<void> {
  return new Promise((resolve) => {
    setImmediate(resolve)
  })
}

/** Milliseconds of the processor that the last input takes. */
async function slownessOf(target: Target, history: readonly Buffer[]): Promise<number> {
  const subject = await target.open()
  for (const input of target.stateful ? history.slice(0, -1) : []) await subject.judge(input)
  const before = process.cpuUsage()
  await subject.judge(history.at(-1) as Buffer)
  return process.cpuUsage(before).user / 1_000
}

/** What a fresh subject lets out for these inputs, or null. */
export async function failureOf(target: Target, inputs: readonly Buffer[]): Promise<unknown> {
  const subject = await target.open()
  try {
    for (const input of inputs) {
      await subject.judge(input)
      await subject.probe()
    }
  } catch (error) {
    return error
  }
  return null
}
