/** Faults of the catalogue (`catalogue.test.ts`) that need sockets, processes and their limits. */
import { execFile, spawn } from 'node:child_process'
import type { ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync, readdirSync } from 'node:fs'
import net from 'node:net'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import { FrameType, Mode, QUEUE_BYTES_MAX } from '../protocol/constants.ts'
import type { AdaptnetError } from '../protocol/errors.ts'
import type { Identity } from '../lib/identity/identity.ts'
import { createTestNet } from '../lib/testing.ts'
import { writeIdentity } from '../lib/transport/identity-files.ts'
import { connect } from '../lib/transport/connect.ts'
import { nodeRuntime } from '../lib/transport/node-runtime.ts'
import { until } from './hostile-net.ts'
import { RawPeer, rejectionOf } from './raw-peer.ts'

const posix = { skip: process.platform === 'win32' ? 'no limits of this kind' : false }
const linux = { skip: process.platform === 'linux' ? false : 'no /proc' }
const compiled = (path: string): string => fileURLToPath(new URL(path, import.meta.url))
const endOf = (promise: Promise<{ payload: Buffer }>): Promise<string> =>
  promise.then(
    (reply) => reply.payload.toString(),
    (error: AdaptnetError) => `${error.code}: ${error.message}`,
  )

t.test('two hundred clients and their only broker, which is gone and comes back: none is stranded', async (t) => {
  const testNet = await createTestNet({ brokers: 1 })
  t.teardown(() => testNet.close())
  const worker = await testNet.connect('worker')
  await worker.serve('echo', (request) => request.payload)
  const identity = testNet.identity('client')
  const clients = await Promise.all(Array.from({ length: 200 }, () => testNet.connect('client', { identity })))
  const [broker] = testNet.brokers
  const { endpoint } = broker as NonNullable<typeof broker>
  await testNet.stopBroker(broker as NonNullable<typeof broker>)
  await until('all have noticed', () => clients.every((client) => client.brokers.length === 0))
  const asked = clients.map((client, index) =>
    endOf(client.request('echo', `${index}`, { deadlineMs: 60_000, timeoutMs: 5_000, retries: 60 })),
  )
  const beganMs = performance.now()
  await testNet.startBroker('broker-again', endpoint)
  const ends = await Promise.all(asked)
  t.comment(`all were answered ${Math.round(performance.now() - beganMs)} ms after it was back`)
  t.same(
    ends,
    clients.map((_, index) => `${index}`),
  )
})

t.test('what accepts and closes at once is passed over, and not dialled without a pause', async (t) => {
  let accepted = 0
  const hollow = net.createServer((socket) => {
    accepted += 1
    socket.destroy()
  })
  hollow.listen(0, '127.0.0.1')
  await once(hollow, 'listening')
  const testNet = await createTestNet({ brokers: 1 })
  t.teardown(async () => {
    await testNet.close()
    hollow.close()
  })
  const worker = await testNet.connect('worker')
  await worker.serve('echo', (request) => request.payload)
  const { port } = hollow.address() as net.AddressInfo
  const beganMs = performance.now()
  const node = await testNet.connect('client', { brokers: [`127.0.0.1:${port}`, ...testNet.endpoints] })
  const wrong: string[] = []
  for (let count = 0; accepted < 6; count++) {
    const end = await endOf(node.request('echo', `${count}`))
    if (end !== `${count}`) wrong.push(end)
  }
  t.same(wrong, [], 'requests go by the other one')
  // Half of each pause is left to chance: 25, 50, 100, 200 and then 250 ms are the shortest.
  const elapsedMs = performance.now() - beganMs
  t.ok(elapsedMs > 25 + 50 + 100 + 200 + 250, `it was dialled six times in ${Math.round(elapsedMs)} ms`)
})

