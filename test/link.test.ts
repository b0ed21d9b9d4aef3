import t from 'tap'
import { FrameType, Mode, Role } from '../protocol/constants.ts'
import type { ErrorCode } from '../protocol/errors.ts'
import { verifyCertificate } from '../lib/identity/certificate.ts'
import { admit, createAuthority } from '../lib/identity/identity.ts'
import type { Identity } from '../lib/identity/identity.ts'
import { Link } from '../lib/link/link.ts'
import type { LinkListener, Peer } from '../lib/link/link.ts'
import { Rekeying } from '../lib/link/rekeying.ts'
import { SlabPool } from '../lib/link/slab-pool.ts'
import type { Connection, StreamListener } from '../lib/runtime.ts'
import { frame as frameBytes } from './vectors/independent-codec.ts'
import { openLink } from './vectors/machine.ts'
import { VirtualNet } from './virtual-net.ts'
import type { VirtualProcess } from './virtual-net.ts'

// The machine of one link (SPEC 4), two of them joined by a connection of a virtual net: no socket, no real time.

const SEED = Number(process.env['SEED'] ?? 1)
t.comment(`SEED=${SEED}`)

const PORT = 1
const setup = new VirtualNet({ seed: SEED }).start('setup')
const authority = createAuthority(setup.random)
const identityOf = (name: string): Identity => {
  const admission = { name, roles: Role.node, serves: [], calls: [], nowMs: setup.wallClock() }
  return admit(authority, admission, setup.random)
}
const [alice, bob] = [identityOf('alice'), identityOf('bob')]

/** One end: a link, and what it told. */
class End implements LinkListener {
  readonly process: VirtualProcess
  readonly link: Link
  readonly opens: Peer[] = []
  readonly frames: { type: number; payload: Buffer }[] = []
  readonly closes: { code: ErrorCode; message: string; atMs: number }[] = []
  readonly #flush: () => void

  constructor(process: VirtualProcess, identity: Identity, connection: Connection, dialler: boolean, mode: Mode) {
    this.process = process
    this.link = new Link(this, {
      dialler,
      connection,
      pool: new SlabPool(),
      nowMs: process.now(),
      handshake: {
        mode,
        linkKeyPair: identity.linkKeyPair,
        hello: {
          role: Role.node,
          instance: Buffer.alloc(4, 1),
          features: 0,
          payloadBytesMax: 1_048_576,
          addresses: [],
          certificate: identity.certificateBytes,
        },
        admit: (hello, linkKey) => {
          const judged = { net: authority.publicKey, nowMs: process.wallClock(), linkKey: linkKey ?? undefined }
          return verifyCertificate(hello.certificate, judged)
        },
        random: process.random,
      },
    })
    this.#flush = process.endOfTurn((nowMs) => this.link.flush(nowMs))
  }

  opened(peer: Peer): void {
    this.opens.push(peer)
  }

  frame(frame: Parameters<LinkListener['frame']>[0]): void {
    this.frames.push({ type: frame.type, payload: Buffer.from(frame.payloadView()) })
  }

  leaving(): void {}

  relieved(): void {}

  closed(code: ErrorCode, message: string): void {
    this.closes.push({ code, message, atMs: this.process.net.nowMs })
  }

  dirty(): void {
    this.#flush()
  }

  settle(): boolean {
    // Links of one process share nothing here: what was told was copied.
    return false
  }

  /** Judges time every 10 ms, as an owner does. */
  watch(expected: 'busy' | 'idle' | 'paused'): void {
    const alarm = this.process.alarm((nowMs) => {
      this.link.tick(nowMs, expected)
      if (!this.link.closed) alarm.set(nowMs + 10)
    })
    alarm.set(this.process.now())
  }

  get codes(): string {
    return this.closes.map(({ code }) => code).join()
  }
}

interface Pair {
  net: VirtualNet
  dialler: End
  acceptor: End
}

interface PairOptions {
  mode?: Mode
  segmentBytesMax?: number
  windowBytes?: number
  /** What stands between the dialler's link and its connection. */
  through?: (connection: Connection, net: VirtualNet) => Connection
}

async function pair(options: PairOptions = {}): Promise<Pair> {
  const net = new VirtualNet({
    seed: SEED,
    segmentBytesMax: options.segmentBytesMax ?? 65_536,
    windowBytes: options.windowBytes ?? 1_048_576,
  })
  const mode = options.mode ?? Mode.noise
  const [near, far] = [net.start('near'), net.start('far')]
  let acceptor: End | null = null
  let dialler: End | null = null
  far.listen(PORT, (connection) => {
    acceptor = new End(far, bob, connection, false, mode)
    return acceptor.link
  })
  near.dial(
    'far',
    PORT,
    (connection) => {
      dialler = new End(near, alice, options.through?.(connection, net) ?? connection, true, mode)
      return dialler.link
    },
    () => {},
  )
  await net.run(5)
  return { net, dialler: dialler as unknown as End, acceptor: acceptor as unknown as End }
}

