import { rmSync } from 'node:fs'
import { mkdtemp } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { ExitCode } from '../command.ts'
import { net } from '../net.ts'
import { Child } from './child.ts'
import type { FromChild } from './messages.ts'
import { SERVICE } from './messages.ts'
import { StartError } from './start-error.ts'
import { siblingPath } from './tethered-process.ts'

export const BROKERS: readonly string[] = ['broker-1', 'broker-2']
export const WORKERS: readonly string[] = ['worker-1', 'worker-2', 'worker-3']
export const CLIENTS: readonly string[] = ['client-1', 'client-2']
/** How long a process may take to be ready, on a machine that has other things to do. */
const READY_WITHIN_MS = 20_000
/** A restarted broker wants its port again, which another process may have got in the meantime, for a moment. */
const PORT_TRIES = 10
const PORT_PAUSE_MS = 200

export interface LocalNetListener {
  /** A client told something about its requests. */
  told(process: string, message: FromChild): void
  /** A process is gone that should be there: the run is over. */
  broke(error: StartError): void
}

interface Ready {
  child: Child
  /** A broker's HOST:PORT, or a node's address. */
  said: string
}

/** A net on this machine: its folder with authority and identities, and its processes. */
export class LocalNet {
  readonly folder: string
  readonly #listener: LocalNetListener
  readonly #children = new Map<string, Child>()
  /** HOST:PORT by broker. */
  readonly #endpoints = new Map<string, string>()
  /** CPU time of the processes that are gone. */
  #goneCpuMicroseconds = 0
  #closed = false
  readonly #removeAtExit = (): void => this.#endNow()

