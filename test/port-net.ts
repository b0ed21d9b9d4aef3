import { spawn, spawnSync } from 'node:child_process'
import type { ChildProcess } from 'node:child_process'
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { setTimeout as pause } from 'node:timers/promises'
import type { Test } from 'tap'
import { createTestNet } from '../lib/testing.ts'
import type { RequestOptions, ServeOptions } from '../lib/node/options.ts'
import type { Node } from '../lib/node/node.ts'
import type { ServiceSecrets } from '../lib/identity/service-key.ts'
import type { TestNet } from '../lib/testing.ts'
import * as files from '../lib/transport/identity-files.ts'
import { Processes, until } from './command-fixture.ts'
import type { Running } from './command-fixture.ts'

// Debian's own, because the port asks for Debian's package and another python in the path does not have it.
export const PYTHON = '/usr/bin/python3'
export const PORT: string = fileURLToPath(new URL('../../test/ports/python', import.meta.url))
export const SERVICE = 'sha256'
export const CALLS = 1000
const CONCURRENCY = 20
const WORK_MS = 4
// For a machine that is busy with something else. No attempt times out: what a broken link loses is missed at the end.
const PATIENT = { timeout: 20, retries: 20, deadline: 20 }

/** Why the port cannot run here, or false. */
export const missing: string | false =
  spawnSync(PYTHON, ['-c', 'import cryptography.hazmat.primitives.ciphers.aead']).status !== 0 &&
  `${PYTHON} has no package cryptography (Debian: python3-cryptography)`

export const sha256 = (payload: Uint8Array): Buffer => createHash('sha256').update(payload).digest()

export interface Told {
  type: string
  [field: string]: unknown
}

/** A process of the port that tells what happens to it. */
export class Driven {
  readonly child: ChildProcess
  readonly #told: Told[] = []
  #rest = ''
  #over = false

  constructor(plan: object) {
    this.child = spawn(PYTHON, [join(PORT, 'drive.py'), JSON.stringify(plan)], { stdio: ['ignore', 'pipe', 'inherit'] })
    this.child.stdout?.on('data', (chunk: Buffer) => {
      const lines = (this.#rest + chunk.toString()).split('\n')
      this.#rest = lines.pop() ?? ''
      this.#told.push(...lines.map((line) => JSON.parse(line) as Told))
    })
    this.child.on('close', () => (this.#over = true))
  }

  told(type: string): Promise<Told> {
    return until(`${type} of the port`, () => {
      const told = this.#told.find((event) => event.type === type)
      if (told === undefined && this.#over) throw new Error(`the port ended: ${JSON.stringify(this.#told)}`)
      return told
    })
  }

  /** Lets a client end what it does, and some calls more. */
  async allReplied(): Promise<boolean> {
    this.child.kill('SIGTERM')
    const { asked, wrong, ends } = await this.told('done')
    return wrong === 0 && JSON.stringify(ends) === JSON.stringify({ replied: asked })
  }

  async kill(): Promise<void> {
    if (this.#over) return
    const closed = once(this.child, 'close')
    this.child.kill('SIGKILL')
    await closed
  }
}

/** A net, and processes of the port in it. */
export class PortNet {
  readonly net: TestNet
  readonly #folder: string
  readonly #mode: 'noise' | 'plain'
  readonly #driven: Driven[] = []
  readonly #processes = new Processes()
  #started = 0

  constructor(net: TestNet, folder: string, mode: 'noise' | 'plain') {
    this.net = net
    this.#folder = folder
    this.#mode = mode
  }

  static async start(test: Test, mode: 'noise' | 'plain', brokers = 2): Promise<PortNet> {
    const started = new PortNet(await createTestNet({ brokers, mode }), test.testdir(), mode)
    test.teardown(() => started.close())
    return started
  }

  /** A second broker, in a process of its own that can be killed; nodes learn of it from the first. */
  async doomedBroker(): Promise<Running> {
    const identity = join(this.#folder, 'doomed.identity')
    await files.writeIdentity(identity, this.net.identity('doomed', { broker: true }))
    const peer = ['--peer', ...this.net.endpoints, ...(this.#mode === 'plain' ? ['--plain'] : [])]
    const doomed = this.#processes.start('broker', '--identity', identity, '--listen', '127.0.0.1:0', ...peer, '--json')
    await doomed.event('listening')
    await until('the brokers are linked', () => this.net.brokers[0]?.report().brokers.length === 2)
    return doomed
  }

  async python(role: 'client' | 'worker', plan: { options?: object; [field: string]: unknown } = {}): Promise<Driven> {
    const name = `python-${role}-${(this.#started += 1)}`
    const identity = join(this.#folder, `${name}.identity`)
    await files.writeIdentity(identity, this.net.identity(name))
    const load = role === 'client' ? { calls: CALLS, concurrency: CONCURRENCY } : {}
    const common = { role, identity, brokers: this.net.endpoints, mode: this.#mode, service: SERVICE }
    const options = { ...(role === 'client' && PATIENT), ...plan.options }
    const driven = new Driven({ ...common, ...load, ...plan, options })
    this.#driven.push(driven)
    if (role === 'worker') await driven.told('serving')
    return driven
  }

  /** Makes an epoch of the service's key: for `serve`, and as a file. */
  async serviceKeys(): Promise<{ secrets: ServiceSecrets; path: string }> {
    const secrets = this.net.serviceSecrets(SERVICE)
    const path = join(this.#folder, `${SERVICE}.service`)
    await files.writeServiceSecrets(path, secrets, null)
    return { secrets, path }
  }

  /** Serves by this library; gives the ids of what it ran. */
  async serve(name: string, options: ServeOptions & { links?: number } = {}): Promise<string[]> {
    const ran: string[] = []
    const node = await this.#linked(name, options.links ?? 1)
    await node.serve(
      SERVICE,
      async ({ id, payload }) => {
        ran.push(id)
        // Takes a while, so that whatever dies has requests.
        await pause(WORK_MS)
        return sha256(payload)
      },
      options,
    )
    return ran
  }

  /** Calls by this library; at a fifth of the calls `loaded` happens. */
  async call(
    calls: number,
    loaded: () => void = () => undefined,
    options: RequestOptions & { links?: number } = {},
  ): Promise<number> {
    const node = await this.#linked('client', options.links ?? 1)
    let next = 0
    let right = 0
    const inTurn = async (): Promise<void> => {
      while (next < calls) {
        const payload = Buffer.from(`${next++}`)
        if (next === Math.floor(calls / 5)) loaded()
        const reply = await node.request(SERVICE, payload, {
          timeoutMs: 2_000,
          deadlineMs: 20_000,
          retries: 20,
          ...options,
        })
        if (reply.payload.equals(sha256(payload))) right += 1
      }
    }
    await Promise.all(Array.from({ length: CONCURRENCY }, inTurn))
    return right
  }

  async #linked(name: string, links: number): Promise<Node> {
    const node = await this.net.connect(name)
    await until('enough links', () => node.brokers.length >= links)
    return node
  }

  async close(): Promise<void> {
    await Promise.all([this.#processes.killAll(), ...this.#driven.map((driven) => driven.kill())])
    await this.net.close()
  }
}