/** Passes `bytes` bytes on and then ends or destroys the connection. */
function cutAfter(bytes: number, how: 'end' | 'destroy'): (connection: Connection) => Connection {
  return (connection) => {
    let left = bytes
    return {
      remote: connection.remote,
      bufferedBytes: 0,
      write: (chunks) => {
        const whole = Buffer.concat(chunks)
        if (left > 0) connection.write([whole.subarray(0, left)])
        left -= whole.length
        if (left <= 0) connection[how]()
        return true
      },
      end: () => connection.end(),
      destroy: () => connection.destroy(),
      pause: () => connection.pause(),
      resume: () => connection.resume(),
    }
  }
}

for (const [name, mode] of Object.entries(Mode))
  t.test(`${name}: a handshake, then frames both ways, whole or in pieces of any size`, async (t) => {
    for (const segmentBytesMax of [65_536, 1, 2, 3, 13, 100]) {
      const { net, dialler, acceptor } = await pair({ mode, segmentBytesMax })
      t.match(dialler.opens, [{ address: 'bob/01010101', certificate: { name: 'bob' } }])
      t.match(acceptor.opens, [{ address: 'alice/01010101', certificate: { name: 'alice' } }])
      const bodies = [0, 1, 100, 1_023, 1_024, 20_000].map((size) => Buffer.alloc(size, size + 1))
      for (const [from, to] of [
        [dialler, acceptor],
        [acceptor, dialler],
      ] as const) {
        for (const body of bodies) from.link.sendControl(FrameType.REGISTER, body)
        await net.run(5)
        t.same(
          to.frames.map(({ payload }) => payload),
          bodies,
          `pieces of ${segmentBytesMax}`,
        )
      }
      t.equal(dialler.codes + acceptor.codes, '')
    }
  })

t.test('cut off at each byte of preamble, handshake and first record: closed once, nothing half is seen', async (t) => {
  for (const mode of Object.values(Mode)) {
    let total = 0
    const count = (connection: Connection): Connection => {
      const write = connection.write.bind(connection)
      connection.write = (chunks) => {
        for (const chunk of chunks) total += chunk.length
        return write(chunks)
      }
      return connection
    }
    const whole = await pair({ mode, through: count })
    whole.dialler.link.sendControl(FrameType.REGISTER, Buffer.from('body'))
    await whole.net.run(5)
    t.equal(whole.acceptor.frames.length, 1)
    const wrong: string[] = []
    for (let bytes = 0; bytes < total; bytes++)
      for (const how of ['end', 'destroy'] as const) {
        const { net, dialler, acceptor } = await pair({ mode, through: cutAfter(bytes, how) })
        dialler?.link.sendControl(FrameType.REGISTER, Buffer.from('body'))
        await net.run(2_000)
        const ends = `${acceptor.codes} ${dialler.codes}`
        if (ends !== 'UNREACHABLE UNREACHABLE' || acceptor.frames.length > 0 || acceptor.opens.length > 1)
          wrong.push(`${how} after ${bytes} of ${total}: ${ends}, ${acceptor.frames.length} frames`)
      }
    t.same(wrong, [], `mode ${mode}: all ${total} places`)
  }
})

t.test('silence: a handshake is given up after 5 s, and holds no more than it was sent', async (t) => {
  for (const bytes of [0, 1, 11, 12, 14, 40]) {
    const net = new VirtualNet({ seed: SEED })
    const [near, far] = [net.start('near'), net.start('far')]
    let acceptor: End | null = null
    far.listen(PORT, (connection) => {
      acceptor = new End(far, bob, connection, false, Mode.noise)
      acceptor.watch('idle')
      return acceptor.link
    })
    const sent: Buffer[] = []
    const start = (connection: Connection): StreamListener => {
      const preamble = Buffer.concat([Buffer.from('ADAPTNET'), Buffer.of(1, 1, 1, 0), Buffer.of(1, 0, 32)])
      if (bytes > 0) connection.write([Buffer.concat([preamble, Buffer.alloc(32)]).subarray(0, bytes)])
      return { received: (chunk) => (sent.push(Buffer.from(chunk)), false), drained: () => {}, lost: () => {} }
    }
    near.dial('far', PORT, start, () => {})
    await net.run(4_900)
    t.equal((acceptor as unknown as End).codes, '', `${bytes} bytes`)
    await net.run(200)
    t.equal((acceptor as unknown as End).codes, 'HANDSHAKE_TIMEOUT', `${bytes} bytes`)
    t.same(sent, [], 'and a stranger is told nothing')
  }
})