t.test('a client without file descriptors: a code, and what is linked goes on', posix, async (t) => {
  const testNet = await createTestNet({ brokers: 1, mode: 'plain' })
  t.teardown(() => testNet.close())
  const worker = await testNet.connect('worker')
  await worker.serve('echo', (request) => request.payload)
  const path = join(t.testdir({}), 'client.identity')
  await writeIdentity(path, testNet.identity('client'))
  const command = `ulimit -n 64 && exec "$0" "$@"`
  const child = compiled('./starved-child.js')
  const told = await new Promise<string>((resolve, reject) => {
    const args = ['-c', command, process.execPath, child, path, testNet.endpoints[0] as string]
    execFile('sh', args, { timeout: 60_000 }, (error, out, err) =>
      error === null ? resolve(out) : reject(new Error(`${out}${err}`)),
    )
  })
  const outcome = JSON.parse(told) as Record<string, string>
  t.match(outcome, { before: 'before', during: 'during', after: 'after' })
  t.equal(outcome['refused'], 'UNREACHABLE')
})

interface Bounded {
  pid: number
  endpoint: string
  residentBytes: () => number
  over: () => boolean
  end: () => Promise<void>
}

interface Bounds {
  heapMib?: number
  descriptors?: number
}

/** A broker as users run it, with less than it would like to have. */
async function boundedBroker(identity: string, { heapMib = 64, descriptors = 1_024 }: Bounds): Promise<Bounded> {
  const broker = ['broker', '--identity', identity, '--listen', '127.0.0.1:0', '--plain', '--json']
  const args = [process.execPath, `--max-old-space-size=${heapMib}`, compiled('../lib/cli/main.js'), ...broker]
  const command = `ulimit -n ${descriptors} && exec "$0" "$@"`
  const child = spawn('sh', ['-c', command, ...args], { stdio: ['ignore', 'pipe', 'inherit'] })
  let over = false
  const ended = once(child, 'exit').then(() => {
    over = true
  })
  const lines = createInterface({ input: child.stdout })
  const endpoint = await new Promise<string>((resolve) => {
    lines.on('line', (line) => {
      const event = JSON.parse(line) as { type: string; endpoint: string }
      if (event.type === 'listening') resolve(event.endpoint)
    })
  })
  const { pid = 0 } = child
  const residentBytes = (): number => {
    const kib = /^VmRSS:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1]
    return Number(kib) * 1_024
  }
  const end = async (): Promise<void> => {
    child.kill('SIGKILL')
    await ended
  }
  return { pid, endpoint, residentBytes, over: () => over, end }
}

/** In a process of its own: this one is too busy to answer pings in time, and a worker that is silent is lost. */
async function stuckWorker(identity: string, endpoint: string): Promise<ChildProcess> {
  const options = JSON.stringify({ identity, brokers: [endpoint], mode: 'plain' })
  const code = `import { connect } from ${JSON.stringify(new URL('../lib/transport/connect.js', import.meta.url).href)}
    const node = await connect(${options})
    await node.serve('sink', () => new Promise(() => {}), { concurrency: 1 })
    console.log('serving')`
  const child = spawn(process.execPath, ['--input-type=module', '-e', code], { stdio: ['ignore', 'pipe', 'inherit'] })
  await once(child.stdout, 'data')
  return child
}

function plainPeer(endpoint: string, identity: Identity): Promise<RawPeer> {
  return new Promise((resolve, reject) => {
    const [host, port] = endpoint.split(':') as [string, string]
    nodeRuntime.dial(
      host,
      Number(port),
      (connection) => {
        const peer = new RawPeer(connection, { runtime: nodeRuntime, mode: Mode.plain, dialler: true, identity })
        resolve(peer)
        return peer
      },
      (code, why) => reject(new Error(`${code} ${why}`)),
    )
  })
}

