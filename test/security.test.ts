/** The commands of SECURITY.md, as somebody in a hurry copies them. */
import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { chmodSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import net from 'node:net'
import { createInterface } from 'node:readline'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import { connect } from '../lib/index.ts'
import { CLOCK_TOLERANCE_MS, isRevoked, verifyRevocations } from '../lib/identity/certificate.ts'
import {
  admit,
  createAuthority,
  formatIdentity,
  parseIdentity,
  parseRevocations,
  parseServiceSecrets,
} from '../lib/identity/identity.ts'
import { sodiumRandom } from '../lib/identity/sodium.ts'
import { SEAL_TOLERANCE_MS } from '../lib/node/worker-seals.ts'
import { Mode, Role } from '../protocol/constants.ts'
import { hasTest } from './named-tests.ts'
import { VirtualCluster } from './virtual-cluster.ts'

const ROOT = fileURLToPath(new URL('.', import.meta.resolve('adaptnet/package.json')))
const MAIN = fileURLToPath(new URL('../lib/cli/main.js', import.meta.url))

t.test('every command of SECURITY.md works, in its order', async (t) => {
  const dir = mkdtempSync(join(tmpdir(), 'adaptnet-security-'))
  t.teardown(() => rmSync(dir, { recursive: true, force: true }))
  const program = join(dir, 'adaptnet')
  writeFileSync(program, `#!/bin/sh\nexec '${process.execPath}' '${MAIN}' "$@"\n`)
  chmodSync(program, 0o755)
  const blocks = [...readFileSync(join(ROOT, 'SECURITY.md'), 'utf8').matchAll(/```sh\n([^`]*)```/g)]
  t.ok(blocks.length >= 4)
  const env = { ...process.env, PATH: `${dir}:${process.env['PATH'] ?? ''}` }
  for (const [, commands = ''] of blocks) execFileSync('sh', ['-ec', commands], { cwd: dir, env, stdio: 'pipe' })
  const read = (path: string): string => readFileSync(join(dir, path), 'utf8')
  const [old, fresh] = ['net/worker.identity', 'net/worker-2.identity'].map((path) => parseIdentity(read(path)))
  const list = verifyRevocations(parseRevocations(read('net/revocations.json')), old?.net ?? Buffer.alloc(32))
  t.same(
    [old, fresh].map((identity) => identity !== undefined && isRevoked(identity.certificate, list)),
    [true, false],
    'the node has a new key, and the old one is revoked',
  )
  t.same(
    parseServiceSecrets(read('net/services/pay.book.key')).epochs.map(({ epoch }) => epoch),
    [2, 1],
    'the service has a second epoch',
  )
  t.notSame(parseIdentity(read('net-2/worker.identity')).net, old?.net, 'the new authority is another')
})

/** The number that a source file gives to one of its constants. */
function kept(path: string, name: string): number {
  const source = readFileSync(join(ROOT, path), 'utf8')
  const [, value] = new RegExp(`const ${name}(?:: number)? = ([\\d_.]+)$`, 'm').exec(source) ?? []
  if (value === undefined) throw new Error(`${path} has no number ${name}`)
  return Number(value.replaceAll('_', ''))
}

/** The limits of SECURITY.md, as the code has them. */
function limits(): [string, string][] {
  const wire = (name: string): number => kept('protocol/constants.ts', name)
  const door = (name: string): number => kept('lib/broker/handshakes.ts', name)
  const kib = (bytes: number): string => `${bytes / 1_024} KiB`
  const mib = (bytes: number): string => `${bytes / 1_048_576} MiB`
  const s = (ms: number): string => `${ms / 1_000} s`
  const count = (number: number): string => number.toLocaleString('en-US')
  const shares: Record<number, string> = { 0.25: 'a quarter', 0.5: 'half' }
  const lingering = (name: string): number => kept('lib/transport/lingering.ts', name)
  const reserved = lingering('LINGERING_MAX') + 64
  const turn = (name: string): number => kept('lib/transport/read-turns.ts', name)
  const turnBytes = `${mib(turn('TURN_BYTES'))}, ${kib(turn('CROWDED_TURN_BYTES'))} when many of them do`
  const kind = kept('lib/cli/event-lines.ts', 'LIMITED_PER_SECOND')
  return [
    [
      'a stranger: bytes, time',
      `one message of ${kib(wire('HANDSHAKE_BYTES_MAX'))}, ${s(wire('HANDSHAKE_TIMEOUT_MS'))}`,
    ],
    [
      'strangers that keep a broker waiting',
      `${wire('HANDSHAKES_PENDING_MAX')}, of them ${door('ANSWERED_MAX')} that were answered once; the oldest goes`,
    ],
    [
      'connections that have just come; handshakes that wait for their turn',
      `${door('FRESH_MAX')}; ${door('QUEUED_MAX')} of at most ${kib(wire('HANDSHAKE_BYTES_MAX'))}`,
    ],
    [
      "a broker's time for handshakes while it relays",
      `one message between two looks at its links, and ${shares[door('SHARE')]} of the time; ` +
        `for those that it admits, ${shares[door('ADMITTED_SHARE')]}`,
    ],
    [
      'links of a broker',
      `${count(wire('LINKS_MAX'))}, or ${reserved} fewer than the process may open files; ` +
        'who is silent in its handshake makes room',
    ],
    [
      'connections that a broker has ended and that deliver their last bytes',
      `${lingering('LINGERING_MAX')}, ${s(lingering('LINGER_MS'))}; the oldest goes`,
    ],
    [
      'a record; a payload; an envelope; a body',
      `${mib(wire('RECORD_SEALED_BYTES_MAX'))} sealed and as much raw; ${mib(wire('PAYLOAD_BYTES_MAX'))}; ` +
        `${kib(wire('ENVELOPE_BYTES_MAX'))}; ${kib(wire('CONTROL_BYTES_MAX'))}`,
    ],
    ['a record that was begun', `${s(wire('RECORD_TIMEOUT_MS'))}, and a second for each KiB`],
    [
      'bytes that wait for a reader',
      `${mib(wire('LINK_PAUSE_BYTES'))}, then nothing is read from it; ${mib(wire('LINK_SEND_BYTES_MAX'))} or ` +
        `${s(wire('SLOW_READER_MS'))} without progress, then it is cut`,
    ],
    [
      'bytes that wait for all readers of a broker',
      `${mib(kept('lib/broker/send-budget.ts', 'SEND_BYTES_MAX'))}, then those that have taken nothing for longest are cut`,
    ],
    [
      'what is read in a turn of the loop from nodes that send much',
      `${turnBytes}; from workers, whose answers are awaited, as much again`,
    ],
    [
      'requests of a node that are out; of a service that wait; bytes that wait in a broker',
      `${count(wire('OUTSTANDING_PER_LINK_MAX'))}; ${wire('QUEUE_REQUESTS_MAX')}; ${mib(wire('QUEUE_BYTES_MAX'))}`,
    ],
    [
      'a key of a link',
      `${count(kept('lib/link/rekeying.ts', 'REKEY_RECORDS'))} records, ` +
        `${kept('lib/link/rekeying.ts', 'REKEY_MS') / 60_000} minutes`,
    ],
    ['lines that others can make a command write', `${kind} a second of each kind, then one that counts the others`],
  ]
}

t.test('every number of SECURITY.md is the one that the code keeps', async (t) => {
  const text = readFileSync(join(ROOT, 'SECURITY.md'), 'utf8')
  const [, table = ''] = /\n## Limits\n([^#]*)/.exec(text) ?? []
  const rows = [...table.matchAll(/^\| (.+) \| (.+) \|$/gm)].map(([, of, most]) => [of, most])
  t.same(rows.slice(1), limits())
  const [sealed, raw] = ['SEALED', 'RAW'].map((part) => kept('protocol/constants.ts', `RECORD_${part}_BYTES_MAX`))
  t.equal(raw, sealed, 'as much raw')
  t.match(readFileSync(join(ROOT, 'lib/transport/descriptors.ts'), 'utf8'), 'RESERVED = LINGERING_MAX + 64')
  const [clock, seal] = [CLOCK_TOLERANCE_MS / 60_000, SEAL_TOLERANCE_MS / 60_000]
  t.match(text.replaceAll(/\s+/g, ' '), `to ${clock} minutes for certificates and ${seal} minutes for sealed requests`)
  t.match(text, `(${seal} minutes of tolerance)`)
  t.equal(kept('lib/discovery/beacons.ts', 'DIAL_PAUSE_MS'), 10_000)
  t.match(text, 'at most once in ten seconds each')
  t.match(text, `commands warn ${kept('lib/cli/own-identity.ts', 'DAYS_LEFT_WARNING')} days before`)
  t.equal(kept('lib/identity/service-key.ts', 'SERVICE_EPOCHS_KEPT'), 2)
  t.match(text, 'one step back is still opened')
})

/** What SECURITY.md promises, in its words, and the tests by which it holds. */
const PROMISES: readonly (readonly [words: string, ...tests: `${string}: ${string}`[]])[] = [
  ['reads nothing but lengths and times', 'security.test.ts: a listener between two machines reads nothing'],
  [
    'which large sealed payloads are of one session',
    'sealing.test.ts: payloads of every size come back, and the box shows their length only',
  ],
  [
    "past traffic stays unreadable when a node's key is stolen later",
    'wiping.test.ts: the ephemeral key of a handshake, however it ends',
    'wiping.test.ts: the keys of a link: two at each end while it is open, none afterwards, nor of its handshake',
  ],
  [
    'new ones within an hour on each',
    'link.test.ts: a link makes new keys for what it sends before an hour is over, also if nothing else is sent',
  ],
  [
    'make either end believe what the other did not say',
    'noise.test.ts: a message changed in any byte fails, and the state is of no more use',
    'hostile.test.ts: records and frames whose lengths, tags or flags are wrong',
    'catalogue-net.test.ts: everything that one connection said, said again on another: no part of it is believed',
  ],
  [
    'one code for every reason, which is told only to this side',
    'hostile.test.ts: who is not admitted is told UNAUTHORIZED and nothing else; the broker knows why',
    'hostile.test.ts: strangers: told what concerns them, or nothing, and closed',
  ],
  [
    'forged ones make a process dial the address that they came from, at most once in ten seconds each, and nothing else',
    'beacon.test.ts: a flood costs a bounded number of looks and of dials, and others are heard',
    'beacon.test.ts: what is taken of a beacon: where it came from, and the port',
  ],
  [
    'a certificate alone proves nothing',
    'hostile.test.ts: who is not admitted is told UNAUTHORIZED and nothing else; the broker knows why',
    'hostile-broker.test.ts: a broker that is not admitted',
  ],
  [
    'a revocation cuts its links at once in every broker that hears of it, and those of nodes to a broker that is named',
    'broker-life.test.ts: revocation cuts live links at once in every broker, and keeps them out',
    'revocations.test.ts: a broker that is revoked is left by every node at once, by name, and nothing is lost',
  ],
  [
    'it knows the list that it is given as a file',
    'revocations.test.ts: connect: a list in a file keeps revoked brokers out from the start, and is read again when it changes',
  ],
  [
    'calls and serves what its certificate names, and nothing else',
    'broker.test.ts: permissions: the certificate decides what is served and called, for each frame',
  ],
  [
    "cannot send in another's name",
    'hostile.test.ts: frames that a node must not send, or not so',
    'broker.test.ts: a reply to an unknown, foreign or finished id is dropped and counted; nobody else notices',
    "catalogue-net.test.ts: a cancel of another's request has no effect, and tells nothing",
  ],
  ['what it sends wrongly closes its own link', 'hostile.test.ts: frames that a node must not send, or not so'],
  [
    'bring a broker down by what it says or does not read',
    'broker-memory.test.ts: two hundred megabytes that nobody reads: those that take nothing longest are closed, others go on',
    'catalogue-machine.test.ts: more requests than a broker has memory for: BUSY, long before its process is in need',
    'fuzz.test.ts: what the corpus holds, and a little more, does no harm',
  ],
  [
    'the end that sees it refuses it (REQUEST_FORGED, REPLY_FORGED) and the client goes on through another broker',
    'hostile-sealing.test.ts: beside an honest broker: the request is answered, rightly, and ran once',
    'hostile-sealing.test.ts: alone: the end that sees it says so, and nothing wrong is run or answered',
    'sealing.test.ts: nothing that a broker reads or writes holds what was sealed',
  ],
  [
    'send a sealed request again, which the rules for duplicates meet',
    'hostile-sealing.test.ts: what it replays',
    'hostile-sealing.test.ts: exactly-once: a request that it kept until the lease is over is not run again',
    'client-proof.test.ts: what nobody waits for any more is not opened: a broker cannot keep it for later',
  ],
  [
    'a handler can rely on `request.sender`, which no broker can choose',
    'client-proof.test.ts: a seal proves the client: nobody seals in the name of another',
    'hostile-sealing.test.ts: a broker seals a request of its own in the name of a client: no worker runs it',
  ],
  [
    'a broker that keeps the key back makes a client send in the clear',
    'hostile-sealing.test.ts: in `auto` a broker that withholds the key sees the payload; `required` is what prevents it',
  ],
  [
    "only a broker's own key raises its incarnation",
    'membership-net.test.ts: accusations: of the present only, by whoever, and refuted by the accused',
    'membership-net.test.ts: a record that is forged, stale, replayed, expired or absurd changes nothing and is counted',
  ],
  [
    'made with mode 0600 and refused when others can read them',
    'net-command.test.ts: modes',
    'net-command.test.ts: files that are not what they should be',
  ],
  ['no key is ever overwritten', 'net-command.test.ts: never overwrites', 'net-service.test.ts: loses no secret'],
  [
    'commands warn 30 days before',
    'command-process.test.ts: who ends soon is told at the start, and who has ended or is revoked does not start',
  ],
  [
    'stand in guarded pages out of the swap',
    'wiping.test.ts: secrets that live as long as the process stand in one place',
    'wiping.test.ts: the ephemeral key that a client seals with, as soon as its keys are derived',
  ],
  [
    'no request fails meanwhile, because workers open the epoch before, too',
    'sealing.test.ts: three rotations under load, worker by worker: no request fails, and none is sealed to an old epoch',
  ],
  ['A key that has run out is none', 'sealing.test.ts: a key that has run out is none'],
  [
    'both ends must ask for it by name, and brokers offer it on loopback only',
    'hostile.test.ts: noise asked of a plain broker: MODE_REFUSED',
    'command-process.test.ts: what cannot work ends with its code',
  ],
]

t.test('every promise of SECURITY.md stands there, and has tests that are there', async (t) => {
  const text = readFileSync(join(ROOT, 'SECURITY.md'), 'utf8').replaceAll(/\s+/g, ' ')
  for (const [words, ...tests] of PROMISES) {
    t.ok(text.includes(words), words)
    t.ok(tests.length > 0)
    for (const test of tests) {
      const at = test.indexOf(': ')
      t.ok(hasTest(test.slice(0, at), test.slice(at + 2)), test)
    }
  }
})

t.test('a listener between two machines reads nothing', async (t) => {
  const cluster = new VirtualCluster({ seed: 1, mode: Mode.noise })
  const passed: Uint8Array[] = []
  cluster.net.onWrite = (_from, _to, chunks) => void passed.push(...chunks.map((chunk) => Buffer.from(chunk)))
  const { broker } = cluster.broker('broker-of-names')
  const worker = await cluster.linkedNode('worker-of-names', ['broker-of-names'])
  const serving = { payload: 'an answer that nobody else may read' }
  await cluster.net.settle(worker.serve('service-of-names', () => serving.payload))
  const client = await cluster.linkedNode('client-of-names', ['broker-of-names'])
  const asked = client.request('service-of-names', 'a question that nobody else may read')
  t.equal((await cluster.net.settle(asked)).payload.toString(), serving.payload)
  broker.revoke(cluster.revocations(1, ['somebody-of-names']))
  await cluster.net.run(6_000)
  const bytes = Buffer.concat(passed)
  t.ok(bytes.length > 1_000 && bytes.includes('ADAPTNET'), 'what passed was seen')
  for (const secret of ['of-names', 'nobody else may read']) t.notOk(bytes.includes(secret), secret)
  for (const name of ['broker-of-names', 'worker-of-names', 'client-of-names'])
    t.notOk(bytes.includes(Buffer.from(cluster.identity(name).certificate.signKey)), `the certificate of ${name}`)
})

t.test(
  'a broker that may open few files: strangers take none of those that nodes need',
  { skip: process.platform === 'linux' ? false : 'reads /proc' },
  async (t) => {
    const dir = mkdtempSync(join(tmpdir(), 'adaptnet-files-'))
    const authority = createAuthority(sodiumRandom)
    const identity = (name: string, roles: number): string => {
      const admission = { name, roles, serves: ['*'], calls: ['*'], nowMs: Date.now(), days: 1 }
      writeFileSync(join(dir, name), formatIdentity(admit(authority, admission, sodiumRandom)), { mode: 0o600 })
      return join(dir, name)
    }
    const args = ['broker', '--identity', identity('b1', Role.broker), '--listen', '127.0.0.1:0', '--json']
    const limited = ['-c', 'ulimit -n 100; exec "$@"', 'sh', process.execPath, MAIN, ...args]
    const broker = spawn('sh', limited, { stdio: ['ignore', 'pipe', 'inherit'] })
    t.teardown(async () => {
      broker.kill('SIGKILL')
      await once(broker, 'exit')
      rmSync(dir, { recursive: true, force: true })
    })
    const lines = createInterface(broker.stdout)
    const events: { type: string; message?: string }[] = []
    lines.on('line', (text) => events.push(JSON.parse(text) as { type: string }))
    const [first] = (await once(lines, 'line')) as [string]
    const { endpoint, port } = JSON.parse(first) as { endpoint: string; port: number }
    const strangers = Array.from({ length: 150 }, () => net.connect({ host: '127.0.0.1', port }))
    t.teardown(() => strangers.forEach((socket) => socket.destroy()))
    // Those that are let go make room; half of what may be opened is for links.
    for (const socket of strangers) socket.on('error', () => undefined)
    const closed = strangers.map((socket) => once(socket, 'close'))
    await Promise.all(closed.slice(0, 60))
    const node = await connect({ brokers: [endpoint], identity: identity('node', Role.node) })
    await node.serve('echo', (request) => request.payload)
    t.equal((await node.request('echo', 'hello')).payload.toString(), 'hello')
    await node.close()
    const why = events.find(({ type }) => type === 'refused')?.message
    t.equal(why, 'too many handshakes are pending', 'by the broker, before the system would have done it')
  },
)
