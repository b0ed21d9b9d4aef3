/** The run itself: requests, a broker and a worker that die in the middle and come back, and what came of it. */
import { setTimeout as pause } from 'node:timers/promises'
import { addCounts, computeFigures } from './figures.ts'
import type { Figures, Kill } from './figures.ts'
import { CLIENTS } from './local-net.ts'
import type { LocalNet } from './local-net.ts'
import type { ClientProgress, ClientResult, FromChild, StartEvent } from './messages.ts'
import { CPU_EVERY_MS, machineNow } from './messages.ts'

const WINDOW = 64
/** How long a killed process stays away before it is started again. */
const AWAY_MS = 500
const POLL_MS = 50
const VICTIMS = [
  { process: 'broker-1', killedAt: 1 / 3 },
  { process: 'worker-1', killedAt: 2 / 3 },
] as const

/** What the clients have told so far. */
export class Observation {
  readonly #progress = new Map<string, ClientProgress>()
  readonly results: Map<string, ClientResult> = new Map()

  told(process: string, message: FromChild): void {
    if (message.type === 'progress') this.#progress.set(process, message)
    else if (message.type === 'result') this.results.set(process, message)
  }

  get ended(): number {
    return [...this.#progress.values()].reduce((total, { ended }) => total + ended, 0)
  }

  /** How many instances of a process have brought or made replies: one more when it is back. */
  instances(process: string): number {
    const parts = [...this.#progress.values()].flatMap(({ brokers, workers }) => [brokers, workers])
    return Object.keys(addCounts(parts)).filter((address) => address.startsWith(`${process}/`)).length
  }
}

export interface TrialOptions {
  net: LocalNet
  observation: Observation
  /** The run has at least so many requests, and lasts at least so long. */
  requests: number
  lastsMs: number
  signal: AbortSignal
  event: (event: StartEvent) => void
  /** Milliseconds since the command began. */
  sinceBegin: () => number
}

/** Sends the requests while processes die. The clients are ready; resolves when each request has ended. */
export async function runTrial(options: TrialOptions): Promise<Figures> {
  const { net, observation, requests, lastsMs } = options
  const kills: Kill[] = []
  const beganMs = machineNow()
  const share = (): number => Math.min(1, observation.ended / requests, (machineNow() - beganMs) / Math.max(1, lastsMs))
  const cpuBefore = net.cpuMicroseconds
  CLIENTS.forEach((name, index) => {
    const part = Math.ceil(requests / CLIENTS.length)
    net.child(name).send({ type: 'go', requests: part, first: index, stride: CLIENTS.length, window: WINDOW })
  })
  for (const { process, killedAt } of VICTIMS) {
    await reach(options, share, () => share() >= killedAt)
    kills.push(await killAndRestart(options, share, process))
  }
  await reach(options, share, () => machineNow() - beganMs >= lastsMs)
  // A short run may be through before the processes are back: then the clients go on until they are.
  for (const name of CLIENTS) net.child(name).send({ type: 'release' })
  await reach(options, share, () => observation.results.size === CLIENTS.length)
  const clients = [...observation.results.values()]
  const endedMs = machineNow()
  // The last figures of CPU time are on their way.
  await pause(2 * CPU_EVERY_MS, undefined, { signal: options.signal })
  return computeFigures({ clients, kills, beganMs, endedMs, cpuMicroseconds: net.cpuMicroseconds - cpuBefore })
}

async function killAndRestart(options: TrialOptions, share: () => number, process: string): Promise<Kill> {
  const { net, observation, event, sinceBegin } = options
  const before = observation.instances(process)
  const { pid } = net.child(process)
  const killedMs = machineNow()
  const gone = net.kill(process)
  event({ type: 'killed', process, pid, answered: observation.ended, atMs: sinceBegin() })
  await gone
  await pause(AWAY_MS, undefined, { signal: options.signal })
  const again = await (process.startsWith('broker') ? net.startBroker(process) : net.startWorker(process))
  const restartedMs = machineNow()
  event({ type: 'restarted', process, pid: again.pid, atMs: sinceBegin() })
  await reach(options, share, () => observation.instances(process) > before)
  event({ type: 'recovered', process, atMs: sinceBegin() })
  return { process, pid, killedMs, restartedMs, recoveredMs: machineNow() }
}

/** Waits for a condition, telling the progress. The time limit of the whole command is its bound. */
async function reach(options: TrialOptions, share: () => number, holds: () => boolean): Promise<void> {
  const { observation, signal, event, sinceBegin } = options
  while (!holds()) {
    event({ type: 'progress', answered: observation.ended, share: share(), atMs: sinceBegin() })
    await pause(POLL_MS, undefined, { signal })
  }
}
