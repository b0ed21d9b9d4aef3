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
import { isRevoked, verifyRevocations } from '../lib/identity/certificate.ts'
import {
  admit,
  createAuthority,
  formatIdentity,
  parseIdentity,
  parseRevocations,
  parseServiceSecrets,
} from '../lib/identity/identity.ts'
import { sodiumRandom } from '../lib/identity/sodium.ts'
import { Role } from '../protocol/constants.ts'

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
