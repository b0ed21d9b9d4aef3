/** Who plays the subject of a scenario: here the oracle. Every player has the same deeds, and tells the same. */
import {
  Journal,
  OracleBroker,
  type Begun,
  OracleNode,
  type OracleIdentity,
  type OracleReply,
} from '../oracle/index.ts'
import { NET } from './certificates.ts'
import { hex, publicKey, unhex } from './independent-codec.ts'
import type { Deed, Party, Subject } from './scenario.ts'
import { addressOf, type Cast, type Player, type Stage, type Told } from './stage.ts'

export const PORT = 7_411

/** A request as the subject's handler sees it, and how it is answered. */
interface Run {
  resolve(payload: Buffer): void
  reject(error: Error): void
}

/** What both kinds of nodes have in common: requests and runs by name, and what is told of them. */
export abstract class NodePlayer implements Player {
  readonly stage: Stage
  readonly #cancels = new Map<string, AbortController>()
  readonly #runs: Run[] = []

  constructor(stage: Stage) {
    this.stage = stage
  }

  abstract ask(deed: Deed, signal: AbortSignal): Promise<OracleReply>
  abstract serve(deed: Deed): Promise<unknown>
  abstract unserve(service: string): void
  abstract drain(): Promise<void>
  abstract close(): void

  do(deed: Deed): void {
    const { request, serve, unserve, cancel, answer, fail } = deed
    if (request !== undefined) this.#request(request, deed)
    if (cancel !== undefined) this.#cancels.get(cancel)?.abort()
    if (serve !== undefined) this.#tellEnd(this.serve(deed), { served: serve }, (code) => ({ refused: serve, code }))
    if (unserve !== undefined) this.unserve(unserve)
    if (answer !== undefined) this.#runs[answer - 1]?.resolve(unhex(deed.payload ?? ''))
    if (fail !== undefined) this.#runs[fail - 1]?.reject(new Error(deed.message))
    if (deed.drain === true) this.#tellEnd(this.drain(), { drained: true }, (code) => ({ drained: false, code }))
  }

  #tellEnd(ends: Promise<unknown>, good: Told, bad: (code: string) => Told): void {
    ends.then(
      () => this.stage.tell(good),
      (error: { code: string }) => this.stage.tell(bad(error.code)),
    )
  }

  #request(request: string, deed: Deed): void {
    const abort = new AbortController()
    this.#cancels.set(request, abort)
    this.ask(deed, abort.signal).then(
      ({ payload, worker, broker, attempts, possibleDuplicate }) =>
        this.stage.tell({ request, reply: { payload: hex(payload), worker, broker, attempts, possibleDuplicate } }),
      ({ code, message }: { code: string; message: string }) =>
        this.stage.tell({ request, failed: code, ...(code === 'WORKER_ERROR' ? { message } : {}) }),
    )
  }

  /** The handler of every service. */
  run(of: { service: string; client: string; payload: Uint8Array; signal: AbortSignal } & Told): Promise<Buffer> {
    const { service, client, payload, signal, possibleDuplicate, retryCount } = of
    const number = this.#runs.length + 1
    this.stage.tell({ run: number, service, client, payload: hex(payload), possibleDuplicate, retryCount })
    signal.addEventListener('abort', () => this.stage.tell({ stop: number }))
    return new Promise((resolve, reject) => this.#runs.push({ resolve, reject }))
  }

  /** The address of the broker that a deed names by its link. */
  named({ by }: Deed): { broker?: string } {
    return by === undefined ? {} : { broker: addressOf(this.stage.party(by)) }
  }
}

class OraclesNode extends NodePlayer {
  readonly #node: OracleNode

  constructor(stage: Stage, identity: OracleIdentity) {
    super(stage)
    const brokers = stage.links.map((host) => `${host}:${PORT}`)
    this.#node = OracleNode.begin({ identity, mode: 'plain', brokers, machine: stage.machine })
  }

  ask(deed: Deed, signal: AbortSignal): Promise<OracleReply> {
    const { service = '', payload = '' } = deed
    return this.#node.request(service, unhex(payload), { ...deed, ...this.named(deed), signal })
  }

  serve({ serve = '', concurrency = 1, journal = 'journal', says }: Deed): Promise<void> {
    const handler = (
      payload: Buffer,
      of: { client: string; possibleDuplicate: boolean; retryCount: number; signal: AbortSignal },
    ): Promise<Buffer> => this.run({ service: serve, payload, ...of })
    return this.#node.serve(serve, handler, { concurrency, journal: new ScriptedJournal(journal, says) })
  }

  unserve(service: string): void {
    this.#node.unserve(service)
  }

  drain(): Promise<void> {
    return this.#node.drain()
  }

  close(): void {
    this.#node.close()
  }
}

class ScriptedJournal extends Journal {
  readonly #says: Deed['says']

  constructor(name: string, says: Deed['says']) {
    super(name)
    this.#says = says
  }

  override begin(session: string, counter: number): Begun {
    const says = this.#says
    if (typeof says === 'object') return { failed: false, payload: unhex(says.completed) }
    if (says === 'unreachable') throw new Error('nobody is there')
    const words: Record<string, Begun> = { running: 'busy', gone: 'gone', ended: 'expired' }
    return words[says ?? ''] ?? super.begin(session, counter)
  }

  override complete(...of: Parameters<Journal['complete']>): boolean {
    return this.#says !== 'unwritable' && super.complete(...of)
  }
}

/** A broker has one deed: it drains. */
export function brokerPlayer(stage: Stage, broker: { drain(): Promise<void>; close(): unknown }): Player {
  return {
    do: ({ drain }) => {
      if (drain === true) void broker.drain().then(() => stage.tell({ drained: true }))
    },
    close: () => void broker.close(),
  }
}

function oracleIdentity(party: Party): OracleIdentity {
  const [linkSecret, signSeed] = [unhex(party.linkSecret), unhex(party.signSeed)]
  const linkKey = publicKey('x25519', linkSecret)
  return { net: NET, name: party.name, linkSecret, linkKey, signSeed, certificate: unhex(party.certificate) }
}

export function oraclePlayer(subject: Subject): Cast {
  return async (stage, party) => {
    const identity = oracleIdentity(party)
    if (subject !== 'broker') return new OraclesNode(stage, identity)
    const { machine } = stage
    return brokerPlayer(stage, await OracleBroker.listen({ identity, mode: 'plain', host: 'subject', machine }))
  }
}