t.test('more requests than a broker has memory for: BUSY, long before its process is in need', linux, async (t) => {
  const testNet = await createTestNet({ brokers: 0 })
  const path = join(t.testdir({}), 'broker.identity')
  await writeIdentity(path, testNet.identity('broker', { broker: true }))
  const broker = await boundedBroker(path, { heapMib: 32 })
  t.teardown(() => broker.end())
  const beforeBytes = broker.residentBytes()
  const workerPath = join(t.testdirName, 'stuck.identity')
  await writeIdentity(workerPath, testNet.identity('stuck'))
  const stuck = await stuckWorker(workerPath, broker.endpoint)
  t.teardown(() => stuck.kill('SIGKILL'))
  const payload = Buffer.alloc(60_000, 7)
  const peers: RawPeer[] = []
  for (let count = 0; count < 4; count++)
    peers.push(await plainPeer(broker.endpoint, testNet.identity(`flood-${count}`)))
  await until('greetings', () => peers.every((peer) => peer.greeting !== null))
  const refused = (): number => peers.reduce((sum, peer) => sum + peer.of(FrameType.REJECT).length, 0)
  // A third more than all queues may hold.
  const requests = Math.ceil((QUEUE_BYTES_MAX * 4) / 3 / payload.length / peers.length)
  for (const peer of peers)
    for (let count = 0; count < requests; count++) peer.request('sink', payload, { timeToLive: 60_000 })
  await until('refusals', () => refused() > (requests * peers.length) / 5)
  const codes = peers.flatMap((peer) => peer.of(FrameType.REJECT).map((frame) => rejectionOf(frame).code))
  t.same([...new Set(codes)], ['BUSY'])
  const grownBytes = broker.residentBytes() - beforeBytes
  t.ok(grownBytes < 3 * QUEUE_BYTES_MAX, `it grew by ${Math.round(grownBytes / 2 ** 20)} MiB`)
  const identity = testNet.identity('honest')
  const honest = await connect({ identity, brokers: [broker.endpoint], mode: 'plain' })
  await honest.serve('echo', (request) => request.payload)
  t.equal(await endOf(honest.request('echo', 'still')), 'still', 'others go on')
  t.equal(broker.over(), false)
  for (const peer of peers) peer.connection.destroy()
  await honest.close()
})

t.test('more connections than a broker has descriptors for: closed by itself, and others go on', linux, async (t) => {
  const testNet = await createTestNet({ brokers: 0 })
  const path = join(t.testdir({}), 'broker.identity')
  await writeIdentity(path, testNet.identity('broker', { broker: true }))
  const broker = await boundedBroker(path, { descriptors: 96 })
  t.teardown(() => broker.end())
  const options = { brokers: [broker.endpoint], mode: 'plain' } as const
  const worker = await connect({ identity: testNet.identity('worker'), ...options })
  await worker.serve('echo', (request) => request.payload)
  const client = await connect({ identity: testNet.identity('client'), ...options })
  const [host, port] = broker.endpoint.split(':') as [string, string]
  let closed = 0
  const strangers = Array.from({ length: 200 }, () => {
    const socket = net.connect(Number(port), host)
    socket.on('error', () => socket.destroy())
    socket.on('close', () => (closed += 1))
    return socket
  })
  await until('those that are too many are closed', () => closed >= 100)
  t.equal(await endOf(client.request('echo', 'still')), 'still', 'who is linked goes on')
  const open = (): number => readdirSync(`/proc/${broker.pid}/fd`).length
  t.ok(open() < 96, `${open()} descriptors are open`)
  const status = await client.request('$broker.status', '')
  t.match(JSON.parse(status.payload.toString()), { nodes: 2 }, 'and it answers for itself')
  for (const socket of strangers) socket.destroy()
  await until('they are gone', () => open() < 48)
  const late = await connect({ identity: testNet.identity('late'), ...options })
  t.equal(await endOf(late.request('echo', 'late')), 'late', 'then others can come')
  t.equal(broker.over(), false)
  await Promise.all([late, client, worker].map((node) => node.close()))
})