t.test('one byte a second is not a handshake either', async (t) => {
  const { net, acceptor } = await pair({
    through: (connection, net) => ({
      remote: '',
      bufferedBytes: 0,
      write: (chunks) => {
        for (const [index, byte] of Buffer.concat(chunks).entries())
          net.schedule(net.nowMs + index * 1_000, null, () => connection.write([Buffer.of(byte)]))
        return true
      },
      end: () => connection.end(),
      destroy: () => connection.destroy(),
      pause: () => {},
      resume: () => {},
    }),
  })
  acceptor.watch('idle')
  await net.run(5_100)
  t.equal(acceptor.codes, 'HANDSHAKE_TIMEOUT')
})

t.test('a half-open link is noticed within a second when answers are awaited, within 16 s when not', async (t) => {
  for (const [expected, least, most] of [
    ['busy', 750, 1_000],
    ['idle', 14_000, 16_000],
  ] as const) {
    const { net, dialler } = await pair()
    net.cut('near', 'far')
    const startMs = net.nowMs
    dialler.watch(expected)
    await net.until(() => dialler.closes.length > 0)
    const afterMs = net.nowMs - startMs
    t.equal(dialler.codes, 'PEER_SILENT')
    t.ok(afterMs >= least && afterMs <= most, `${expected}: after ${afterMs} ms`)
  }
})

t.test('a peer that answers pings is not silent, however little it says', async (t) => {
  const { net, dialler, acceptor } = await pair()
  dialler.watch('busy')
  acceptor.watch('idle')
  await net.run(60_000)
  t.equal(dialler.codes + acceptor.codes, '')
  t.ok((dialler.link.roundTripMs ?? 0) >= 0.5 && (dialler.link.roundTripMs ?? 9) < 1, `${dialler.link.roundTripMs} ms`)
})

t.test('a slow writer: a record must come in 5 s and a second more for each KiB', async (t) => {
  for (const [size, limitMs] of [
    [100, 5_100],
    [40_000, 44_000],
  ] as const) {
    let bytes = Buffer.alloc(0)
    let holding = false
    let below: Connection | null = null
    const { net, dialler, acceptor } = await pair({
      through: (connection) => {
        below = connection
        const write = connection.write.bind(connection)
        connection.write = (chunks) => {
          if (!holding) return write(chunks)
          bytes = Buffer.concat([bytes, ...chunks])
          return true
        }
        return connection
      },
    })
    const forward = (chunk: Buffer): boolean => (below as unknown as Connection).write([chunk])
    holding = true
    dialler.link.sendControl(FrameType.REGISTER, Buffer.alloc(size))
    await net.run(1)
    holding = false
    acceptor.watch('idle')
    const startMs = net.nowMs
    // A few bytes each second keep the link alive; they are not enough.
    for (let at = 0; acceptor.closes.length === 0 && at < bytes.length - 12; at += 12) {
      forward(bytes.subarray(at, at + 12))
      await net.run(1_000)
    }
    const afterMs = (acceptor.closes[0]?.atMs ?? 0) - startMs
    t.equal(acceptor.codes, 'SLOW_WRITER', `${size} bytes`)
    t.ok(afterMs >= 4_900 && afterMs <= limitMs + 1_100, `${size} bytes: after ${afterMs} ms`)
  }
})

t.test('a slow reader is given up after 10 s without progress; what waits is bounded', async (t) => {
  const { net, dialler, acceptor } = await pair({ windowBytes: 16_384 })
  acceptor.link.connection.pause()
  dialler.watch('paused')
  const startMs = net.nowMs
  for (let count = 0; count < 10; count++) dialler.link.sendControl(FrameType.REGISTER, Buffer.alloc(10_000))
  await net.until(() => dialler.closes.length > 0)
  t.equal(dialler.codes, 'SLOW_READER')
  t.ok(Math.abs(net.nowMs - startMs - 10_000) < 200, `after ${net.nowMs - startMs} ms`)
  const greedy = await pair({ windowBytes: 16_384 })
  greedy.acceptor.link.connection.pause()
  let most = 0
  for (let count = 0; count < 100 && greedy.dialler.codes === ''; count++) {
    for (let frame = 0; frame < 20; frame++) greedy.dialler.link.sendControl(FrameType.REGISTER, Buffer.alloc(60_000))
    most = Math.max(most, greedy.dialler.link.waitingBytes)
    await greedy.net.run(1)
  }
  t.equal(greedy.dialler.codes, 'SLOW_READER')
  t.ok(most < 67_108_864 + 2 * 1_048_576, `${most} bytes waited`)
})

