/** The parts of the transport that decide by what they see: how much to read at once, and when a turn ends. */
import net from 'node:net'
import { channel } from 'node:diagnostics_channel'
import t from 'tap'
import { ReadBuffer } from '../lib/transport/read-buffer.ts'
import { LINGERING_MAX, LINGER_MS, Lingering } from '../lib/transport/lingering.ts'
import { ReadTurns } from '../lib/transport/read-turns.ts'
import type { Reading } from '../lib/transport/read-turns.ts'
import type { Connection } from '../lib/runtime.ts'
import { createTestNet } from '../lib/testing.ts'
import { listen } from '../lib/transport/tcp.ts'
import { Turns } from '../lib/transport/turns.ts'

const FIRST_BYTES = 4_096
const MOST_BYTES = 1_048_576

/** Lets a socket deliver so many bytes; a read never gets more than there is room for. */
function read(buffer: ReadBuffer, bytes: number, kept: boolean): Buffer {
  const { free } = buffer
  const taken = Math.min(bytes, free.length)
  buffer.filled(taken, kept)
  return free.subarray(0, taken)
}

t.test('memory that nobody keeps is read into again', async (t) => {
  const buffer = new ReadBuffer()
  const first = read(buffer, 100, false)
  const second = read(buffer, 2_000, false)
  t.equal(first.buffer, second.buffer)
  t.equal(first.byteOffset, second.byteOffset)
  t.equal(buffer.free.length, FIRST_BYTES, 'an idle link stays small')
})

t.test('what is kept is never read over', async (t) => {
  const buffer = new ReadBuffer()
  const kept: Buffer[] = []
  for (let index = 0; index < 3_000; index++) {
    const chunk = read(buffer, 1 + ((index * 7_919) % 9_000), true)
    chunk.fill(index & 0xff)
    kept.push(chunk)
  }
  t.ok(kept.every((chunk, index) => chunk.every((byte) => byte === (index & 0xff))))
})

t.test('slabs follow the reads: large for a flood, small again after it', async (t) => {
  const buffer = new ReadBuffer()
  while (buffer.free.length < MOST_BYTES) read(buffer, Infinity, true)
  for (let index = 0; index < 20; index++) read(buffer, Infinity, true)
  t.equal(buffer.free.length, MOST_BYTES, 'it grows no further')
  let slabs = 0
  for (let free = buffer.free.length; slabs < 20 && free > FIRST_BYTES * 4; slabs++)
    for (free = buffer.free.length; ;) {
      const { free: before } = buffer
      read(buffer, 1_000, true)
      if (buffer.free.buffer !== before.buffer) {
        free = buffer.free.length
        break
      }
    }
  t.ok(slabs < 20, 'reads of 1,000 bytes do not go on filling slabs of a megabyte')
})

t.test('a hundred busy sockets: slabs of all together are bounded, and the last one gets some room too', async (t) => {
  const busy = Array.from({ length: 100 }, () => new ReadBuffer())
  for (let round = 0; round < 40; round++) for (const buffer of busy) read(buffer, Infinity, true)
  const sizes = busy.map(({ free }) => free.length)
  const bytes = sizes.reduce((sum, size) => sum + size, 0)
  t.ok(bytes <= 64 * MOST_BYTES, `${bytes} bytes`)
  t.equal(sizes[0], MOST_BYTES)
  t.ok(Math.min(...sizes) >= 65_536, `the smallest has ${Math.min(...sizes)}`)
  for (const buffer of busy) buffer.close()
})

t.test('a record that is as long as the one before is not cut by the end of a slab', async (t) => {
  const buffer = new ReadBuffer()
  const record = 4_200
  for (let index = 0; index < 5; index++) read(buffer, record, true)
  for (let index = 0; index < 1_000; index++) {
    if (buffer.free.length < record) t.fail(`read ${index} has room for ${buffer.free.length} bytes only`)
    read(buffer, record, true)
  }
})

const turnOfLoop = (): Promise<void> => new Promise((resolve) => setImmediate(() => setImmediate(resolve)))

t.test('a turn ends with the chunk when there is one a turn, and after the last when there are many', async (t) => {
  const turns = new Turns()
  let ends = 0
  let early = 0
  const once = async (chunks: number): Promise<void> => {
    let ended = false
    for (let chunk = 0; chunk < chunks; chunk++) {
      turns.chunk()
      if (chunk === 0)
        turns.end(() => {
          ended = true
          ends += 1
        })
      await Promise.resolve()
      await new Promise((resolve) => process.nextTick(resolve))
      if (chunk === 0 && ended) early += 1
    }
    await turnOfLoop()
  }
  for (let turn = 0; turn < 100; turn++) await once(1)
  t.equal(ends, 100)
  t.ok(early > 90, `${early} of 100 ended with their chunk`)
  ends = early = 0
  for (let turn = 0; turn < 200; turn++) await once(3)
  t.equal(ends, 200)
  t.ok(early < 60, `${early} of 200 ended before the last chunk, until it was seen that there are many`)
  ends = early = 0
  for (let turn = 0; turn < 100; turn++) await once(1)
  t.ok(early > 90, `${early} of 100 ended with their chunk again`)
})

