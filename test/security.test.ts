/** The commands of SECURITY.md, as somebody in a hurry copies them. */
import { execFileSync } from 'node:child_process'
import { chmodSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import { isRevoked, verifyRevocations } from '../lib/identity/certificate.ts'
import { parseIdentity, parseRevocations, parseServiceSecrets } from '../lib/identity/identity.ts'

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
