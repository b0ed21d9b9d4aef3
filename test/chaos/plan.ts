import { BROKERS, CLIENTS, WORKERS } from './chaos-net.ts'
import { Dice } from './dice.ts'
import type { Direction } from './proxy.ts'

/**
 * `kill`, `stop` and `drain` are SIGKILL, SIGSTOP and SIGTERM; the others befall the connections: `reset` and `cut` end
 * them, between two records or within one, `stall` keeps them open and silent, `slow` delays and throttles them.
 */
export type FaultKind = 'kill' | 'stop' | 'drain' | 'reset' | 'cut' | 'stall' | 'slow'

export interface Fault {
  /** How long after the one before it. */
  afterMs: number
  target: string
  kind: FaultKind
  /** How long it lasts, or how long a killed process stays away. */
  lastsMs: number
  /** Of the ways that lead to the target, this part is hit. */
  share: number
  direction: Direction
  delayMs: number
  bytes: number
  /** Waits until all is well, and nothing else happens until it is over: what it costs can be told. */
  alone: boolean
}

const GAP_MS_MEAN = 450
/** As long as a drain needs to be told apart from what went before it. */
const ALONE_GAP_MS = 200
const ALONE_EVERY = 11
const DIRECTIONS: readonly Direction[] = ['up', 'down', 'both']
const ALONE: readonly FaultKind[] = ['kill', 'stop', 'reset', 'stall']

const TARGETS = { broker: 42, worker: 42, client: 16 }
const OF_SERVERS: Readonly<Record<FaultKind, number>> = {
  kill: 22,
  stop: 22,
  drain: 12,
  reset: 16,
  cut: 8,
  stall: 14,
  slow: 6,
}
const OF_CLIENTS: Readonly<Record<FaultKind, number>> = {
  kill: 6,
  stop: 20,
  drain: 0,
  reset: 30,
  cut: 14,
  stall: 20,
  slow: 10,
}

/** The faults of a seed, without end. */
export function* planOf(seed: number): Generator<Fault, never> {
  const dice = new Dice(seed)
  for (let number = 1; ; number++) {
    const alone = number % ALONE_EVERY === 0
    yield alone ? aloneFault(dice, Math.floor(number / ALONE_EVERY)) : fault(dice)
  }
}

function fault(dice: Dice): Fault {
  const role = dice.weighted(TARGETS)
  const target = dice.pick(role === 'broker' ? BROKERS : role === 'worker' ? WORKERS : CLIENTS)
  const kind = dice.weighted(role === 'client' ? OF_CLIENTS : OF_SERVERS)
  return {
    afterMs: Math.round(-Math.log(1 - dice.next()) * GAP_MS_MEAN),
    target,
    kind,
    // Short ones are more frequent than long ones, between 0.2 and 5 s.
    lastsMs: Math.round(200 * 25 ** dice.next()),
    share: dice.next() < 0.5 ? 1 : 0.3 + 0.5 * dice.next(),
    direction: dice.pick(DIRECTIONS),
    delayMs: dice.between(1, 100),
    bytes: dice.between(1, 40_000),
    alone: false,
  }
}

/** A broker goes, in each of four ways in turn: those that a caller notices at once, and those that it does not. */
function aloneFault(dice: Dice, number: number): Fault {
  return {
    afterMs: ALONE_GAP_MS,
    target: dice.pick(BROKERS),
    kind: ALONE[number % ALONE.length] as FaultKind,
    lastsMs: dice.between(1_500, 3_000),
    share: 1,
    direction: 'both',
    delayMs: 0,
    bytes: 0,
    alone: true,
  }
}
