/** `adaptnet net service`: keys of services as files. */
import { chmodSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { DAY_MS } from '../lib/identity/certificate.ts'
import { verifyServiceKey } from '../lib/identity/service-key.ts'
import * as files from '../lib/transport/identity-files.ts'
import { codeOf, done, doneJson, modeOf, run } from './net-runner.ts'

t.before(() => process.umask(0o022))

t.test('service', async (t) => {
  const dir = join(t.testdir(), 'net')
  await done('create', dir)
  const network = await files.readNet(join(dir, 'net.json'))
  const file = join(dir, 'services', 'pay.key')
  t.match(
    await done('service', dir, 'pay'),
    /^made epoch 1 of the key of pay, until 2\d{3}-.*services.pay\.key\ngive it/,
  )
  const first = await files.readServiceSecrets(file)
  const key = verifyServiceKey(first.record, network, Date.now())
  t.match(key, { service: 'pay', epoch: 1 })
  t.equal(key.notAfter - key.notBefore, 365 * DAY_MS)
  if (process.platform !== 'win32') {
    t.equal(modeOf(file), '600')
    t.equal(modeOf(join(dir, 'services')), '700')
  }

  t.match(await doneJson('service', dir, 'pay', '--days', '7'), { service: 'pay', epoch: 2, opens: [2, 1], file })
  const second = await files.readServiceSecrets(file)
  t.same(second.epochs[1], first.epochs[0], 'the epoch before stays')
  t.equal(verifyServiceKey(second.record, network, Date.now()).epoch, 2)
  await done('service', dir, 'pay')
  const third = await files.readServiceSecrets(file)
  t.same(third.epochs[1], second.epochs[0])
  t.same(readdirSync(join(dir, 'services')), ['pay.key'], 'and nothing else is left')

  t.test('refuses what is no name, and writes nothing', async (t) => {
    for (const name of ['$broker.status', 'a b', '../pay', 'pay#db', 'pay*', '', 'x'.repeat(129)]) {
      const { code, err, out } = await run('service', dir, name)
      t.equal(code, 2, name)
      t.match(err, / is not a service/)
      t.equal(out, '')
    }
    t.equal((await run('service', dir, 'pay', '--days', '0')).code, 2)
    t.match(await run('service', join(dir, 'nowhere'), 'pay'), { code: 1, err: /IDENTITY_MISSING: .*authority\.key/ })
    t.same(readdirSync(join(dir, 'services')), ['pay.key'])
  })

  t.test('loses no secret', async (t) => {
    const before = readFileSync(file)
    writeFileSync(`${file}.new`, 'of somebody who is writing')
    t.match(await run('service', dir, 'pay'), { code: 1, err: /ALREADY_EXISTS: .*pay\.key\.new exists/ })
    rmSync(`${file}.new`)
    t.equal(await codeOf(files.writeServiceSecrets(file, third, null)), 'ALREADY_EXISTS', 'there is one already')
    t.equal(await codeOf(files.writeServiceSecrets(file, third, second)), 'ALREADY_EXISTS', 'it is newer than thought')
    const at = await Promise.all([run('service', dir, 'two'), run('service', dir, 'two')])
    const made = at.filter(({ code }) => code === 0).length
    const kept = await files.readServiceSecrets(join(dir, 'services', 'two.key'))
    t.equal(kept.epochs.length, made, 'two at the same time: each that was told of an epoch finds it')
    const other = join(dir, 'other')
    await done('create', other)
    await done('service', other, 'pay')
    writeFileSync(join(other, 'services', 'pay.key'), before)
    t.match(await run('service', other, 'pay'), { code: 1, err: /ALREADY_EXISTS: .*of another service or net: pay/ })
    writeFileSync(join(dir, 'services', 'mail.key'), before, { mode: 0o600 })
    t.match(await run('service', dir, 'mail'), { code: 1, err: /ALREADY_EXISTS/ })
    writeFileSync(join(dir, 'services', 'half.key'), before.subarray(0, 100), { mode: 0o600 })
    t.match(await run('service', dir, 'half'), { code: 1, err: /IDENTITY_MALFORMED/ })
    if (process.platform !== 'win32') {
      chmodSync(file, 0o644)
      t.match(await run('service', dir, 'pay'), { code: 1, err: /IDENTITY_EXPOSED/ })
      chmodSync(file, 0o600)
    }
    t.same(readFileSync(file), before)
    t.same(
      readdirSync(join(dir, 'services')).filter((name) => name.endsWith('.new')),
      [],
    )
  })

  t.test('is shown, without its secrets', async (t) => {
    const shown = await run('show', file)
    t.match(shown, { code: 0, err: '' })
    t.match(
      shown.out,
      /^kind {7}service\nservice {4}pay\nnet {8}[\w-]{43}\nepoch {6}3\nopens {6}3, 2\nkey {8}[\w-]{43}\n/,
    )
    const { epochs } = JSON.parse(readFileSync(file, 'utf8')) as { epochs: { secret: string }[] }
    t.equal(epochs.length, 2)
    for (const { secret } of epochs) t.notMatch(shown.out, secret)
    t.match(await doneJson('show', file), { kind: 'service', service: 'pay', epoch: 3, opens: [3, 2], warnings: [] })
    await done('service', dir, 'soon', '--days', '3')
    const soon = join(dir, 'services', 'soon.key')
    t.match(await run('show', soon), { code: 0, err: /^warning: the key expires in [23] days/ })
    if (process.platform === 'win32') return
    chmodSync(soon, 0o604)
    t.match((await run('show', soon)).err, `chmod 600 ${soon}`)
  })
})
