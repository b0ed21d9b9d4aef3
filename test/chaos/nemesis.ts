import { machineNow } from '../../lib/cli/start/messages.ts'
import { BROKERS, CLIENTS, WORKERS } from './chaos-net.ts'
import type { ChaosNet } from './chaos-net.ts'
import { Dice } from './dice.ts'
import type { Fault } from './plan.ts'
import type { Wire } from './proxy.ts'

/** After a fault its victim is left alone for so long: what waits for it alone must be able to be served. */
const REST_MS = 3_000
/** All is well for so long before a fault that is to be alone. */
const CALM_MS = 1_000
const ALONE_AFTER_MS = 2_000
const POLL_MS = 20

/** A fault that has happened. Times are the machine's. */
export interface Happened {
  fault: Fault
  /** The victim, `name/instance`. */
  address: string
  atMs: number
  /** When it was over: the connections work again, the process goes on or is ready again. */
  overMs: number | null
}

export interface NemesisListener {
  begins(happened: Happened): void
  ends(happened: Happened): void
  /** What should have gone on or come back did not. */
  broke(why: string): void
}

/**
 * Does what the plan says, by one rule: at any time at least one broker and at least one worker (each of which serves
 * every service) are untouched, and a victim is left alone for REST_MS afterwards. A fault that would break the rule is
 * left out. No fault lasts longer than 5 s and the time of a restart, and a request has 30 s.
 */
export class Nemesis {
  readonly happened: Happened[] = []
  leftOut = 0
  readonly #net: ChaosNet
  readonly #plan: Iterator<Fault, never>
  readonly #dice: Dice
  readonly #listener: NemesisListener
  /** Until when each victim is to be left alone; Infinity while the fault lasts. */
  readonly #restUntilMs = new Map<string, number>()
  readonly #underWay = new Set<Promise<void>>()

  constructor(net: ChaosNet, plan: Iterator<Fault, never>, seed: number, listener: NemesisListener) {
    this.#net = net
    this.#plan = plan
    this.#dice = new Dice(seed)
    this.#listener = listener
  }

  /** Goes on until `signal`; resolves when everything has been healed. */
  async run(signal: AbortSignal): Promise<void> {
    while (!signal.aborted) {
      const fault = this.#plan.next().value
      await sleep(fault.afterMs, signal)
      if (fault.alone) await this.#calm(signal)
      if (signal.aborted) break
      if (!this.#allowed(fault)) {
        this.leftOut += 1
        continue
      }
      const over = this.#begin(fault, signal)
      if (!fault.alone) continue
      await over
      await sleep(ALONE_AFTER_MS, signal)
    }
    await Promise.all(this.#underWay)
  }

  #allowed({ target }: Fault): boolean {
    if (!this.#rested(target)) return false
    for (const names of [BROKERS, WORKERS])
      if (names.includes(target) && !names.some((name) => name !== target && this.#untouched(name))) return false
    return true
  }

  #untouched(name: string): boolean {
    return this.#restUntilMs.get(name) !== Infinity
  }

  #rested(name: string): boolean {
    return (this.#restUntilMs.get(name) ?? 0) <= performance.now()
  }

  async #calm(signal: AbortSignal): Promise<void> {
    while (!signal.aborted && ![...BROKERS, ...WORKERS, ...CLIENTS].every((name) => this.#rested(name)))
      await sleep(POLL_MS, signal)
    await sleep(CALM_MS, signal)
  }

  #begin(fault: Fault, signal: AbortSignal): Promise<void> {
    const { target } = fault
    const address = this.#net.living(target)?.address ?? target
    const happened: Happened = { fault, address, atMs: machineNow(), overMs: null }
    this.happened.push(happened)
    this.#listener.begins(happened)
    this.#restUntilMs.set(target, Infinity)
    const over = this.#do(fault, signal)
      .catch((error: unknown) => this.#listener.broke(`${fault.kind} of ${target}: ${String(error)}`))
      .then(() => {
        happened.overMs = machineNow()
        this.#restUntilMs.set(target, performance.now() + REST_MS)
        this.#listener.ends(happened)
        this.#underWay.delete(over)
      })
    this.#underWay.add(over)
    return over
  }

  async #do(fault: Fault, signal: AbortSignal): Promise<void> {
    const net = this.#net
    const { target, lastsMs } = fault
    switch (fault.kind) {
      case 'kill':
        await net.kill(target)
        await sleep(lastsMs, signal)
        await net.restart(target)
        return
      case 'drain':
        await net.drain(target)
        await sleep(lastsMs / 5, signal)
        await net.restart(target)
        return
      case 'stop': {
        const child = net.living(target)?.child
        child?.stop(lastsMs)
        await sleep(lastsMs, signal)
        child?.proceed()
        return
      }
      case 'reset':
        for (const wire of this.#some(fault)) wire.reset()
        return
      case 'cut':
        return this.#hurt(fault, signal, (wire) => wire.cutAfter(fault.bytes))
      case 'stall':
        return this.#hurt(fault, signal, (wire) => wire.stall(fault.direction))
      case 'slow':
        return this.#hurt(fault, signal, (wire) => wire.shape({ delayMs: fault.delayMs, bytesPerSecond: 1_000_000 }))
      default:
        return fault.kind satisfies never
    }
  }

  async #hurt(fault: Fault, signal: AbortSignal, hurt: (wire: Wire) => void): Promise<void> {
    const wires = this.#some(fault)
    for (const wire of wires) hurt(wire)
    await sleep(fault.lastsMs, signal)
    for (const wire of wires) wire.heal()
  }

  #some({ target, share }: Fault): Wire[] {
    return this.#net.wiresOf(target).filter(() => this.#dice.next() < share)
  }
}

/** Waits, or until the signal: then for nothing more. */
export function sleep(ms: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal?.aborted === true) return resolve()
    const wake = (): void => {
      clearTimeout(timer)
      signal?.removeEventListener('abort', wake)
      resolve()
    }
    const timer = setTimeout(wake, ms)
    signal?.addEventListener('abort', wake)
  })
}