  /** Use `LocalNet.create`. */
  constructor(folder: string, listener: LocalNetListener) {
    this.folder = folder
    this.#listener = listener
    // Whatever ends this process in an ordinary way, a fault of its own included, leaves nothing behind.
    process.once('exit', this.#removeAtExit)
  }

  /** Makes the folder, in it an authority, and an identity for each process that may do just what it has to do. */
  static async create(listener: LocalNetListener): Promise<LocalNet> {
    const local = new LocalNet(await makeFolder(), listener)
    try {
      await command('create', local.folder)
      for (const name of BROKERS) await command('admit', local.folder, name, '--broker', '--days', '1')
      for (const name of WORKERS) await command('admit', local.folder, name, '--serve', SERVICE, '--days', '1')
      for (const name of CLIENTS) await command('admit', local.folder, name, '--call', SERVICE, '--days', '1')
    } catch (error) {
      await local.close()
      throw error
    }
    return local
  }

  get cpuMicroseconds(): number {
    let sum = this.#goneCpuMicroseconds
    for (const child of this.#children.values()) sum += child.cpuMicroseconds
    return sum
  }

  /** Starts a broker, by the command that everybody uses; again, it comes back where it was. */
  async startBroker(name: string): Promise<Child> {
    const endpoint = this.#endpoints.get(name)
    const peers = [...this.#endpoints].filter(([other]) => other !== name).flatMap(([, peer]) => ['--peer', peer])
    const args = ['broker', '--identity', this.#identity(name), '--listen', endpoint ?? '127.0.0.1:0', ...peers]
    const main = fileURLToPath(new URL(`../main.${import.meta.url.endsWith('.ts') ? 'ts' : 'js'}`, import.meta.url))
    for (let tries = 1; ; tries++) {
      try {
        const { child, said } = await this.#start(name, main, [...args, '--json'], () => {})
        this.#endpoints.set(name, said)
        return child
      } catch (error) {
        const again = endpoint !== undefined && tries < PORT_TRIES && String(error).includes('ADDRESS_IN_USE')
        if (!again) throw error
        await pause(PORT_PAUSE_MS)
      }
    }
  }

  async startWorker(name: string): Promise<Child> {
    const { child } = await this.#start(name, siblingPath('worker'), [], (starting) =>
      starting.send({ type: 'serve', identity: this.#identity(name), brokers: [...this.#endpoints.values()] }),
    )
    return child
  }

  async startClient(name: string, files: string[]): Promise<Child> {
    const { child } = await this.#start(name, siblingPath('client'), [], (starting) =>
      starting.send({
        type: 'setup',
        identity: this.#identity(name),
        brokers: [...this.#endpoints.values()],
        files,
        workers: WORKERS.length,
      }),
    )
    return child
  }

  child(name: string): Child {
    const child = this.#children.get(name)
    if (child === undefined) throw new StartError(`${name} does not run`)
    return child
  }

  /** Kills a process as nothing but the kernel can. Resolves when it is gone. */
  async kill(name: string): Promise<void> {
    const child = this.child(name)
    child.kill()
    await child.gone
  }

  /** Ends every process in order: first who asks, then who works, then who carries. Removes the folder. */
  async close(): Promise<void> {
    if (this.#closed) return
    this.#closed = true
    for (const names of [CLIENTS, WORKERS, BROKERS]) await Promise.all(names.map((name) => this.child(name).stop()))
    this.#endNow()
  }

  /** Ends every process at once, and removes the folder. */
  async abort(): Promise<void> {
    this.#closed = true
    for (const child of this.#children.values()) child.kill()
    await Promise.all([...this.#children.values()].map((child) => child.gone))
    this.#endNow()
  }

  #endNow(): void {
    this.#closed = true
    process.removeListener('exit', this.#removeAtExit)
    for (const child of this.#children.values()) child.kill()
    this.#children.clear()
    rmSync(this.folder, { recursive: true, force: true })
  }

  #identity(name: string): string {
    return join(this.folder, `${name}.identity`)
  }

  #forget(child: Child): void {
    if (this.#children.get(child.name) !== child) return
    this.#children.delete(child.name)
    this.#goneCpuMicroseconds += child.cpuMicroseconds
  }

  /** Starts a process and waits until it says that it is ready. `begin` is called when it is there. */
  #start(name: string, program: string, args: string[], begin: (child: Child) => void): Promise<Ready> {
    if (this.#closed) return Promise.reject(new StartError('the net is closed'))
    return new Promise((resolve, reject) => {
      let ready = false
      const isReady = (said: string): void => {
        ready = true
        clearTimeout(late)
        resolve({ child, said })
      }
      const child: Child = new Child(
        name,
        { program, args, folder: this.folder },
        {
          told: (message) => {
            if (message.type === 'ready') isReady(message.address)
            else this.#listener.told(name, message)
          },
          printed: (line) => {
            const endpoint = ready ? null : listeningAt(line)
            if (endpoint !== null) isReady(endpoint)
          },
          broke: (error) => {
            if (ready) this.#listener.broke(error)
            else reject(error)
          },
        },
      )
      this.#children.set(name, child)
      const late = setTimeout(() => {
        child.kill()
        reject(new StartError(`${name} was not ready within ${READY_WITHIN_MS / 1_000} s${child.complaint}`))
      }, READY_WITHIN_MS)
      void child.gone.then(() => {
        clearTimeout(late)
        this.#forget(child)
        reject(new StartError(`${name} was stopped before it was ready`))
      })
      begin(child)
    })
  }
}

/** Made with mode 0700. */
async function makeFolder(): Promise<string> {
  try {
    return await mkdtemp(join(tmpdir(), 'adaptnet-start-'))
  } catch (cause) {
    const why = cause instanceof Error ? cause.message : String(cause)
    throw new StartError(`there is no place for temporary files: ${why}`, { cause })
  }
}

/** HOST:PORT in the line by which a broker says that it listens. */
function listeningAt(line: string): string | null {
  if (!line.startsWith('{')) return null
  const { type, endpoint } = JSON.parse(line) as { type?: unknown; endpoint?: unknown }
  return type === 'listening' && typeof endpoint === 'string' ? endpoint : null
}

/** `adaptnet net ...`, as a person would type it. */
async function command(...args: string[]): Promise<void> {
  const said: string[] = []
  const quiet = { out: () => {}, err: (line: string) => said.push(line) }
  if ((await net(args, quiet)) !== ExitCode.DONE) throw new StartError(said.join('\n').replace(/^adaptnet: /, ''))
}
