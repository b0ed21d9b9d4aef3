/** The implementation as the subject of a scenario. */
import { Broker } from '../../lib/broker/broker.ts'
import { openCertificate } from '../../lib/identity/certificate.ts'
import type { Identity } from '../../lib/identity/identity.ts'
import { dhKeyPair, signKeyPair } from '../../lib/identity/sodium.ts'
import type { Found } from '../../lib/node/completion-journal.ts'
import { MemoryJournal, type MemoryJournalOptions } from '../../lib/node/memory-journal.ts'
import { Node, type Serving } from '../../lib/node/node.ts'
import { Mode } from '../../protocol/constants.ts'
import type { OracleReply } from '../oracle/index.ts'
import { NET } from './certificates.ts'
import { unhex } from './independent-codec.ts'
import { NodePlayer, PORT, brokerPlayer } from './players.ts'
import type { Deed, Party, Subject } from './scenario.ts'
import type { Cast, Stage } from './stage.ts'

const DRAIN_MS = 30_000

class RealNode extends NodePlayer {
  readonly #node: Node
  readonly #serving = new Map<string, Serving>()

  constructor(stage: Stage, identity: Identity) {
    super(stage)
    const brokers = stage.links.map((host) => ({ host, port: PORT }))
    this.#node = new Node({ runtime: stage.runtime, identity, mode: Mode.plain, brokers, learn: false })
  }

  ask(deed: Deed, signal: AbortSignal): Promise<OracleReply> {
    const { service = '', payload = '', ...rest } = deed
    const { timeoutMs, retries, deadlineMs, delivery } = rest
    const given = Object.fromEntries(
      Object.entries({ timeoutMs, retries, deadlineMs, delivery }).filter(([, value]) => value !== undefined),
    )
    return this.#node.request(service, unhex(payload), { ...given, ...this.named(deed), signal })
  }

  async serve({ serve = '', concurrency = 1, journal = 'journal', says }: Deed): Promise<void> {
    const kept = new ScriptedJournal({ id: journal, clock: this.stage.process.now }, says)
    const handler = (of: Parameters<Parameters<Node['serve']>[1]>[0]): Promise<Buffer> => {
      const { service, sender: client, payload, signal, possibleDuplicate, retryCount } = of
      return this.run({ service, client, payload, signal, possibleDuplicate, retryCount })
    }
    this.#serving.set(serve, await this.#node.serve(serve, handler, { concurrency, journal: kept }))
  }

  unserve(service: string): void {
    void this.#serving.get(service)?.close()
  }

  drain(): Promise<void> {
    return this.#node.drain()
  }

  close(): void {
    void this.#node.close()
  }
}

class ScriptedJournal extends MemoryJournal {
  readonly #says: Deed['says']

  constructor(options: MemoryJournalOptions, says: Deed['says']) {
    super(options)
    this.#says = says
  }

  override async begin(...of: Parameters<MemoryJournal['begin']>): Promise<Found> {
    const says = this.#says
    if (typeof says === 'object')
      return { state: 'completed', completion: { kind: 'reply', payload: unhex(says.completed) } }
    if (says === 'unreachable') throw new Error('nobody is there')
    if (says === 'ended') return { state: 'ended' }
    if (says === 'running' || says === 'gone') return { state: 'running', over: says === 'gone' }
    return super.begin(...of)
  }

  override async complete(...of: Parameters<MemoryJournal['complete']>): Promise<void> {
    if (this.#says === 'unwritable') throw new Error('the disk is full')
    return super.complete(...of)
  }
}

export function identityOf(party: Party): Identity {
  const certificateBytes = unhex(party.certificate)
  const certificate = openCertificate(certificateBytes, NET)
  const linkKeyPair = dhKeyPair(unhex(party.linkSecret))
  const signKey = signKeyPair(unhex(party.signSeed))
  return { name: party.name, net: NET, certificate, certificateBytes, linkKeyPair, signKeyPair: signKey }
}

export function implementation(subject: Subject): Cast {
  return (stage, party) => {
    const identity = identityOf(party)
    if (subject !== 'broker') return new RealNode(stage, identity)
    const broker = new Broker({ runtime: stage.runtime, identity, mode: Mode.plain, peers: [] })
    broker.advertise([{ host: 'subject', port: PORT, zone: '' }])
    stage.listen((connection, nowMs) => broker.accept(connection, nowMs))
    return brokerPlayer(stage, {
      drain: () => broker.drain(DRAIN_MS).then(() => broker.close()),
      close: () => broker.close(),
    })
  }
}
