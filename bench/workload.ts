/** What one measurement asks of a client: so many requests of one size at a time, each reply as large as its request. */
export interface Workload {
  payloadBytes: number
  outstanding: number
}

export interface Run extends Workload {
  seconds: number
  /** Take the time of each round trip. It costs the client two clock readings a request, so only latency runs ask. */
  latency: boolean
  /** Spread the requests evenly over this many services; adaptnet only. */
  services?: readonly string[]
}

/** Microseconds. */
export interface Latency {
  p50: number
  p99: number
  p999: number
}

export interface RunOutcome {
  roundTrips: number
  seconds: number
  latency: Latency | null
}

/** Samples kept at most; a run that takes more says nothing new with the rest. */
const SAMPLES_MAX = 1_000_000
/** How many replies pass between two looks at the clock where nobody needs it for each. */
const CLOCK_EVERY = 32

class Samples {
  #micros = new Float64Array(16_384)
  #count = 0

  add(milliseconds: number): void {
    if (this.#count === this.#micros.length) {
      if (this.#count >= SAMPLES_MAX) return
      const grown = new Float64Array(this.#count * 2)
      grown.set(this.#micros)
      this.#micros = grown
    }
    this.#micros[this.#count++] = milliseconds * 1_000
  }

  latency(): Latency {
    const sorted = this.#micros.subarray(0, this.#count).sort()
    const at = (share: number): number => sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? 0
    return { p50: at(0.5), p99: at(0.99), p999: at(0.999) }
  }
}

/** How a client sends one request, and how long the payload of its reply is. */
export interface Caller<Reply> {
  ask: (payload: Buffer, index: number) => Promise<Reply>
  lengthOf: (reply: Reply) => number
}

/** Keeps `outstanding` requests out for so long, each lane one after the other, as users of promises do. */
export async function askInLanes<Reply>({ ask, lengthOf }: Caller<Reply>, run: Run): Promise<RunOutcome> {
  const payload = Buffer.alloc(run.payloadBytes, 7)
  const samples = run.latency ? new Samples() : null
  let index = 0
  let roundTrips = 0
  let over = false
  const startedMs = performance.now()
  const endMs = startedMs + run.seconds * 1_000
  const lane = async (): Promise<void> => {
    while (!over) {
      const sentMs = samples === null ? 0 : performance.now()
      const reply = await ask(payload, index++)
      if (samples !== null) samples.add(performance.now() - sentMs)
      if (lengthOf(reply) !== run.payloadBytes) {
        over = true
        throw new Error(`a reply of ${lengthOf(reply)} bytes to a request of ${run.payloadBytes}`)
      }
      roundTrips += 1
      if (roundTrips % CLOCK_EVERY === 0 || samples !== null) over ||= performance.now() >= endMs
    }
  }
  // A slow system may not come to the next look at the clock for long.
  const alarm = setTimeout(() => (over = true), run.seconds * 1_000)
  try {
    await Promise.all(Array.from({ length: run.outstanding }, lane))
  } finally {
    clearTimeout(alarm)
  }
  return { roundTrips, seconds: (performance.now() - startedMs) / 1_000, latency: samples?.latency() ?? null }
}

/**
 * The same without a promise a request, for ends that work on bytes or with callbacks: keeps a window of requests full.
 * `send` sends so many; whoever gets replies calls `replied`.
 */
export class Window {
  readonly #run: Run
  readonly #send: (count: number) => void
  readonly #samples: Samples | null
  #startedMs = 0
  #endMs = 0
  #sentMs = 0
  #sent = 0
  #received = 0
  #unlooked = 0
  #over = false
  #ended: ((outcome: RunOutcome) => void) | null = null

  constructor(run: Run, send: (count: number) => void) {
    this.#run = run
    this.#send = send
    // Times of single requests are known only where there is one at a time.
    this.#samples = run.latency && run.outstanding === 1 ? new Samples() : null
  }

  start(): Promise<RunOutcome> {
    this.#startedMs = this.#sentMs = performance.now()
    this.#endMs = this.#startedMs + this.#run.seconds * 1_000
    this.#sent = this.#run.outstanding
    this.#send(this.#sent)
    return new Promise((resolve) => (this.#ended = resolve))
  }

  replied(count: number): void {
    this.#received += count
    this.#unlooked += count
    if (this.#samples !== null || this.#unlooked >= CLOCK_EVERY || this.#unlooked >= this.#run.outstanding) {
      this.#unlooked = 0
      const nowMs = performance.now()
      this.#samples?.add(nowMs - this.#sentMs)
      this.#sentMs = nowMs
      this.#over ||= nowMs >= this.#endMs
    }
    if (!this.#over) {
      this.#sent += count
      return this.#send(count)
    }
    if (this.#received < this.#sent) return
    const seconds = (performance.now() - this.#startedMs) / 1_000
    this.#ended?.({ roundTrips: this.#received, seconds, latency: this.#samples?.latency() ?? null })
  }
}