t.test('connections that deliver their last bytes: each for its time, so many at once, by one timer', async (t) => {
  let nowMs = 0
  const wakes: { atMs: number; run: () => void }[] = []
  const lingering = new Lingering(
    () => nowMs,
    (afterMs, run) => void wakes.push({ atMs: nowMs + afterMs, run }),
  )
  const destroyed: number[] = []
  const enter = (index: number): { destroy: () => void } => {
    const one = { destroy: () => void destroyed.push(index) }
    lingering.enter(one)
    return one
  }
  const wake = (): void => {
    const next = wakes.shift()
    nowMs = next?.atMs ?? nowMs
    next?.run()
  }
  const first = enter(0)
  nowMs = 400
  enter(1)
  enter(2)
  t.equal(wakes.length, 1)
  lingering.leave(first)
  wake()
  t.same(destroyed, [], 'who is gone is not waited for')
  wake()
  t.equal(nowMs, 400 + LINGER_MS)
  t.same(destroyed, [1, 2])
  t.same(wakes, [], 'nobody is left to wait for')
  for (let index = 0; index <= LINGERING_MAX; index++) enter(10 + index)
  t.same(destroyed, [1, 2, 10], 'one too many: the oldest makes room')
})

/** A server that notes what its connections tell. */
async function notingServer(): Promise<{ port: number; told: string[]; connections: Connection[]; close: () => void }> {
  const told: string[] = []
  const connections: Connection[] = []
  const listener = await listen('127.0.0.1', 0, (connection) => {
    connections.push(connection)
    return {
      received: (bytes) => {
        told.push(Buffer.from(bytes).toString())
        return false
      },
      drained: () => void told.push('drained'),
      lost: (why) => void told.push(`lost: ${why}`),
    }
  })
  return { port: listener.port, told, connections, close: () => listener.close() }
}

async function until(done: () => boolean): Promise<void> {
  while (!done()) await new Promise((resolve) => setImmediate(resolve))
}

t.test('an accepted connection is read, paused and closed without a socket of Node; a write makes one', async (t) => {
  const sockets: unknown[] = []
  const made = (message: unknown): void => void sockets.push(message)
  const documented = channel('net.server.socket')
  documented.subscribe(made)
  t.teardown(() => documented.unsubscribe(made))
  const { port, told, connections, close } = await notingServer()
  t.teardown(close)
  const peer = net.connect(port, '127.0.0.1')
  const answers: string[] = []
  peer.on('data', (bytes) => answers.push(bytes.toString()))
  peer.write('one')
  await until(() => told.length === 1)
  const [connection] = connections as [Connection]
  t.equal(connection.remote, `127.0.0.1:${peer.localPort ?? 0}`)
  t.equal(connection.bufferedBytes, 0)
  connection.pause()
  peer.write('two')
  // What another connection says comes after what this one would have.
  const other = net.connect(port, '127.0.0.1')
  other.write('other')
  await until(() => told.length === 2)
  t.same(told, ['one', 'other'])
  connection.resume()
  await until(() => told.length === 3)
  t.same(told, ['one', 'other', 'two'])
  t.same(sockets, [], 'so far no socket was made')
  t.equal(connection.write([Buffer.from('an '), Buffer.from('answer')]), true)
  await until(() => answers.join('') === 'an answer')
  peer.write('three')
  await until(() => told.length === 4)
  t.equal(told[3], 'three', 'and it goes on')
  peer.end()
  await until(() => told.length === 5)
  other.resetAndDestroy()
  await until(() => told.length === 6)
  t.ok(told.slice(4).every((line) => line.startsWith('lost: ')))
  t.equal(connections[1]?.write([Buffer.from('late')]), true, 'a write to one that is gone is taken and dropped')
})

t.test('an accepted connection that is closed before anything was written: lost once', async (t) => {
  const { port, told, connections, close } = await notingServer()
  t.teardown(close)
  const peers = [net.connect(port, '127.0.0.1'), net.connect(port, '127.0.0.1')]
  let ended = 0
  for (const peer of peers) peer.resume().on('close', () => (ended += 1))
  await until(() => connections.length === 2)
  connections[0]?.destroy()
  connections[0]?.destroy()
  connections[1]?.end()
  await until(() => ended === 2 && told.length === 2)
  t.same(
    told,
    Array.from({ length: 2 }, () => 'lost: the connection was closed'),
  )
})

const MEBIBYTE = 1_048_576

/** Sockets that are read in turns; `turn` lets the loop come round once. */
class Loop {
  readonly turns: ReadTurns
  readonly going: string[] = []
  #next: (() => void) | null = null

  constructor() {
    this.turns = new ReadTurns((run) => {
      this.#next = run
    })
  }

