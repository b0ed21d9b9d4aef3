/** NATS, with the client library of its makers: by its `request`, by hand with an inbox of one's own, and with TLS. */
import { spawnSync } from 'node:child_process'
import { join } from 'node:path'
import type { End } from '../ends/end.ts'
import { NATS, NATS_LEAN } from '../goals.ts'
import type { System } from '../measure.ts'
import { parts } from '../systems.ts'
import { Window, askInLanes } from '../workload.ts'
import type { Run, RunOutcome } from '../workload.ts'
import { loadPackage } from './packages.ts'
import { freePort } from './peer.ts'
import type { Peer, PeerEnds, PeerStarter } from './peer.ts'

interface Message {
  data: Uint8Array
  respond(payload: Uint8Array): boolean
}

interface Connection {
  request(subject: string, payload: Uint8Array, options: { timeout: number }): Promise<Message>
  publish(subject: string, payload: Uint8Array, options: { reply: string }): void
  subscribe(
    subject: string,
    options: { callback: (error: Error | null, message: Message) => void },
  ): { unsubscribe(): void }
  flush(): Promise<void>
}

interface Nats {
  connect(options: { servers: string; tls?: { caFile: string } }): Promise<Connection>
  createInbox(): string
}

interface EndSettings {
  port: number
  caFile: string | null
  inbox?: boolean
}

const SUBJECT = 'echo'
const TIMEOUT_MS = 5_000

async function connect({ port, caFile }: EndSettings): Promise<Connection> {
  const nats = await loadPackage<Nats>('@nats-io/transport-node')
  return nats.connect({ servers: `127.0.0.1:${port}`, ...(caFile === null ? {} : { tls: { caFile } }) })
}

async function worker(settings: EndSettings): Promise<End> {
  const connection = await connect(settings)
  connection.subscribe(SUBJECT, { callback: (_error, message) => void message.respond(message.data) })
  await connection.flush()
  return { ready: {}, verbs: {} }
}

async function client(settings: EndSettings): Promise<End> {
  const connection = await connect(settings)
  const byRequest = (run: Run): Promise<RunOutcome> =>
    askInLanes(
      {
        ask: (payload) => connection.request(SUBJECT, payload, { timeout: TIMEOUT_MS }),
        lengthOf: ({ data }) => data.length,
      },
      run,
    )
  const nats = await loadPackage<Nats>('@nats-io/transport-node')
  const byInbox = async (run: Run): Promise<RunOutcome> => {
    const payload = Buffer.alloc(run.payloadBytes, 7)
    const reply = nats.createInbox()
    const window = new Window(run, (count) => {
      for (let index = 0; index < count; index++) connection.publish(SUBJECT, payload, { reply })
    })
    const subscription = connection.subscribe(reply, { callback: () => window.replied(1) })
    const outcome = await window.start()
    subscription.unsubscribe()
    return outcome
  }
  return { ready: {}, verbs: { run: settings.inbox === true ? byInbox : byRequest } }
}

export const natsEnds: PeerEnds = { 'nats-worker': worker, 'nats-client': client }

/** A certificate for this machine, signed by itself, with the kind of key that handshakes fastest. */
function makeCertificate(folder: string): { certFile: string; keyFile: string } {
  const [certFile, keyFile] = [join(folder, 'nats.crt'), join(folder, 'nats.key')]
  const subject = ['-subj', '/CN=localhost', '-addext', 'subjectAltName=DNS:localhost,IP:127.0.0.1']
  const key = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-keyout', keyFile]
  const { status } = spawnSync('openssl', ['req', '-x509', ...key, '-out', certFile, '-days', '2', ...subject])
  if (status !== 0) throw new Error('openssl made no certificate')
  return { certFile, keyFile }
}

async function start(starter: PeerStarter, name: string, how: { tls: boolean; inbox: boolean }): Promise<System> {
  const port = await freePort()
  const tls = how.tls ? makeCertificate(starter.folder) : null
  const args = ['-a', '127.0.0.1', '-p', `${port}`]
  if (tls !== null) args.push('--tls', '--tlscert', tls.certFile, '--tlskey', tls.keyFile)
  const server = await starter.server({ command: 'nats-server', args, port })
  const settings: EndSettings = { port, caFile: tls?.certFile ?? null }
  const work = await starter.end('nats-worker', { ...settings })
  const call = await starter.end('nats-client', { ...settings, inbox: how.inbox })
  return { name, client: call, parts: parts({ client: call, broker: server, worker: work }) }
}

const SERVER = { 'nats-server': 'nats-server' }

export const natsPeers: readonly Peer[] = [
  {
    name: NATS,
    settings: '@nats-io/transport-node: request() as documented; the worker answers in a subscription callback',
    needs: SERVER,
    start: (starter) => start(starter, NATS, { tls: false, inbox: false }),
  },
  {
    name: NATS_LEAN,
    settings: 'the same, publish() with one reply inbox of our own: no promise, no timeout, no table of requests',
    needs: SERVER,
    start: (starter) => start(starter, NATS_LEAN, { tls: false, inbox: true }),
  },
  {
    name: 'nats request, TLS',
    settings: 'as nats request, each connection with TLS 1.3',
    needs: { ...SERVER, openssl: 'openssl' },
    start: (starter) => start(starter, 'nats request, TLS', { tls: true, inbox: false }),
  },
]
