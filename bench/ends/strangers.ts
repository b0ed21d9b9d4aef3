/** Those whom a broker did not ask for: connections that say next to nothing, floods of handshakes, readers that never read. */
import net from 'node:net'
import { parseIdentity } from '../../lib/identity/identity.ts'
import { sodiumRandom } from '../../lib/identity/sodium.ts'
import { Node } from '../../lib/node/node.ts'
import type { Connection, Runtime } from '../../lib/runtime.ts'
import { parseHostPort } from '../../lib/transport/addresses.ts'
import { nodeRuntime } from '../../lib/transport/node-runtime.ts'
import { HandshakeKind, Mode } from '../../protocol/constants.ts'
import { encodeHandshake, encodePreamble } from '../../protocol/preamble.ts'
import type { End } from './end.ts'

export interface StrangersSettings {
  /** HOST:PORT of the broker. */
  broker: string
  identity: string
}

export interface Asked {
  count: number
  /** For how long it goes on; then everything is closed. */
  seconds: number
}

/** What they did. */
export interface StrangersOutcome {
  opened: number
  /** Connections that the broker closed. */
  closed: number
  /** Handshake messages that it answered. */
  answered: number
  /** The most connections that were open at once. */
  openMost: number
}

/** As many source addresses: one of them has too few ports for what is opened and closed here. */
const SOURCES = 40
/** How often a slow connection says one byte more. */
const DRIP_MS = 1_000
/** A connection that the broker closes is opened again, soon or as a slow one would be. */
const AGAIN_MS = 200
const AGAIN_SLOW_MS = 5_000
const DIALLED_AT_ONCE = 64
const READER_PAYLOAD = Buffer.alloc(32_768, 7)

const PREAMBLE = encodePreamble({ versionLowest: 1, versionHighest: 1, mode: Mode.noise })

export function startStrangers(settings: StrangersSettings): Promise<End> {
  const { host, port } = parseHostPort(settings.broker)
  let source = 0
  /** Opens a connection; It is opened again for as long as it is `wanted`. */
  const hold = (outcome: StrangersOutcome, open: Set<net.Socket>, wanted: () => boolean, manner: Manner): void => {
    if (!wanted()) return
    source = (source + 1) % SOURCES
    const socket = net.connect({ host, port, localAddress: `127.0.2.${source + 1}` })
    socket.on('connect', () => {
      outcome.opened += 1
      open.add(socket)
      outcome.openMost = Math.max(outcome.openMost, open.size)
      manner.greet(socket)
    })
    socket.on('error', () => undefined)
    socket.on('close', () => {
      if (open.delete(socket) && wanted()) outcome.closed += 1
      setTimeout(() => hold(outcome, open, wanted, manner), manner.againMs).unref()
    })
  }
  const run = async ({ count, seconds }: Asked, manner: Manner): Promise<StrangersOutcome> => {
    const outcome = { opened: 0, closed: 0, answered: 0, openMost: 0 }
    const open = new Set<net.Socket>()
    let over = false
    for (let index = 0; index < count; index++) {
      hold(outcome, open, () => !over, manner)
      if (index % DIALLED_AT_ONCE === 0) await new Promise((resolve) => setImmediate(resolve))
    }
    await new Promise((resolve) => setTimeout(resolve, seconds * 1_000))
    over = true
    for (const socket of open) socket.resetAndDestroy()
    return outcome
  }
  /** A byte of the preamble a second. */
  const slow = (asked: Asked): Promise<StrangersOutcome> =>
    run(asked, {
      againMs: AGAIN_SLOW_MS,
      greet: (socket) => {
        let said = 0
        const drip = setInterval(() => socket.write(PREAMBLE.subarray(said, ++said)), DRIP_MS)
        socket.on('close', () => clearInterval(drip))
      },
    })
  /** Handshakes as fast as they are answered: all that a stranger without a certificate can make a broker work. */
  const flood = async (asked: Asked): Promise<StrangersOutcome> => {
    let answered = 0
    const outcome = await run(asked, {
      againMs: AGAIN_MS,
      greet: (socket) => {
        const first = encodeHandshake(HandshakeKind.NOISE, Buffer.from(sodiumRandom(32)))
        socket.write(Buffer.concat([PREAMBLE, first]))
        socket.once('data', () => {
          answered += 1
          // The last message costs the broker a multiplication before it is found to be nonsense.
          socket.write(encodeHandshake(HandshakeKind.NOISE, Buffer.from(sodiumRandom(300))))
          socket.on('data', () => socket.resetAndDestroy())
        })
      },
    })
    return { ...outcome, answered }
  }
  /** Nodes that are admitted, ask for megabytes and read nothing of them. */
  const readers = async ({ count, seconds }: Asked): Promise<StrangersOutcome> => {
    const outcome = { opened: 0, closed: 0, answered: 0, openMost: 0 }
    const nodes: Node[] = []
    for (let index = 0; index < count; index++) {
      const connections: Connection[] = []
      const node = new Node({
        runtime: keeping(connections),
        identity: parseIdentity(settings.identity),
        mode: Mode.noise,
        brokers: [{ host, port }],
      })
      nodes.push(node)
      void (async () => {
        for await (const event of node.events) {
          if (event.type === 'linked') {
            outcome.opened += 1
            outcome.openMost = Math.max(outcome.openMost, outcome.opened - outcome.closed)
            const options = { delivery: 'at-most-once', deadlineMs: 60_000 } as const
            for (let asked = 0; asked < 64; asked++)
              node.request('echo', READER_PAYLOAD, options).catch(() => undefined)
            setImmediate(() => setImmediate(() => connections.at(-1)?.pause()))
          }
          if (event.type === 'unlinked') outcome.closed += 1
        }
      })()
      if (index % DIALLED_AT_ONCE === 0) await new Promise((resolve) => setTimeout(resolve, 20))
    }
    await new Promise((resolve) => setTimeout(resolve, seconds * 1_000))
    await Promise.all(nodes.map((node) => node.close()))
    return outcome
  }
  return Promise.resolve({ ready: {}, verbs: { slow, flood, readers } })
}

interface Manner {
  againMs: number
  /** Says what it has to say. */
  greet: (socket: net.Socket) => void
}

/** The runtime of every program, which shows its connections. */
function keeping(connections: Connection[]): Runtime {
  return {
    ...nodeRuntime,
    dial: (host, port, opened, failed) =>
      nodeRuntime.dial(
        host,
        port,
        (connection, nowMs) => {
          connections.push(connection)
          return opened(connection, nowMs)
        },
        failed,
      ),
  }
}