  socket(name: string, awaited: boolean = false, roomBytes: number = MEBIBYTE): Reading {
    return { awaited, roomBytes, limitBytes: Infinity, readOn: () => void this.going.push(name) }
  }

  /** Who goes on reading in the next turn. */
  turn(): string[] {
    const next = this.#next
    this.#next = null
    this.going.length = 0
    next?.()
    return [...this.going]
  }

  get asked(): boolean {
    return this.#next !== null
  }
}

t.test('who brings much takes turns with others who do; who brings little never waits', async (t) => {
  const loop = new Loop()
  const crowd = ['a', 'b', 'c', 'd'].map((name) => loop.socket(name))
  const little = loop.socket('little')
  t.equal(loop.turns.read(little, 16_383), true)
  t.equal(loop.asked, false, 'and it asks for nothing')
  t.same(
    crowd.map((socket) => loop.turns.read(socket, MEBIBYTE)),
    [true, false, false, false],
    'the first brings a whole turn',
  )
  t.equal(loop.turns.read(little, 1_000), true)
  t.same(loop.turn(), ['b'], 'who waits longest is the first, and brings a turn again')
  t.same(
    [0, 1].map((index) => loop.turns.read(crowd[index] as Reading, MEBIBYTE)),
    [false, false],
    'who was read while others wait is behind them',
  )
  const order = [loop.turn(), loop.turn(), loop.turn(), loop.turn()]
  t.same(order, [['c'], ['d'], ['a'], ['b']])
  t.equal(loop.asked, false, 'nobody waits any more')
  const modest = Array.from({ length: 40 }, (_, index) => loop.socket(`${index}`, false, 65_536))
  for (const socket of modest) loop.turns.read(socket, 60_000)
  t.equal(loop.turn().length, 4, 'of those that can bring less, more go on in a turn')
})

t.test('whose answers are awaited waits for his like only, and who is gone for nothing', async (t) => {
  const loop = new Loop()
  const crowd = Array.from({ length: 50 }, (_, index) => loop.socket(`${index}`))
  const workers = ['w1', 'w2'].map((name) => loop.socket(name, true))
  for (const socket of [...crowd, ...workers]) loop.turns.read(socket, MEBIBYTE)
  t.same(loop.turn(), ['w2', '1'])
  t.equal(crowd[40]?.limitBytes, MEBIBYTE / 4, 'the more wait, the less each of them is to bring')
  for (const socket of workers) loop.turns.read(socket, 2 * MEBIBYTE)
  t.same(loop.turn(), ['w1', '2'])
  loop.turns.leave(crowd[3] as Reading)
  loop.turns.leave(workers[1] as Reading)
  t.same(loop.turn(), ['4'])
})

t.test('a connection that waits for its turn and is paused goes on when it is resumed, and not before', async (t) => {
  let heardBytes = 0
  const paused: Connection[] = []
  const listener = await listen('127.0.0.1', 0, (connection) => {
    let first = true
    return {
      received: (bytes) => {
        // The answer makes it a socket that takes turns.
        if (first) connection.write([Buffer.from('go on')])
        first = false
        heardBytes += bytes.length
        if (heardBytes > 3 * MEBIBYTE && paused.length === 0) {
          paused.push(connection)
          connection.pause()
        }
        return false
      },
      drained: () => {},
      lost: () => {},
    }
  })
  t.teardown(() => listener.close())
  const peers = Array.from({ length: 4 }, () => {
    const peer = net.connect(listener.port, '127.0.0.1')
    peer.write('begin')
    peer.once('data', () => peer.write(Buffer.alloc(4 * MEBIBYTE)))
    t.teardown(() => void peer.destroy())
    return peer
  })
  await until(() => heardBytes >= (peers.length - 1) * (4 * MEBIBYTE + 5))
  for (let turn = 0; turn < 1_000; turn++) await turnOfLoop()
  t.ok(heardBytes < peers.length * 4 * MEBIBYTE, 'the paused one was not read on')
  paused[0]?.resume()
  await until(() => heardBytes === peers.length * (4 * MEBIBYTE + 5))
})

t.test('twenty clients with two megabytes each at once: none is forgotten while it waits for its turn', async (t) => {
  const testNet = await createTestNet({ brokers: 1 })
  t.teardown(() => testNet.close())
  const worker = await testNet.connect('worker')
  await worker.serve('echo', ({ payload }) => payload, { concurrency: 4_096 })
  const clients = await Promise.all(Array.from({ length: 20 }, (_, index) => testNet.connect(`client-${index}`)))
  const payload = Buffer.alloc(32_768, 7)
  const options = { timeoutMs: 60_000, deadlineMs: 60_000 }
  const asked = clients.flatMap((client) => Array.from({ length: 64 }, () => client.request('echo', payload, options)))
  const replies = await Promise.all(asked)
  t.ok(replies.every((reply) => reply.attempts === 1 && reply.payload.equals(payload)))
  t.equal(replies.length, 1_280)
})
