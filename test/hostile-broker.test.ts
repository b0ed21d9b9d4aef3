import net from 'node:net'
import t from 'tap'
import { FrameType, Mode, Role } from '../protocol/constants.ts'
import { decodeFarewell, encodeBrokers, encodeFarewell, encodeRegistered, encodeReject } from '../protocol/control.ts'
import { wireNumber } from '../protocol/errors.ts'
import type { AdaptnetError, ErrorCode } from '../protocol/errors.ts'
import type { Node } from '../lib/node/node.ts'
import type { NodeEvent } from '../lib/node/report.ts'
import { createTestNet } from '../lib/testing.ts'
import type { TestNet } from '../lib/testing.ts'
import { nodeRuntime } from '../lib/transport/node-runtime.ts'
import { listen } from '../lib/transport/tcp.ts'
import { follow, until } from './hostile-net.ts'
import { RawPeer, registration } from './raw-peer.ts'
import type { RawPeerOptions } from './raw-peer.ts'
import { VirtualCluster } from './virtual-cluster.ts'

// Bad input to a node, over real sockets, from what is or says it is a broker: each gets its stable code, closes at most
// its own link, and the node's requests go on through an honest broker.

interface Bench {
  testNet: TestNet
  node: Node
  events: NodeEvent[]
  goneOn: (t: Parameters<typeof until>[0] | undefined) => Promise<string>
}

/** A node that is linked to an honest broker, and dials `stranger` too. */
async function bench(stranger: string): Promise<Bench> {
  const testNet = await createTestNet({ brokers: 1 })
  const worker = await testNet.connect('worker')
  await worker.serve('honest', ({ payload }) => payload)
  const brokers = [...testNet.endpoints, stranger]
  const node = await testNet.connect('node', { brokers })
  const events: NodeEvent[] = []
  follow(node.events, (event) => events.push(event))
  const goneOn = async (): Promise<string> =>
    (await node.request('honest', 'still', { broker: 'broker-1' })).payload.toString()
  return { testNet, node, events, goneOn }
}

async function refusedBy(at: Bench, port: number): Promise<string> {
  const remote = `127.0.0.1:${port}`
  const of = (event: NodeEvent): boolean => event.type === 'refused' && event.remote === remote
  await until('a refusal', () => at.events.some(of))
  const event = at.events.find(of) as NodeEvent & { type: 'refused' }
  return event.code
}

t.test('a dialled address that is no broker of this net', async (t) => {
  const strangers: [string, string | Buffer, ErrorCode][] = [
    ['HTTP', 'HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n', 'HANDSHAKE_FAILED'],
    ['SSH', 'SSH-2.0-OpenSSH_9.7\r\n', 'HANDSHAKE_FAILED'],
    ['SMTP', '220 mail ESMTP\r\n', 'HANDSHAKE_FAILED'],
    ['zeros', Buffer.alloc(600), 'HANDSHAKE_FAILED'],
    ['nothing, then closed', '', 'UNREACHABLE'],
    ['a message of 65,535 bytes', Buffer.of(1, 0xff, 0xff), 'HANDSHAKE_FAILED'],
    ['its own point of low order', Buffer.concat([Buffer.of(1, 0, 96), Buffer.alloc(96)]), 'HANDSHAKE_FAILED'],
    ['a refusal: versions', Buffer.of(3, 0, 3, wireNumber('VERSION_UNSUPPORTED'), 4, 7), 'VERSION_UNSUPPORTED'],
    ['a refusal: mode', Buffer.of(3, 0, 3, wireNumber('MODE_REFUSED'), 1, 1), 'MODE_REFUSED'],
    ['a refusal of a later version', Buffer.of(3, 0, 3, 250, 1, 1), 'INTERNAL'],
    ['a refusal without a body', Buffer.of(3, 0, 0), 'HANDSHAKE_FAILED'],
  ]
  for (const [what, bytes, code] of strangers) {
    const server = net.createServer((socket) => {
      socket.on('error', () => {
        // A stranger does not care how the node leaves.
        socket.destroy()
      })
      if (bytes.length > 0) socket.write(bytes)
      else socket.end()
    })
    await new Promise<void>((resolve) => {
      server.listen(0, '127.0.0.1', resolve)
    })
    const { port } = server.address() as net.AddressInfo
    const at = await bench(`127.0.0.1:${port}`)
    t.equal(await refusedBy(at, port), code, what)
    t.equal(await at.goneOn(what), 'still', what)
    if (code === 'VERSION_UNSUPPORTED')
      t.match(
        at.events.find((event) => event.type === 'refused'),
        { message: /versions 4 to 7/ },
        'the refusal tells what is spoken',
      )
    await at.testNet.close()
    server.close()
  }
})

