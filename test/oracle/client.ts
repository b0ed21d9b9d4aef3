/** SPEC 6.2. The requests of a node: each is an object that goes from state to state until it has ended. */
import { reject as rejectBody } from './bodies.ts'
import { Call, type Reply, type RequestOptions, type Way } from './call.ts'
import { writeEnvelope, writeId, type Route } from './envelope.ts'
import { Failure } from './failure.ts'
import { Malformed } from './fault.ts'
import { SEALED, has, type Frame } from './frame.ts'
import { codeOfNumber, delivery as deliveryNumber, frameType, limit, scopeOf } from './registry.ts'
import type { Machine } from './machine.ts'
import { RetryBudget } from './retry-budget.ts'
import type { ClientSeals } from './seal.ts'

/** SPEC 11.2. */
const TIMEOUT_MS = 500
const RETRIES = 3
const BACKOFF_MAX_MS = 1000
const BUDGET_WAIT_MS = 50
const IDLE_MS = 500

/** SPEC 6.2: what a REJECT of the attempt that is out means. */
const NOTHING_STARTED_HERE = ['NO_WORKER', 'DRAINING', 'NOT_STARTED']
const HOPELESS = ['EXPIRED', 'NOT_PERMITTED', 'CANCELLED', 'TOO_LARGE', 'REJECTED', 'SEAL_REQUIRED']

export class Client {
  readonly #address: string
  readonly #session: Buffer
  readonly #nextCounter: () => number
  readonly #ways: () => Way[]
  readonly #seals: ClientSeals
  readonly #calls = new Map<string, Call>()
  readonly #machine: Machine
  readonly #budget: RetryBudget
  /** Latency of each link, a moving average. */
  readonly #latency = new Map<Way, number>()
  /** Workers that have answered since the last ACKNOWLEDGE, and the link of their answer. */
  readonly #answeredBy = new Map<string, Way>()
  #idleTimer: (() => void) | null = null
  #closed = false
  /** The node is leaving: nothing new is asked. */
  draining = false

  constructor(options: {
    address: string
    session: Buffer
    nextCounter: () => number
    ways: () => Way[]
    seals: ClientSeals
    machine: Machine
  }) {
    this.#address = options.address
    this.#session = options.session
    this.#nextCounter = options.nextCounter
    this.#ways = options.ways
    this.#seals = options.seals
    this.#machine = options.machine
    this.#budget = new RetryBudget(this.#machine.now())
  }

