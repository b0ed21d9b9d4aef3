import { mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { net } from '../../lib/cli/net.ts'
import { Child, programPath } from './child.ts'
import type { FromNode } from './messages.ts'
import { SERVICES } from './messages.ts'
import type { ClientSetup } from './messages.ts'
import { Wire } from './proxy.ts'

export const BROKERS: readonly string[] = ['broker-1', 'broker-2', 'broker-3']
export const WORKERS: readonly string[] = ['worker-1', 'worker-2', 'worker-3', 'worker-4']
export const CLIENTS: readonly string[] = ['client-1', 'client-2', 'client-3', 'client-4']

const MAIN = fileURLToPath(new URL('../../lib/cli/main.js', import.meta.url))
const READY_WITHIN_MS = 40_000
/** A restarted broker wants its port again, which another process may have got in the meantime, for a moment. */
const PORT_TRIES = 20
const PORT_PAUSE_MS = 100

/** One process from its start to its end: a restart begins another. */
export interface Life {
  name: string
  child: Child
  /** `name/instance`. */
  address: string
  /** What added to the times of its history gives the machine's; 0 for brokers, which write none. */
  offsetMs: number
  /** Its history, or null. */
  history: string | null
  /** Its files of effects begin with this, or null. */
  effects: string | null
  killed: boolean
}

export interface NetListener {
  /** A process has been started; it is not ready yet. */
  started?(life: Life): void
  told(life: Life, message: FromNode): void
  /** A process ended by itself, or not as it was asked to. */
  broke(why: string): void
}

/** A net of real processes on this machine, each way between a node and a broker through a proxy. */
export class ChaosNet {
  readonly folder: string
  /** All lives, in order. */
  readonly lives: Life[] = []
  readonly #listener: NetListener
  readonly #current = new Map<string, Life>()
  readonly #ports = new Map<string, number>()
  /** By node, then by broker. */
  readonly #wires = new Map<string, Map<string, Wire>>()
  readonly #client: ClientSetup
  readonly #seed: number
  #closed = false
  readonly #endNow = (): void => this.destroy()

  constructor(listener: NetListener, seed: number, client: ClientSetup) {
    this.folder = mkdtempSync(join(tmpdir(), 'adaptnet-chaos-'))
    this.#listener = listener
    this.#seed = seed
    this.#client = client
    // Whatever ends this process in an ordinary way, a fault of its own included, leaves nothing behind.
    process.once('exit', this.#endNow)
  }

  /** Starts everything; resolves when each process is ready. */
  async start(): Promise<void> {
    mkdirSync(join(this.folder, 'histories'))
    mkdirSync(join(this.folder, 'effects'))
    await command('create', this.folder)
    for (const name of BROKERS) await command('admit', this.folder, name, '--broker', '--days', '1')
    for (const [names, flag] of [
      [WORKERS, '--serve'],
      [CLIENTS, '--call'],
    ] as const)
      for (const name of names)
        await command('admit', this.folder, name, ...SERVICES.flatMap((service) => [flag, service]), '--days', '1')
    for (const name of BROKERS) await this.startBroker(name)
    for (const node of [...WORKERS, ...CLIENTS]) {
      const wires = new Map<string, Wire>()
      for (const broker of BROKERS) wires.set(broker, await Wire.open(this.#port(broker)))
      this.#wires.set(node, wires)
    }
    await Promise.all(WORKERS.map((name) => this.startNode(name)))
    await Promise.all(CLIENTS.map((name) => this.startNode(name)))
  }

  /** The life of this name that goes on, or null. */
  living(name: string): Life | null {
    const life = this.#current.get(name)
    return life === undefined || life.child.over ? null : life
  }

  /** The proxies on the way of a node to its brokers, or of all nodes to a broker. */
  wiresOf(name: string): Wire[] {
    const own = this.#wires.get(name)
    if (own !== undefined) return [...own.values()]
    return [...this.#wires.values()].map((wires) => wires.get(name) as Wire)
  }

  /** Starts a process again, whatever it is. */
  restart(name: string): Promise<Life> {
    return BROKERS.includes(name) ? this.startBroker(name) : this.startNode(name)
  }

  /** Starts a broker, by the command that everybody uses; again, it comes back where it was. */
  async startBroker(name: string): Promise<Life> {
    const port = this.#ports.get(name)
    const peers = [...this.#ports].filter(([other]) => other !== name).flatMap(([, at]) => ['--peer', hostPort(at)])
    const args = ['broker', '--identity', this.#identity(name), '--listen', hostPort(port ?? 0), ...peers, '--json']
    for (let tries = 1; ; tries++) {
      try {
        return await this.#startProcess(name, MAIN, args, null, null, () => undefined)
      } catch (error) {
        if (port === undefined || tries >= PORT_TRIES || !String(error).includes('ADDRESS_IN_USE')) throw error
        await pause(PORT_PAUSE_MS)
      }
    }
  }

  startNode(name: string): Promise<Life> {
    const number = this.lives.filter((life) => life.name === name).length + 1
    const isWorker = WORKERS.includes(name)
    const history = join(this.folder, 'histories', `${name}.${number}.jsonl`)
    const effects = isWorker ? join(this.folder, 'effects', `${name}.${number}`) : null
    const routes: Record<number, number> = {}
    for (const [broker, wire] of this.#wires.get(name) ?? []) routes[this.#port(broker)] = wire.port
    const program = programPath(isWorker ? 'worker' : 'client')
    return this.#startProcess(name, program, [], history, effects, (child) =>
      child.send({
        type: 'setup',
        identity: this.#identity(name),
        brokers: BROKERS.map((broker) => hostPort(this.#port(broker))),
        routes,
        history,
        seed: this.#seed + hashOf(`${name}.${number}`),
        worker: effects === null ? null : { ledger: this.ledger(name), effects },
        client: isWorker ? null : this.#client,
      }),
    )
  }

  /** The folder of a worker's durable journal, which it has for all its lives. */
  ledger(worker: string): string {
    return join(this.folder, 'ledgers', worker)
  }

  /** Kills a process as nothing but the kernel can. Resolves when it is gone. */
  async kill(name: string): Promise<void> {
    const life = this.living(name)
    if (life === null) return
    life.killed = true
    life.child.kill()
    await life.child.gone
  }

  async drain(name: string): Promise<void> {
    await this.living(name)?.child.drain()
  }

  /** Ends every process in order: first who asks, then who works, then who carries. */
  async drainAll(): Promise<void> {
    for (const names of [CLIENTS, WORKERS, BROKERS]) await Promise.all(names.map((name) => this.drain(name)))
  }

  /** Ends every process at once, and removes what they wrote. */
  destroy(keepFiles: boolean = false): void {
    if (this.#closed) return
    this.#closed = true
    process.removeListener('exit', this.#endNow)
    for (const { child } of this.lives) if (!child.over) child.kill()
    for (const wires of this.#wires.values()) for (const wire of wires.values()) wire.close()
    if (!keepFiles) rmSync(this.folder, { recursive: true, force: true, maxRetries: 5 })
  }

  #identity(name: string): string {
    return join(this.folder, `${name}.identity`)
  }

  #port(broker: string): number {
    return this.#ports.get(broker) ?? 0
  }

  /** Starts a process and waits until it says that it is ready. */
  #startProcess(
    name: string,
    program: string,
    args: string[],
    history: string | null,
    effects: string | null,
    begin: (child: Child) => void,
  ): Promise<Life> {
    if (this.#closed) return Promise.reject(new Error('the net is closed'))
    return new Promise((resolve, reject) => {
      let ready = false
      const child: Child = new Child(name, program, args, this.folder, {
        told: (message) => {
          if (message.type === 'ready') isReady(message.address, message.offsetMs)
          else this.#listener.told(life, message)
        },
        printed: (line) => {
          const said = ready ? null : listeningAt(line)
          if (said === null) return
          this.#ports.set(name, said.port)
          isReady(said.broker, 0)
        },
        broke: (why) => {
          if (ready) this.#listener.broke(why)
          else reject(new Error(why))
        },
      })
      const life: Life = { name, child, address: '', offsetMs: 0, history, effects, killed: false }
      this.lives.push(life)
      this.#current.set(name, life)
      this.#listener.started?.(life)
      const late = setTimeout(() => {
        child.kill()
        reject(new Error(`${name} was not ready within ${READY_WITHIN_MS / 1_000} s`))
      }, READY_WITHIN_MS)
      const isReady = (address: string, offsetMs: number): void => {
        ready = true
        clearTimeout(late)
        Object.assign(life, { address, offsetMs })
        resolve(life)
      }
      void child.gone.then(() => {
        clearTimeout(late)
        reject(new Error(`${name} was ended before it was ready`))
      })
      begin(child)
    })
  }
}

/** Memory of a process in MiB, or null when the system does not tell. */
export function residentMiB(pid: number): number | null {
  try {
    const kiB = /^VmRSS:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, 'latin1'))?.[1]
    return kiB === undefined ? null : Number(kiB) / 1_024
  } catch {
    return null
  }
}

function listeningAt(line: string): { broker: string; port: number } | null {
  if (!line.startsWith('{')) return null
  const { type, broker, port } = JSON.parse(line) as { type?: string; broker?: string; port?: number }
  return type === 'listening' && broker !== undefined && port !== undefined ? { broker, port } : null
}

/** `adaptnet net ...`, as a person would type it. */
async function command(...args: string[]): Promise<void> {
  const said: string[] = []
  const quiet = { out: () => undefined, err: (line: string) => void said.push(line) }
  if ((await net(args, quiet)) !== 0) throw new Error(said.join('\n'))
}

function hostPort(port: number): string {
  return `127.0.0.1:${port}`
}

function hashOf(text: string): number {
  let hash = 7
  for (const character of text) hash = (Math.imul(hash, 31) + character.charCodeAt(0)) >>> 0
  return hash
}
