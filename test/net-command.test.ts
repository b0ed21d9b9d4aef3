import { execFileSync } from 'node:child_process'
import { chmodSync, existsSync, mkdirSync, readFileSync, readdirSync, truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { UsageError, parseCommand, parseInteger, runCommand } from '../lib/cli/command.ts'
import { DAY_MS, mayCall, mayServe, verifyCertificate, verifyRevocations } from '../lib/identity/certificate.ts'
import { admit } from '../lib/identity/identity.ts'
import { sodiumRandom } from '../lib/identity/sodium.ts'
import * as files from '../lib/transport/identity-files.ts'
import { Role } from '../protocol/constants.ts'
import { codeOf, done, doneJson, failure, modeOf, run } from './net-runner.ts'

const posix = process.platform === 'win32' ? { skip: 'no modes on this system' } : {}

t.before(() => process.umask(0o022))

t.test('create', async (t) => {
  const dir = join(t.testdir(), 'deep', 'down')
  t.match(await done('create', dir), /^net [\w-]{43} in .*down\nkeep .*authority\.key secret/)
  t.same(readdirSync(dir).sort(), ['authority.key', 'net.json', 'revocations.json'])
  const authority = await files.readAuthority(join(dir, 'authority.key'))
  t.same(await files.readNet(join(dir, 'net.json')), authority.publicKey)
  const list = verifyRevocations(await files.readRevocations(join(dir, 'revocations.json')), authority.publicKey)
  t.equal(list.version, 1)
  t.same(list.entries, [])

  const before = readFileSync(join(dir, 'authority.key'))
  const again = await run('create', dir)
  t.equal(again.code, 1)
  t.match(again.err, /ALREADY_EXISTS: .*authority\.key exists and is not overwritten/)
  t.same(readFileSync(join(dir, 'authority.key')), before)

  const half = t.testdir({ half: { 'net.json': 'of another net' } })
  t.equal((await run('create', join(half, 'half'))).code, 1)
  t.same(readdirSync(join(half, 'half')), ['net.json'], 'all or nothing')

  const json = await doneJson('create', join(dir, 'second'))
  t.match(json, { net: /^[\w-]{43}$/, folder: join(dir, 'second') })
  t.notMatch(json.net, Buffer.from(authority.publicKey).toString('base64url'))
})

t.test('modes', posix, async (t) => {
  const dir = join(t.testdir(), 'net')
  process.umask(0)
  await done('create', dir)
  await done('admit', dir, 'a')
  await done('revoke', dir, 'a')
  process.umask(0o022)
  t.equal(modeOf(dir), '700')
  t.equal(modeOf(join(dir, 'authority.key')), '600')
  t.equal(modeOf(join(dir, 'a.identity')), '600')
  for (const file of ['net.json', 'revocations.json', 'admitted.jsonl']) t.equal(modeOf(join(dir, file)), '644', file)

  for (const mode of [0o640, 0o620, 0o610, 0o604, 0o602, 0o601]) {
    for (const [file, read] of [
      ['a.identity', files.readIdentity],
      ['authority.key', files.readAuthority],
    ] as const) {
      const path = join(dir, file)
      chmodSync(path, mode)
      const error = await failure(read(path))
      t.equal(error?.code, 'IDENTITY_EXPOSED', mode.toString(8))
      t.match(error?.message, `chmod 600 ${path}`)
    }
  }
  const refused = await run('admit', dir, 'b')
  t.equal(refused.code, 1)
  t.match(refused.err, 'IDENTITY_EXPOSED')
  t.notOk(existsSync(join(dir, 'b.identity')))
  for (const mode of [0o600, 0o400]) {
    chmodSync(join(dir, 'a.identity'), mode)
    t.equal((await files.readIdentity(join(dir, 'a.identity'))).name, 'a')
  }
})

t.test('admit', async (t) => {
  const dir = join(t.testdir(), 'net')
  await done('create', dir)
  const network = await files.readNet(join(dir, 'net.json'))
  const start = Date.now()

  t.match(
    await done('admit', dir, 'billing', '--serve', 'sum', '--serve', 'img.*', '--call', 'mail'),
    /^admitted billing/,
  )
  const billing = await files.readIdentity(join(dir, 'billing.identity'))
  const nowMs = Date.now()
  t.equal(verifyCertificate(billing.certificateBytes, { net: network, nowMs, role: Role.node }).name, 'billing')
  t.ok(
    mayServe(billing.certificate, 'sum') &&
      mayServe(billing.certificate, 'img.x') &&
      mayCall(billing.certificate, 'mail'),
  )
  t.notOk(mayCall(billing.certificate, 'sum'))
  t.equal(billing.certificate.roles, Role.node)
  t.ok(billing.certificate.notBefore >= start && billing.certificate.notBefore <= nowMs)
  t.equal(billing.certificate.notAfter - billing.certificate.notBefore, 365 * DAY_MS)

  const out = join(dir, 'elsewhere')
  const json = await doneJson('admit', dir, 'west', '--broker', '--days', '7', '--out', out)
  t.match(json, { name: 'west', file: out, roles: ['node', 'broker'], serves: [], calls: [] })
  const west = await files.readIdentity(out)
  t.equal(west.certificate.roles, Role.node | Role.broker)
  t.equal(west.certificate.notAfter - west.certificate.notBefore, 7 * DAY_MS)
  t.notOk(existsSync(join(dir, 'west.identity')))

  const admitted = await files.readAdmissions(join(dir, 'admitted.jsonl'))
  t.match(admitted, [
    {
      name: 'billing',
      roles: ['node'],
      serves: ['sum', 'img.*'],
      calls: ['mail'],
      notBefore: billing.certificate.notBefore,
    },
    { name: 'west', notAfter: west.certificate.notAfter },
  ])

  t.test('never overwrites', async (t) => {
    const file = join(dir, 'billing.identity')
    const before = readFileSync(file)
    for (const args of [['billing'], ['other', '--out', file]]) {
      const { code, err } = await run('admit', dir, ...args)
      t.equal(code, 1)
      t.match(err, 'ALREADY_EXISTS')
    }
    t.same(readFileSync(file), before)
    t.equal((await files.readAdmissions(join(dir, 'admitted.jsonl'))).length, 2, 'nothing was admitted')
    t.equal(await codeOf(files.writeIdentity(file, billing)), 'ALREADY_EXISTS')
    t.equal(
      await codeOf(files.writeAuthority(join(dir, 'authority.key'), { ...billing.signKeyPair, seed: network })),
      'ALREADY_EXISTS',
    )
    t.equal(await codeOf(files.writeNet(join(dir, 'net.json'), network)), 'ALREADY_EXISTS')
    t.same(readFileSync(file), before)
  })

  t.test('refuses what no certificate could say', async (t) => {
    for (const [args, text] of [
      [['Upper'], /"Upper" is not a name/],
      [['../escape'], /"..\/escape" is not a name/],
      [['x', '--serve', '$broker.status'], /"\$broker.status" is not a service to serve/],
      [['x', '--call', 'a*b'], /"a\*b" is not a service to call/],
      [['x', '--days', '0'], /--days '0' is not an integer from 1 to 36500/],
      [['x', '--days', 'ten'], /--days 'ten'/],
    ] as const) {
      const { code, err, out } = await run('admit', dir, ...args)
      t.equal(code, 2, args.join(' '))
      t.match(err, text)
      t.equal(out, '')
    }
    t.notOk(existsSync(join(dir, 'x.identity')))
    t.equal((await files.readAdmissions(join(dir, 'admitted.jsonl'))).length, 2)
  })

  t.test('needs the authority', async (t) => {
    const { code, err } = await run('admit', join(dir, 'nowhere'), 'x', '--json')
    t.equal(code, 1)
    t.match(JSON.parse(err), { code: 'IDENTITY_MISSING', message: /authority\.key/ })
  })
})

t.test('revoke', async (t) => {
  const dir = join(t.testdir(), 'net')
  await done('create', dir)
  const network = await files.readNet(join(dir, 'net.json'))
  const list = async () => verifyRevocations(await files.readRevocations(join(dir, 'revocations.json')), network)
  const judge = async (file: string): Promise<string | null> => {
    const { certificateBytes } = await files.readIdentity(join(dir, file))
    const revocations = await list()
    return codeOf((async () => verifyCertificate(certificateBytes, { net: network, nowMs: Date.now(), revocations }))())
  }
  await done('admit', dir, 'a')
  await done('admit', dir, 'b')
  t.equal(await judge('a.identity'), null)
  t.match(await done('revoke', dir, 'a'), /^revoked a \(version 2/)
  t.equal(await judge('a.identity'), 'CERTIFICATE_REVOKED')
  t.equal(await judge('b.identity'), null)
  t.equal((await list()).version, 2)

  await done('admit', dir, 'a', '--out', join(dir, 'a2.identity'))
  t.equal(await judge('a2.identity'), null, 'admitted again, in the same millisecond or not')
  t.equal(await judge('a.identity'), 'CERTIFICATE_REVOKED')

  t.match(await doneJson('revoke', dir, 'a'), { name: 'a', version: 3 })
  t.equal(await judge('a2.identity'), 'CERTIFICATE_REVOKED', 'the second is reached too')
  await done('revoke', dir, 'b')
  t.same(
    (await list()).entries.map(({ name }) => name),
    ['a', 'b'],
  )
  t.equal((await list()).version, 4)
  t.notOk(
    readdirSync(dir).some((file) => file.endsWith('.new')),
    'no temporary file is left',
  )

  t.test('of a name never admitted is an error', async (t) => {
    const { code, err } = await run('revoke', dir, 'nobody')
    t.equal(code, 1)
    t.match(err, /nobody was never admitted/)
    t.equal((await list()).version, 4)
    t.equal((await run('revoke', dir, 'No Name')).code, 2)
  })

  t.test('reaches certificates of a clock that was ahead', async (t) => {
    const authority = await files.readAuthority(join(dir, 'authority.key'))
    const ahead = { name: 'c', roles: Role.node, serves: [], calls: [], nowMs: Date.now() + 60_000 }
    const identity = admit(authority, ahead, sodiumRandom)
    await files.writeIdentity(join(dir, 'c.identity'), identity)
    const { notBefore, notAfter } = identity.certificate
    const record = { name: 'c', notBefore, notAfter, roles: ['node'], serves: [], calls: [] }
    await files.appendAdmission(join(dir, 'admitted.jsonl'), record)
    t.equal(await judge('c.identity'), null)
    await done('revoke', dir, 'c')
    t.equal(await judge('c.identity'), 'CERTIFICATE_REVOKED')
    await done('admit', dir, 'c', '--out', join(dir, 'c2.identity'))
    t.equal(await judge('c2.identity'), null)
  })

  t.test('does not trust a changed list or a broken record', async (t) => {
    const other = join(dir, 'other')
    await done('create', other)
    await done('admit', other, 'a')
    writeFileSync(join(other, 'revocations.json'), readFileSync(join(dir, 'revocations.json')))
    t.match(await run('revoke', other, 'a'), { code: 1, err: /CERTIFICATE_FOREIGN/ })
    for (const line of ['{"name":"a"', '{"name":"a"}', 'null', '7']) {
      writeFileSync(join(dir, 'admitted.jsonl'), `\n${line}\n`)
      t.match(await run('revoke', dir, 'a'), { code: 1, err: /IDENTITY_MALFORMED: .*admitted\.jsonl:2: / })
    }
  })

  t.test('forgets what is long expired when the list is nearly full', async (t) => {
    const full = join(dir, 'full')
    await done('create', full)
    await done('admit', full, 'a')
    const lines: string[] = []
    for (let index = 0; index < 768; index++) {
      const notAfter = index < 700 ? Date.now() - 2 * DAY_MS : Date.now() + DAY_MS
      lines.push(JSON.stringify({ name: `n${index}`, notBefore: 0, notAfter, roles: [], serves: [], calls: [] }))
    }
    const record = join(full, 'admitted.jsonl')
    writeFileSync(record, `${readFileSync(record, 'utf8')}${lines.join('\n')}\n`)
    const { signRevocations } = await import('../lib/identity/certificate.ts')
    const authority = await files.readAuthority(join(full, 'authority.key'))
    const entries = lines.map((_, index) => ({ name: `n${index}`, before: 1 }))
    const long = signRevocations({ net: authority.publicKey, version: 9, entries }, authority)
    await files.writeRevocations(join(full, 'revocations.json'), long)
    t.match(await doneJson('revoke', full, 'a'), { version: 10 })
    const kept = verifyRevocations(await files.readRevocations(join(full, 'revocations.json')), authority.publicKey)
    t.equal(kept.entries.length, 69)
    t.equal(kept.entries.at(-1)?.name, 'a')
  })
})

t.test('show', async (t) => {
  const dir = join(t.testdir(), 'net')
  const { net: key } = await doneJson('create', dir)
  await done('admit', dir, 'billing', '--serve', 'sum', '--call', 'mail', '--call', 'log.*')
  const identity = join(dir, 'billing.identity')
  const shown = await run('show', identity)
  t.equal(shown.code, 0)
  t.equal(shown.err, '')
  t.match(
    shown.out,
    /^kind {7}identity\nname {7}billing\nnet {8}[\w-]{43}\nroles {6}node\nserves {5}sum\ncalls {6}mail, log\.\*\n/,
  )
  t.match(shown.out, /daysLeft {3}36[45]/)
  t.match(await doneJson('show', identity), {
    kind: 'identity',
    name: 'billing',
    net: key,
    roles: ['node'],
    warnings: [],
  })
  for (const secret of ['linkSecret', 'signSeed']) {
    const text = (JSON.parse(readFileSync(identity, 'utf8')) as Record<string, string>)[secret] ?? ''
    t.equal(text.length, 43)
    t.notMatch(shown.out, text)
  }

  const authorityFile = join(dir, 'authority.key')
  const authorityShown = await run('show', authorityFile)
  t.match(authorityShown.out, new RegExp(`^kind {7}authority\nnet {8}${String(key)}$`))
  t.notMatch(authorityShown.out, (JSON.parse(readFileSync(authorityFile, 'utf8')) as { seed: string }).seed)
  t.match(await doneJson('show', join(dir, 'net.json')), { kind: 'net', net: key, warnings: [] })
  await done('revoke', dir, 'billing')
  t.match(await doneJson('show', join(dir, 'revocations.json')), {
    kind: 'revocations',
    net: key,
    version: 2,
    revoked: [/^billing until 2\d{3}-/],
    warnings: [],
  })

  t.test('warns and refuses nothing', async (t) => {
    await done('admit', dir, 'soon', '--days', '29')
    t.match(await run('show', join(dir, 'soon.identity')), {
      code: 0,
      err: /^warning: the certificate expires in 28 days|29 days/,
    })
    const authority = await files.readAuthority(authorityFile)
    const admission = { name: 'x', roles: Role.node, serves: [], calls: [] }
    const past = admit(authority, { ...admission, nowMs: Date.now() - 3.5 * DAY_MS, days: 1 }, sodiumRandom)
    const future = admit(authority, { ...admission, nowMs: Date.now() + 1.5 * DAY_MS }, sodiumRandom)
    await files.writeIdentity(join(dir, 'past.identity'), past)
    await files.writeIdentity(join(dir, 'future.identity'), future)
    t.match(await run('show', join(dir, 'past.identity')), { code: 0, err: /expired 2 days ago/ })
    t.match(await run('show', join(dir, 'future.identity')), { code: 0, err: /begins in 1 day$/ })
    if (process.platform !== 'win32') {
      chmodSync(identity, 0o644)
      t.match(await run('show', identity), { code: 0, err: new RegExp(`chmod 600 ${identity}`) })
      chmodSync(identity, 0o600)
    }
    const list = JSON.parse(readFileSync(join(dir, 'revocations.json'), 'utf8')) as { signed: string }
    const signed = Buffer.from(list.signed, 'base64url')
    signed.writeUInt8(signed.readUInt8(signed.length - 1) ^ 1, signed.length - 1)
    writeFileSync(join(dir, 'forged.json'), JSON.stringify({ ...list, signed: signed.toString('base64url') }))
    t.match(await run('show', join(dir, 'forged.json')), { code: 0, err: /will not be accepted/ })
  })

  t.test('fails on what it cannot read', async (t) => {
    writeFileSync(join(dir, 'broken'), '{')
    t.match(await run('show', join(dir, 'broken')), { code: 1, err: /IDENTITY_MALFORMED/ })
    t.match(await run('show', join(dir, 'absent')), { code: 1, err: /IDENTITY_MISSING: there is no file .*absent/ })
  })
})

t.test('files that are not what they should be', async (t) => {
  const dir = t.testdir({ folder: {}, empty: '', long: '', text: 'no JSON' })
  const at = (name: string): string => join(dir, name)
  for (const name of readdirSync(dir)) if (name !== 'folder') chmodSync(at(name), 0o600)
  chmodSync(at('folder'), 0o700)
  truncateSync(at('long'), files.IDENTITY_FILE_BYTES_MAX + 1)
  for (const read of [files.readIdentity, files.readAuthority, files.readNet, files.readRevocations]) {
    t.equal(await codeOf(read(at('absent'))), 'IDENTITY_MISSING')
    t.equal(await codeOf(read(join(at('text'), 'below'))), 'IDENTITY_MISSING')
    t.equal(await codeOf(read(at('folder'))), 'IDENTITY_MALFORMED')
    t.equal(await codeOf(read(at('empty'))), 'IDENTITY_MALFORMED')
    t.match(await failure(read(at('text'))), { code: 'IDENTITY_MALFORMED', message: at('text') })
  }
  t.match((await failure(files.readIdentity(at('long'))))?.message, /has 65537 bytes, the limit is 65536/)
  truncateSync(at('long'), files.REVOCATIONS_FILE_BYTES_MAX + 1)
  t.match((await failure(files.readRevocations(at('long'))))?.message, /the limit is 131072/)
  if (process.platform !== 'win32') {
    execFileSync('mkfifo', ['-m', '600', at('pipe')])
    t.equal(await codeOf(files.readIdentity(at('pipe'))), 'IDENTITY_MALFORMED', 'a pipe does not hold the process')
  }
  t.equal(await codeOf(files.writeRevocations(join(at('text'), 'below'), new Uint8Array(80))), 'INTERNAL')
  mkdirSync(at('occupied'))
  writeFileSync(join(at('occupied'), 'file'), '')
  t.equal(await codeOf(files.writeRevocations(at('occupied'), new Uint8Array(80))), 'INTERNAL')
  t.notOk(
    readdirSync(dir).some((name) => name.endsWith('.new')),
    'a failed replacement leaves nothing',
  )
  t.equal(await codeOf(files.createFolder(at('text'))), 'ALREADY_EXISTS')
  t.equal(await codeOf(files.readAdmissions(at('absent'))), 'IDENTITY_MISSING')
  t.equal(
    await codeOf(
      files.appendAdmission(at('folder'), { name: 'a', notBefore: 0, notAfter: 0, roles: [], serves: [], calls: [] }),
    ),
    'INTERNAL',
  )
})

t.test('usage', async (t) => {
  t.test('--help', async (t) => {
    for (const args of [
      ['--help'],
      ['-h'],
      ['create', '--help'],
      ['admit', '-h', '--wrong'],
      ['revoke', '--help'],
      ['service', '--help'],
      ['show', '-h'],
    ]) {
      const { code, out, err } = await run(...args)
      t.equal(code, 0, args.join(' '))
      t.match(out, new RegExp(`^usage: adaptnet net ${args[0]?.startsWith('-') ? 'create' : args[0]}`))
      t.equal(err, '')
    }
  })

  t.test('mistakes exit with 2 and show the usage', async (t) => {
    for (const [args, text] of [
      [[], /a command is missing/],
      [['destroy'], /net has no command 'destroy'/],
      [['create'], /DIR is missing/],
      [['create', 'a', 'b'], /unexpected argument 'b'/],
      [['create', 'a', '--wrong'], /Unknown option '--wrong'\n/],
      [['admit'], /DIR and NAME are missing/],
      [['admit', 'a'], /NAME is missing/],
      [['admit', 'a', 'b', '--serve'], /'--serve <value>' argument missing/],
      [['admit', 'a', 'b', '--broker=yes'], /'--broker' does not take an argument/],
      [['revoke', 'a'], /NAME is missing/],
      [['service', 'a'], /NAME is missing/],
      [['show'], /FILE is missing/],
      [['show', 'a', '-x'], /Unknown option '-x'/],
    ] as const) {
      const { code, out, err } = await run(...args)
      t.equal(code, 2, args.join(' '))
      t.match(err, text)
      t.match(err, /\nusage: adaptnet net /)
      t.equal(out, '')
    }
  })

  t.test('what other commands use', async (t) => {
    const io = { out: () => t.fail('no output'), err: (line: string) => errors.push(line) }
    const errors: string[] = []
    const shape = { usage: 'usage: x', operands: ['SERVICE'], options: {}, rest: 'COMMAND [ARG...]' }
    t.same(parseCommand(shape, ['sum', '--', 'sh', '--help', '--', '-c']), {
      values: {},
      operands: ['sum'],
      rest: ['sh', '--help', '--', '-c'],
    })
    t.throws(() => parseCommand(shape, ['sum']), new UsageError('-- COMMAND [ARG...] is missing'))
    t.throws(() => parseCommand(shape, ['sum', '--']), UsageError)
    const loose = { usage: 'usage: x', operands: ['A', '[B...]'], options: {} }
    t.same(parseCommand(loose, ['1', '2', '3', '--', '-4']).operands, ['1', '2', '3', '-4'])
    t.throws(() => parseCommand(loose, []), new UsageError('A is missing'))
    t.equal(parseInteger(undefined, '--n', { min: 0, max: 9 }), undefined)
    t.equal(parseInteger('9', '--n', { min: 0, max: 9 }), 9)
    for (const text of ['10', '-1', '', '1e0', '0x1', ' 1', '99999999999999999999'])
      t.throws(() => parseInteger(text, '--n', { min: 0, max: 9 }), UsageError, JSON.stringify(text))
    t.equal(await runCommand(loose, ['1'], io, async () => 1), 1)
    t.equal(await runCommand(loose, ['1'], io, async () => undefined), 0)
    const fault = async (): Promise<void> => {
      throw new TypeError('a fault')
    }
    t.equal(await runCommand(loose, ['1'], io, fault), 1)
    t.match(errors.join('\n'), /TypeError: a fault\n.*net-command/, 'a fault of the program is told with its place')
  })
})