t.test('CLOSE tells the code, and each side closes once', async (t) => {
  const { net, dialler, acceptor } = await pair()
  dialler.link.sendControl(FrameType.REGISTER, Buffer.from('last words'))
  dialler.link.close('LIMIT_EXCEEDED', 'enough', dialler.process.now())
  dialler.link.close('BYE', '', dialler.process.now())
  dialler.link.sendControl(FrameType.REGISTER, Buffer.from('too late'))
  await net.run(2_000)
  t.match(acceptor.frames, [{ payload: Buffer.from('last words') }])
  t.match(acceptor.closes, [{ code: 'LIMIT_EXCEEDED', message: 'enough' }])
  t.match(dialler.closes, [{ code: 'LIMIT_EXCEEDED' }])
})

t.test('a listener that throws ends its link with INTERNAL, and tells the peer nothing of it', async (t) => {
  const { net, dialler, acceptor } = await pair()
  acceptor.frame = () => {
    throw new TypeError('a secret of this side')
  }
  dialler.link.sendControl(FrameType.REGISTER, Buffer.from('x'))
  await net.run(10)
  t.match(acceptor.closes, [{ code: 'INTERNAL', message: /secret/ }])
  t.equal(dialler.codes, 'INTERNAL')
  t.notMatch(dialler.closes[0]?.message, /secret/)
})

const PING = frameBytes({ type: FrameType.PING, payload: Buffer.of(7) })
const REKEY = frameBytes({ type: FrameType.REKEY })
const HOUR_MS = 3_600_000

t.test('the peer sends REKEY: its next record opens under the next key, and under no other', async (t) => {
  const link = openLink(Mode.noise)
  for (let round = 0; round < 3; round++) {
    link.send(Buffer.concat([PING, REKEY]), Buffer.alloc(0), 1_000)
    link.rekey()
    link.send(PING, Buffer.alloc(0), 7)
  }
  t.equal(link.closed.code, null)
  t.equal(link.answers().length, 6, 'every PING was read')
  link.send(REKEY, Buffer.alloc(0), 1_000)
  link.send(PING, Buffer.alloc(0), 1_000)
  t.equal(link.closed.code, 'TAG_INVALID', 'the old key opens nothing any more')
})

t.test('a link makes new keys for what it sends before an hour is over, also if nothing else is sent', async (t) => {
  const link = openLink(Mode.noise)
  // The keepalive is satisfied all the time.
  for (let nowMs = 0; nowMs <= 3 * HOUR_MS; nowMs += 60_000) {
    link.link.received(Buffer.alloc(0), nowMs)
    link.link.tick(nowMs, 'idle')
    link.link.flush(nowMs)
  }
  link.send(PING, Buffer.alloc(0), 1_000)
  t.equal(link.closed.code, null)
  const types = link.answers().map(({ type }) => type)
  t.same(types, [FrameType.REKEY, FrameType.REKEY, FrameType.REKEY, FrameType.PONG], 'and uses them')
  const plain = openLink(Mode.plain)
  plain.link.received(Buffer.alloc(0), 2 * HOUR_MS)
  plain.link.tick(2 * HOUR_MS, 'idle')
  plain.link.flush(2 * HOUR_MS)
  t.same(plain.answers(), [], 'plain mode has none')
})

t.test('a busy link makes new keys by the number of its records, far below 2^32', async (t) => {
  const rekeying = new Rekeying(0)
  const at: number[] = []
  for (let records = 0; records < 3_500_000; records += 1_000) if (rekeying.due(records, 1)) at.push(records)
  t.equal(at.length, 3)
  t.ok((at[0] ?? 0) < 2 ** 21)
})

t.test('two links that follow each other through new keys in both directions', async (t) => {
  const { net, dialler, acceptor } = await pair()
  for (const [from, to] of [
    [dialler, acceptor],
    [acceptor, dialler],
    [dialler, acceptor],
  ] as const) {
    const before = to.frames.length
    from.link.sendControl(FrameType.REGISTER, Buffer.of(1))
    from.link.tick(net.nowMs + HOUR_MS, 'paused')
    from.link.sendControl(FrameType.REGISTER, Buffer.alloc(3_000, 2))
    await net.run(5)
    t.equal(to.frames.length, before + 2)
  }
  t.equal(dialler.codes + acceptor.codes, '')
})