  request(service: string, payload: Buffer, options: RequestOptions = {}): Promise<Reply> {
    return new Promise((resolve, reject) => {
      if (this.#closed || this.draining) return reject(new Failure('CLOSED'))
      const counter = this.#nextCounter()
      const id = writeId(this.#session, counter)
      const call = new Call(counter, id, service, payload, options, { resolve, reject }, this.#machine.now())
      if (payload.length > limit('PAYLOAD_BYTES_MAX')) return reject(new Failure('TOO_LARGE'))
      this.#calls.set(id.toString('hex'), call)
      this.#budget.earn()
      const endDeadline = this.#machine.after(call.deadline - this.#machine.now(), () => this.#fail(call))
      const abort = (): void => this.#abort(call)
      options.signal?.addEventListener('abort', abort, { once: true })
      const tidy = (): void => {
        endDeadline()
        options.signal?.removeEventListener('abort', abort)
      }
      call.settle.resolve = (reply) => {
        tidy()
        resolve(reply)
      }
      call.settle.reject = (failure) => {
        tidy()
        reject(failure)
      }
      if (options.signal?.aborted === true) return abort()
      if (call.delivery === 'exactly-once') this.#pin(call)
      else this.#attempt(call)
    })
  }

  get outstanding(): number {
    return this.#calls.size
  }

  isBusy(way: Way): boolean {
    return [...this.#calls.values()].some((call) => call.out?.way === way)
  }

  close(): void {
    this.#closed = true
    for (const call of Array.from(this.#calls.values())) this.#end(call, new Failure('CLOSED'))
    this.#idleTimer?.()
  }

  /** A link became usable, or a key became known. */
  wake(): void {
    for (const call of this.#calls.values()) if (call.state === 'waiting') this.#attempt(call)
  }

  lost(way: Way): void {
    for (const call of Array.from(this.#calls.values())) {
      const attempt = call.out
      if (attempt?.way !== way) continue
      call.out = null
      call.asked.push(way)
      if (!attempt.mayHaveLeft()) this.#again(call, { counted: false, pause: 0 })
      else {
        call.mayHaveRun = true
        if (!call.lostOnce) {
          call.lostOnce = true
          this.#again(call, { counted: true, pause: 0 })
        } else this.#retry(call, 0)
      }
    }
  }

  /** A REPLY or REJECT that came by `way`. */
  answer(way: Way, frame: Frame, route: Route): void {
    const call = this.#calls.get(route.originalId.toString('hex'))
    if (call === undefined || call.state === 'ended') return
    if (frame.type === frameType('REPLY')) this.#reply(call, way, frame, route)
    else this.#rejected(call, way, frame)
  }

  #reply(call: Call, way: Way, frame: Frame, route: Route): void {
    let { payload } = frame
    const seal = call.seal === 'undecided' ? null : call.seal
    if ((seal !== null) !== has(frame, SEALED)) return this.#forged(call, way)
    if (seal !== null) {
      const opened = seal.openReply(payload)
      if (opened === null) return this.#forged(call, way)
      if (opened.kind !== 0) return this.#end(call, new Failure('WORKER_ERROR', opened.payload.toString('utf8')))
      payload = opened.payload
    }
    if (call.out?.way === way) {
      const latency = this.#machine.now() - call.out.sentAt
      this.#latency.set(way, 0.8 * (this.#latency.get(way) ?? latency) + 0.2 * latency)
    }
    this.#answeredBy.set(route.sender, way)
    this.#end(call, {
      payload: Buffer.from(payload),
      worker: route.sender,
      broker: way.broker,
      attempts: call.attempts,
      possibleDuplicate: call.mayHaveRun && call.attempts > 1,
    })
  }

  #forged(call: Call, way: Way): void {
    call.forged = true
    call.mayHaveRun = true
    if (call.out?.way !== way) return
    call.out = null
    call.avoided.set(way, Infinity)
    call.asked.push(way)
    this.#retry(call, 0)
  }

  #rejected(call: Call, way: Way, frame: Frame): void {
    const body = readReject(frame.payload)
    const code = body === null ? 'INTERNAL' : codeOfNumber(body.code)
    const sealed = call.seal !== 'undecided' && call.seal !== null
    if (code === 'WORKER_ERROR') {
      if (sealed) return this.#forged(call, way)
      return this.#end(call, new Failure('WORKER_ERROR', body?.message ?? ''))
    }
    if (code === 'UNCERTAIN') {
      call.mayHaveRun = true
      return this.#end(call, new Failure('UNKNOWN'))
    }
    if (code === 'WORKER_LOST') call.mayHaveRun = true
    if (call.out?.way !== way) return
    call.out = null
    call.lastCode = code
    if (code === 'WORKER_LOST') {
      call.asked.push(way)
      return this.#retry(call, 0)
    }
    if (NOTHING_STARTED_HERE.includes(code)) {
      call.asked.push(way)
      if (this.#ways().some((other) => other.usable && !call.asked.includes(other)))
        return this.#again(call, { counted: false, pause: 0 })
      call.asked = []
      return this.#retry(call, this.#nextPause(call))
    }
    if (code === 'REQUEST_FORGED' || (code === 'SEAL_REQUIRED' && sealed)) {
      call.asked.push(way)
      return this.#retry(call, 0)
    }
    if (code === 'BUSY') {
      call.asked.push(way)
      return this.#retry(call, Math.max(this.#nextPause(call), body?.retryAfter ?? 0))
    }
    if (!HOPELESS.includes(code)) call.mayHaveRun = true
    this.#fail(call)
  }

  #nextPause(call: Call): number {
    const pause = call.pauseMs * (0.5 + this.#machine.chance())
    call.pauseMs = Math.min(2 * call.pauseMs, BACKOFF_MAX_MS)
    return pause
  }

  /** SPEC 6.2: *retry* has to be paid for. */
  #retry(call: Call, pause: number): void {
    if (this.#budget.spend(this.#machine.now())) return this.#again(call, { counted: true, pause })
    if (!call.mayHaveRun) return this.#fail(call)
    this.#backoff(call, BUDGET_WAIT_MS, () => this.#retry(call, 0))
  }

  #again(call: Call, { counted, pause }: { counted: boolean; pause: number }): void {
    if (counted) call.retries++
    const bound = call.options.retries ?? (call.delivery === 'exactly-once' ? Infinity : RETRIES)
    const usedUp = call.retries > bound || call.attempts > limit('RETRY_COUNT_MAX')
    const onlyOnce = call.delivery === 'at-most-once' && call.mayHaveRun
    if (usedUp || onlyOnce || this.#machine.now() + pause >= call.deadline) return this.#fail(call)
    if (pause > 0) return this.#backoff(call, pause, () => this.#next(call))
    this.#next(call)
  }

  #backoff(call: Call, pause: number, then: () => void): void {
    call.state = 'backoff'
    this.#after(call, pause, then)
  }

  #next(call: Call): void {
    // Nobody has seen it: another journal is as good.
    if (call.delivery === 'exactly-once' && !call.mayHaveRun) this.#pin(call)
    else this.#attempt(call)
  }

  #after(call: Call, ms: number, then: () => void): void {
    call.timer?.()
    call.timer = this.#machine.after(ms, () => {
      call.timer = null
      if (call.state !== 'ended') then()
    })
  }

  /** SPEC 6.6: an exactly-once request is bound to a journal before its first attempt. */
  #pin(call: Call): void {
    call.state = 'pinning'
    const timeLeft = call.deadline - this.#machine.now()
    const asked = this.request('$broker.journals', Buffer.from(call.service), {
      deadlineMs: timeLeft,
      retries: 0,
      sealing: 'never',
    })
    asked.then(
      (reply) => {
        if (call.state !== 'pinning') return
        const journals = JSON.parse(reply.payload.toString('utf8')) as { journal: string }[]
        const chosen = journals[Math.floor(this.#machine.chance() * journals.length)]
        if (chosen === undefined) return this.#again(call, { counted: true, pause: this.#nextPause(call) })
        const receiver = `${call.service}#${chosen.journal}`
        if (receiver !== call.receiver) call.seal = 'undecided'
        call.receiver = receiver
        this.#attempt(call)
      },
      () => {
        if (call.state === 'pinning') this.#again(call, { counted: true, pause: this.#nextPause(call) })
      },
    )
  }

  #attempt(call: Call): void {
    call.state = 'waiting'
    const way = this.#choose(call)
    if (way === null || !this.#decideSeal(call)) return
    const seal = call.seal === 'undecided' ? null : call.seal
    const payload = seal === null ? call.payload : seal.request
    if (payload.length > limit('PAYLOAD_BYTES_MAX')) {
      call.lastCode = 'TOO_LARGE'
      return this.#fail(call)
    }
    const timeLeft = Math.floor(call.deadline - this.#machine.now())
    if (timeLeft <= 0) return this.#fail(call)
    const envelope = writeEnvelope({
      id: call.id,
      receiver: call.receiver,
      sender: this.#address,
      retryCount: call.attempts,
      possibleDuplicate: call.mayHaveRun,
      timeToLive: Math.min(timeLeft, limit('TIME_TO_LIVE_MS_MAX')),
      watermark: this.#watermark(),
      delivery: deliveryNumber(call.delivery),
    })
    call.attempts++
    call.state = 'sent'
    const handed = way.handed()
    call.out = { way, sentAt: this.#machine.now(), mayHaveLeft: handed }
    call.ways.push(way)
    this.#after(call, call.delivery === 'at-most-once' ? timeLeft : (call.options.timeoutMs ?? TIMEOUT_MS), () =>
      this.#timeOut(call),
    )
    way.send({ type: frameType('REQUEST'), flags: seal === null ? 0 : SEALED, envelope, payload })
  }

  /** Whether the attempt may go: not when it has to be sealed and no key is known. */
  #decideSeal(call: Call): boolean {
    if (call.seal !== 'undecided') return true
    const sealing = call.options.sealing ?? 'auto'
    if (sealing === 'never' || call.service.startsWith('$')) call.seal = null
    else {
      const seal = this.#seals.seal(call.receiver, call.id, call.payload, Math.ceil(call.deadline))
      if (seal === null && sealing === 'required') {
        call.lastCode = 'SEAL_REQUIRED'
        return false
      }
      call.seal = seal
    }
    return true
  }

  #timeOut(call: Call): void {
    const attempt = call.out
    if (attempt === null) return
    call.out = null
    call.mayHaveRun = true
    call.avoided.set(attempt.way, this.#machine.now())
    call.asked = [attempt.way]
    this.#retry(call, 0)
  }

  /** The cheaper of two taken at random; those that were slow or have just refused come last. */
  #choose(call: Call): Way | null {
    const usable = this.#ways().filter((way) => way.usable)
    if (call.attempts === 0 && call.options.broker !== undefined) {
      const named = usable.find((way) => way.broker === call.options.broker)
      if (named !== undefined) return named
    }
    const isGood = (way: Way): boolean =>
      !call.asked.includes(way) && !(way.heardAt < (call.avoided.get(way) ?? -Infinity))
    const good = usable.filter(isGood)
    const pool = good.length > 0 ? good : usable
    const pick = (): Way | null => pool[Math.floor(this.#machine.chance() * pool.length)] ?? null
    const [one, other] = [pick(), pick()]
    if (one === null || other === null) return null
    return this.#cost(other) < this.#cost(one) ? other : one
  }

  #cost(way: Way): number {
    const out = [...this.#calls.values()].filter((call) => call.out?.way === way).length
    return (out + 1) * (this.#latency.get(way) ?? 1)
  }

  /** SPEC 6.2: the lowest counter of the session that has not ended here. */
  #watermark(): number {
    return Math.min(...[...this.#calls.values()].map((call) => call.counter))
  }

  #abort(call: Call): void {
    if (call.state === 'ended') return
    if (call.out !== null)
      call.out.way.send({
        type: frameType('CANCEL'),
        flags: 0,
        envelope: writeEnvelope({
          id: writeId(this.#session, this.#nextCounter()),
          originalId: call.id,
          receiver: call.receiver,
          sender: this.#address,
        }),
        payload: Buffer.alloc(0),
      })
    this.#end(call, new Failure('CANCELLED'))
  }

  /** SPEC 6.2: *fail* is honest. */
  #fail(call: Call): void {
    if (call.out?.mayHaveLeft() === true) call.mayHaveRun = true
    let code = call.lastCode
    if (call.forged) code = 'REPLY_FORGED'
    else if (call.mayHaveRun) code = 'UNKNOWN'
    else if (call.attempts === 0) code = code === 'SEAL_REQUIRED' || code === 'TOO_LARGE' ? code : 'NOT_SENT'
    else if (code === null || scopeOf(code) !== 'request') code = 'NOT_STARTED'
    this.#end(call, new Failure(code))
  }

  #end(call: Call, how: Reply | Failure): void {
    if (call.state === 'ended') return
    call.state = 'ended'
    call.out = null
    call.timer?.()
    this.#calls.delete(call.id.toString('hex'))
    if (how instanceof Failure) call.settle.reject(how)
    else call.settle.resolve(how)
    if (this.#calls.size > 0 || this.#closed) return
    this.#idleTimer?.()
    this.#idleTimer = this.#machine.after(IDLE_MS, () => this.#acknowledge())
  }

  /** SPEC 6.2: once nothing flows, workers are told what this client waits for no longer. */
  #acknowledge(): void {
    this.#idleTimer = null
    if (this.#calls.size > 0) return
    for (const [worker, way] of this.#answeredBy) {
      const counter = this.#nextCounter()
      const envelope = writeEnvelope({
        id: writeId(this.#session, counter),
        receiver: worker,
        sender: this.#address,
        watermark: counter,
      })
      if (way.usable) way.send({ type: frameType('ACKNOWLEDGE'), flags: 0, envelope, payload: Buffer.alloc(0) })
    }
    this.#answeredBy.clear()
  }
}

function readReject(payload: Buffer): { code: number; retryAfter: number; message: string } | null {
  try {
    return rejectBody.read(payload)
  } catch (error) {
    if (error instanceof Malformed) return null
    throw error
  }
}