interface Scripted {
  at: Bench
  /** Links of the node, as the scripted broker has them. */
  links: RawPeer[]
  port: number
  close: () => Promise<void>
}

async function scripted(options: (testNet: TestNet) => Partial<RawPeerOptions> = () => ({})): Promise<Scripted> {
  const links: RawPeer[] = []
  let make: ((connection: ConstructorParameters<typeof RawPeer>[0]) => RawPeer) | null = null
  const listener = await listen('127.0.0.1', 0, (connection) => {
    const peer = (make as NonNullable<typeof make>)(connection)
    links.push(peer)
    return peer
  })
  // The net is made first, so that the scripted broker can be of it.
  const testNet = await createTestNet({ brokers: 1 })
  const identity = testNet.identity('traitor', { broker: true })
  const extra = options(testNet)
  make = (connection) =>
    new RawPeer(connection, { runtime: nodeRuntime, mode: Mode.noise, dialler: false, identity, ...extra })
  const worker = await testNet.connect('worker')
  await worker.serve('honest', ({ payload }) => payload)
  const node = await testNet.connect('node', { brokers: [...testNet.endpoints, `127.0.0.1:${listener.port}`] })
  const events: NodeEvent[] = []
  follow(node.events, (event) => events.push(event))
  const goneOn = async (): Promise<string> =>
    (await node.request('honest', 'still', { broker: 'broker-1' })).payload.toString()
  const close = async (): Promise<void> => {
    await testNet.close()
    listener.close()
  }
  return { at: { testNet, node, events, goneOn }, links, port: listener.port, close }
}

t.test('a broker that is not admitted', async (t) => {
  const other = await createTestNet({ brokers: 0 })
  const table: [string, (testNet: TestNet) => Partial<RawPeerOptions>, ErrorCode][] = [
    ['of another net', () => ({ identity: other.identity('traitor', { broker: true }) }), 'CERTIFICATE_FOREIGN'],
    ['a node that says it is a broker', (own) => ({ identity: own.identity('traitor') }), 'ROLE_REFUSED'],
    ['a node', (own) => ({ identity: own.identity('traitor'), role: Role.node }), 'ROLE_REFUSED'],
    ['with a stolen certificate', (own) => ({ linkKeyPair: own.identity('thief').linkKeyPair }), 'CERTIFICATE_STOLEN'],
    ['expired', (own) => ({ identity: own.identity('old', { broker: true, days: -1 }) }), 'CERTIFICATE_EXPIRED'],
    ['without a certificate', () => ({ hello: { certificate: Buffer.alloc(0) } }), 'CERTIFICATE_MALFORMED'],
  ]
  for (const [what, options, code] of table) {
    const { at, links, port, close } = await scripted(options)
    t.equal(await refusedBy(at, port), code, what)
    t.equal(await at.goneOn(what), 'still', what)
    t.equal(links[0]?.greeting, null, `${what}: it was not shown the node's certificate`)
    await close()
  }
})

const noAvro = Buffer.from([0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01])

t.test('frames that a broker must not send to a node, or not so', async (t) => {
  const misdeeds: [string, (peer: RawPeer) => void, ErrorCode][] = [
    ['REGISTER', (peer) => peer.send(FrameType.REGISTER), 'FRAME_UNEXPECTED'],
    ['WELCOME again', (peer) => peer.send(FrameType.WELCOME), 'FRAME_UNEXPECTED'],
    ['a frame of no type', (peer) => peer.send(0, { envelope: peer.envelope('x') }), 'FRAME_UNKNOWN'],
    ['no Avro in REGISTERED', (peer) => peer.send(FrameType.REGISTERED, { payload: noAvro }), 'FRAME_MALFORMED'],
    ['no Avro in BROKERS', (peer) => peer.send(FrameType.BROKERS, { payload: noAvro }), 'FRAME_MALFORMED'],
    ['no Avro in GO_AWAY', (peer) => peer.send(FrameType.GO_AWAY, { payload: noAvro }), 'FRAME_MALFORMED'],
    ['no envelope in REPLY', (peer) => peer.send(FrameType.REPLY), 'ENVELOPE_MALFORMED'],
    ['no envelope in REQUEST', (peer) => peer.send(FrameType.REQUEST), 'ENVELOPE_MALFORMED'],
    ['a record of 2^32 - 1 bytes', (peer) => peer.sendBytes(Buffer.alloc(8, 0xff)), 'RECORD_TOO_LARGE'],
    ['a record that is not authentic', (peer) => peer.sendBytes(Buffer.alloc(28, 0).fill(20, 3, 4)), 'TAG_INVALID'],
  ]
  const { at, links, close } = await scripted()
  t.teardown(close)
  for (const [what, deed, code] of misdeeds) {
    await until('a link', () => at.node.brokers.length === 2)
    const peer = links.at(-1) as RawPeer
    const unlinked = at.events.length
    deed(peer)
    const farewell = decodeFarewell((await peer.frame(FrameType.CLOSE)).payload)
    t.equal(farewell.code, code, `${what}: on the wire`)
    await until('the end of the link', () => at.events.slice(unlinked).some((event) => event.type === 'unlinked'))
    t.match(
      at.events.slice(unlinked).find((event) => event.type === 'unlinked'),
      { code },
      `${what}: in the node`,
    )
    t.equal(await at.goneOn(what), 'still', what)
  }
})

t.test('what a broker may say without harm', async (t) => {
  const { at, links, close } = await scripted()
  t.teardown(close)
  await until('a link', () => at.node.brokers.length === 2)
  const peer = links[0] as RawPeer
  const addresses = [70_000, -1, 0].map((port) => ({ host: '127.0.0.1', port, zone: '' }))
  peer.send(FrameType.BROKERS, {
    payload: encodeBrokers([{ name: 'nowhere', instance: Buffer.alloc(4), state: 1, addresses }]),
  })
  peer.send(FrameType.REGISTERED, { payload: encodeRegistered({ service: 'never', code: 'BUSY', message: '' }) })
  peer.send(FrameType.CANCEL, { envelope: peer.envelope('never', { originalId: Buffer.alloc(16, 5) }) })
  peer.send(FrameType.REPLY, { envelope: peer.envelope(at.node.address, { originalId: Buffer.alloc(16, 5) }) })
  peer.send(FrameType.REQUEST, { envelope: peer.envelope('never') })
  peer.send(200, { flags: 128, payload: registration('later', 1) })
  await peer.frame(FrameType.REJECT)
  t.equal(peer.lostWhy, null)
  t.equal(await at.goneOn('all of it'), 'still')
  peer.send(FrameType.CLOSE, { payload: encodeFarewell({ code: 'LIMIT_EXCEEDED', message: 'enough' }) })
  await until('the end', () => at.events.some((event) => event.type === 'unlinked'))
  t.match(
    at.events.find((event) => event.type === 'unlinked'),
    { code: 'LIMIT_EXCEEDED', message: 'enough' },
  )
})

const codeOfError = (error: AdaptnetError): string => error.code

t.test('a broker that lies about who keeps a journal is passed over, and costs no other link', async (t) => {
  const cluster = new VirtualCluster({ seed: Number(process.env['SEED'] ?? 1) })
  const honest = cluster.broker('b1')
  let lie = ''
  let asked = 0
  cluster.scriptedBroker('liar', (peer) => {
    peer.onFrame = (frame) => {
      if (frame.type !== FrameType.REQUEST) return
      if (frame.envelope?.receiver !== '$broker.journals')
        return peer.reject(frame, encodeReject({ code: 'NO_WORKER', message: '', retryAfterMs: 0 }))
      asked += 1
      peer.reply(frame, lie)
    }
  })
  const worker = await cluster.linkedNode('worker', ['b1'])
  // Asked at once about many services, a client asks both brokers.
  const services = Array.from({ length: 8 }, (_, index) => `work-${index}`)
  const handler = (request: { payload: Buffer }): Buffer => request.payload
  await cluster.net.settle(Promise.all(services.map((service) => worker.serve(service, handler))))
  const lies = ['', 'no JSON', 'null', '7', '{}', '[null]', '[7]', '[{}]', '[{"journal":7}]', '[{"journal":""}]']
  lies.push(
    '[{"journal":"B"}]',
    JSON.stringify([{ journal: 'x'.repeat(100_000) }]),
    `[{"journal":"${'\\u0000'.repeat(9)}"}]`,
  )
  for (const [index, told] of lies.entries()) {
    lie = told
    const client = await cluster.linkedNode(`client-${index}`, ['b1', 'liar'])
    const before = asked
    const calls = services.map((service) => client.request(service, 'x', { delivery: 'exactly-once' }))
    const ends = calls.map((call) => call.then((reply) => reply.payload.toString()).catch(codeOfError))
    const codes = await cluster.net.settle(Promise.all(ends))
    t.same(
      codes,
      services.map(() => 'x'),
      JSON.stringify(told.slice(0, 40)),
    )
    t.ok(asked > before, 'the liar was asked')
    await cluster.net.settle(client.close())
  }
  await cluster.net.run(100)
  t.same(
    honest.events.filter((event) => event.type === 'unlinked' && event.code !== 'BYE'),
    [],
    'nobody lost the honest broker by it',
  )
})
