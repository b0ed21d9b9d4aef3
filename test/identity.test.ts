import t from 'tap'
import {
  CLOCK_TOLERANCE_MS,
  DAY_MS,
  HOUR_MS,
  MINUTE_MS,
  formatDuration,
  formatInstant,
  isRevoked,
  mayCall,
  mayServe,
  openCertificate,
  roleNames,
  signCertificate,
  signRevocations,
  verifyCertificate,
  verifyRevocations,
} from '../lib/identity/certificate.ts'
import * as identities from '../lib/identity/identity.ts'
import { nextServiceEpoch } from '../lib/identity/service-key.ts'
import { sign } from '../lib/identity/sodium.ts'
import type { Certificate, Revocations } from '../protocol/certificate.ts'
import {
  CERTIFICATE_CONTEXT,
  REVOCATIONS_CONTEXT,
  decodeSigned,
  encodeCertificate,
  encodeRevocations,
  encodeSigned,
} from '../protocol/certificate.ts'
import { PATTERNS_MAX, REVOCATIONS_MAX, Role } from '../protocol/constants.ts'
import { codeOf, errorOf, seededRandom } from './identity-fixture.ts'

const NOW = Date.UTC(2026, 10, 17, 8, 59, 1)
const random = seededRandom(1)
const authority = identities.createAuthority(random)
const other = identities.createAuthority(random)
const net = authority.publicKey
const admission = { name: 'billing', roles: Role.node, serves: ['sum', 'img.*'], calls: ['mail'], nowMs: NOW }
const billing = identities.admit(authority, admission, random)
const { certificate, certificateBytes } = billing
const nowMs = NOW + HOUR_MS
const revoked = (...entries: Revocations['entries']): Revocations => ({ net, version: 2, entries })

t.test('a certificate says what the authority said', async (t) => {
  const read = verifyCertificate(certificateBytes, { net, nowMs })
  t.same(read, certificate)
  t.equal(read.name, 'billing')
  t.equal(read.notBefore, NOW)
  t.equal(read.notAfter, NOW + 365 * DAY_MS)
  t.same(read.linkKey, billing.linkKeyPair.publicKey)
  t.same(read.signKey, billing.signKeyPair.publicKey)
  t.equal(
    verifyCertificate(certificateBytes, {
      net,
      nowMs,
      linkKey: certificate.linkKey,
      role: Role.node,
      revocations: revoked({ name: 'other', before: nowMs }),
    }).name,
    'billing',
  )
})

t.test('a certificate is refused', async (t) => {
  t.test('with any byte changed, left out or added', async (t) => {
    for (let index = 0; index < certificateBytes.length; index++)
      for (const bit of [0x01, 0x80]) {
        const bytes = Buffer.from(certificateBytes)
        bytes.writeUInt8(bytes.readUInt8(index) ^ bit, index)
        const code = codeOf(() => verifyCertificate(bytes, { net, nowMs }))
        if (code !== 'CERTIFICATE_FOREIGN' && code !== 'CERTIFICATE_MALFORMED') t.fail(`byte ${index}: ${code}`)
        if (codeOf(() => verifyCertificate(certificateBytes.subarray(0, index), { net, nowMs })) === null)
          t.fail(`${index} bytes`)
      }
    const longer = Buffer.concat([certificateBytes, Buffer.alloc(1)])
    t.equal(
      codeOf(() => verifyCertificate(longer, { net, nowMs })),
      'CERTIFICATE_MALFORMED',
    )
    t.equal(
      codeOf(() => verifyCertificate(Buffer.alloc(0), { net, nowMs })),
      'CERTIFICATE_MALFORMED',
    )
  })

  t.test('when it is of another net', async (t) => {
    t.equal(
      codeOf(() => verifyCertificate(certificateBytes, { net: other.publicKey, nowMs })),
      'CERTIFICATE_FOREIGN',
    )
    const { body } = decodeSigned(certificateBytes)
    const astray = encodeCertificate({ ...certificate, net: other.publicKey })
    const signature = sign(Buffer.concat([CERTIFICATE_CONTEXT, astray]), authority.secretKey)
    const named = encodeSigned({ body: astray, signature })
    t.equal(
      codeOf(() => verifyCertificate(named, { net, nowMs })),
      'CERTIFICATE_FOREIGN',
      'its body names another',
    )
    const signedAs = (context: Uint8Array, by: identities.Authority): Buffer =>
      encodeSigned({ body, signature: sign(Buffer.concat([context, body]), by.secretKey) })
    t.equal(
      codeOf(() => verifyCertificate(signedAs(CERTIFICATE_CONTEXT, authority), { net, nowMs })),
      null,
    )
    for (const [bytes, by] of [
      [signedAs(CERTIFICATE_CONTEXT, other), net],
      [signedAs(CERTIFICATE_CONTEXT, other), other.publicKey],
      [signedAs(REVOCATIONS_CONTEXT, authority), net],
      [signedAs(new Uint8Array(0), authority), net],
    ] as const)
      t.equal(
        codeOf(() => verifyCertificate(bytes, { net: by, nowMs })),
        'CERTIFICATE_FOREIGN',
      )
  })

  t.test('and its body is not read before the signature is right', async (t) => {
    const body = Buffer.from('no certificate at all')
    const forged = encodeSigned({ body, signature: Buffer.alloc(64) })
    t.equal(
      codeOf(() => verifyCertificate(forged, { net, nowMs })),
      'CERTIFICATE_FOREIGN',
    )
    const signature = sign(Buffer.concat([CERTIFICATE_CONTEXT, body]), authority.secretKey)
    t.equal(
      codeOf(() => verifyCertificate(encodeSigned({ body, signature }), { net, nowMs })),
      'CERTIFICATE_MALFORMED',
    )
  })

  t.test('outside its time, with five minutes of tolerance', async (t) => {
    const at = (ms: number): string | null => codeOf(() => verifyCertificate(certificateBytes, { net, nowMs: ms }))
    t.equal(CLOCK_TOLERANCE_MS, 5 * MINUTE_MS)
    t.equal(at(NOW - CLOCK_TOLERANCE_MS), null)
    t.equal(at(NOW - CLOCK_TOLERANCE_MS - 1), 'CERTIFICATE_EXPIRED')
    t.equal(at(certificate.notAfter + CLOCK_TOLERANCE_MS), null)
    t.equal(at(certificate.notAfter + CLOCK_TOLERANCE_MS + 1), 'CERTIFICATE_EXPIRED')
    const text = (ms: number): string | undefined =>
      errorOf(() => verifyCertificate(certificateBytes, { net, nowMs: ms }))?.message
    t.equal(
      text(certificate.notAfter + 3 * DAY_MS + HOUR_MS),
      'the certificate of billing expired at 2027-11-17 08:59:01 UTC, 3 days ago',
    )
    t.equal(text(NOW - HOUR_MS), 'the certificate of billing begins at 2026-11-17 08:59:01 UTC, in 1 hour')
  })

  t.test('when it is revoked', async (t) => {
    const verify = (before: number): (() => Certificate) => {
      const revocations = revoked({ name: 'another', before: NOW + DAY_MS }, { name: 'billing', before })
      return () => verifyCertificate(certificateBytes, { net, nowMs, revocations })
    }
    t.equal(codeOf(verify(NOW)), 'CERTIFICATE_REVOKED')
    t.match(errorOf(verify(NOW))?.message, /billing/)
    t.equal(codeOf(verify(NOW - 1)), null, 'a revocation reaches back only')
    const again = identities.admit(authority, { ...admission, nowMs: NOW + 1 }, random)
    t.equal(isRevoked(certificate, revoked({ name: 'billing', before: NOW })), true)
    t.equal(isRevoked(again.certificate, revoked({ name: 'billing', before: NOW })), false, 're-admitted')
    t.equal(isRevoked(certificate, null), false)
  })

  t.test('when the peer does not hold its key or claims another role', async (t) => {
    const linkKey = Buffer.from(certificate.linkKey)
    linkKey.writeUInt8(linkKey.readUInt8(31) ^ 1, 31)
    const verify = (options: object): string | null =>
      codeOf(() => verifyCertificate(certificateBytes, { net, nowMs, ...options }))
    t.equal(verify({ linkKey }), 'CERTIFICATE_STOLEN')
    t.equal(verify({ linkKey: new Uint8Array(0) }), 'CERTIFICATE_STOLEN')
    t.equal(verify({ role: Role.broker }), 'ROLE_REFUSED')
    t.equal(verify({ role: Role.node }), null)
    t.equal(
      errorOf(() => verifyCertificate(certificateBytes, { net, nowMs, role: Role.broker }))?.message,
      'the certificate of billing allows node, not broker',
    )
    const broker = identities.admit(authority, { ...admission, roles: Role.broker }, random)
    t.equal(
      codeOf(() => verifyCertificate(broker.certificateBytes, { net, nowMs, role: Role.broker })),
      null,
    )
    t.equal(
      codeOf(() => verifyCertificate(broker.certificateBytes, { net, nowMs, role: Role.node })),
      'ROLE_REFUSED',
    )
    const both = identities.admit(authority, { ...admission, roles: Role.broker | Role.node }, random)
    for (const role of [Role.node, Role.broker])
      t.equal(
        codeOf(() => verifyCertificate(both.certificateBytes, { net, nowMs, role })),
        null,
      )
    t.same(roleNames(both.certificate.roles), ['node', 'broker'])
  })
})

t.test('what a certificate allows', async (t) => {
  t.equal(mayServe(certificate, 'sum'), true)
  t.equal(mayServe(certificate, 'summer'), false)
  t.equal(mayServe(certificate, 'img.'), true)
  t.equal(mayServe(certificate, 'img.scale'), true)
  t.equal(mayServe(certificate, 'img'), false)
  t.equal(mayServe(certificate, 'mail'), false)
  t.equal(mayCall(certificate, 'mail'), true)
  t.equal(mayCall(certificate, 'sum'), false)
  t.equal(mayCall(certificate, '$broker.status'), true)
  t.equal(mayServe(certificate, '$broker.status'), false)
  const all = identities.admit(authority, { ...admission, serves: ['*'], calls: ['*'] }, random).certificate
  t.equal(mayServe(all, 'anything'), true)
  t.equal(mayCall(all, 'anything'), true)
  for (const reserved of ['$broker.status', '$broker', '$other.thing', '$'])
    t.equal(mayServe(all, reserved), false, reserved)
  t.equal(mayCall(all, '$broker'), false)
  t.equal(mayCall(all, '$other.thing'), false)
})

t.test('revocation lists', async (t) => {
  const list = revoked({ name: 'billing', before: NOW }, { name: 'mail', before: 0 })
  const bytes = signRevocations(list, authority)
  t.same(verifyRevocations(bytes, net), list)
  for (let index = 0; index < bytes.length; index++) {
    const bad = Buffer.from(bytes)
    bad.writeUInt8(bad.readUInt8(index) ^ 1, index)
    const code = codeOf(() => verifyRevocations(bad, net))
    if (code !== 'CERTIFICATE_FOREIGN' && code !== 'CERTIFICATE_MALFORMED') t.fail(`byte ${index}: ${code}`)
  }
  t.equal(
    codeOf(() => verifyRevocations(bytes, other.publicKey)),
    'CERTIFICATE_FOREIGN',
  )
  t.equal(
    codeOf(() => verifyRevocations(certificateBytes, net)),
    'CERTIFICATE_FOREIGN',
    'a certificate is no list',
  )
  t.equal(
    codeOf(() => openCertificate(bytes, net)),
    'CERTIFICATE_FOREIGN',
    'a list is no certificate',
  )
  t.equal(
    codeOf(() => signRevocations(list, other)),
    'INVALID_ARGUMENT',
  )
  t.equal(
    codeOf(() => signCertificate(certificate, other)),
    'INVALID_ARGUMENT',
  )
  const foreign = signRevocations({ ...list, net: other.publicKey }, { ...other })
  t.equal(
    codeOf(() => verifyRevocations(foreign, net)),
    'CERTIFICATE_FOREIGN',
  )
  const body = encodeRevocations({ ...list, net: other.publicKey })
  const signature = sign(Buffer.concat([REVOCATIONS_CONTEXT, body]), authority.secretKey)
  t.equal(
    codeOf(() => verifyRevocations(encodeSigned({ body, signature }), net)),
    'CERTIFICATE_FOREIGN',
  )
  const short = Array.from({ length: REVOCATIONS_MAX }, (_, index) => ({ name: `n${index}`, before: NOW }))
  t.equal(verifyRevocations(signRevocations(revoked(...short), authority), net).entries.length, REVOCATIONS_MAX)
  const tooMany = revoked(...short, { name: 'one-more', before: NOW })
  t.equal(
    codeOf(() => signRevocations(tooMany, authority)),
    'INVALID_ARGUMENT',
  )
  const long = short.map(({ name, before }) => ({ name: name.padEnd(64, 'x'), before }))
  t.equal(
    codeOf(() => signRevocations(revoked(...long), authority)),
    'INVALID_ARGUMENT',
    'no frame could carry it',
  )
})

t.test('admission', async (t) => {
  const admit = (change: Partial<identities.Admission>): string | null =>
    codeOf(() => identities.admit(authority, { ...admission, ...change }, random))
  for (const name of ['a', 'a.b_c-9', 'x'.repeat(64)]) t.equal(admit({ name }), null, name)
  for (const name of ['', 'A', 'a b', 'a/b', 'ä', 'a\n', 'x'.repeat(65)])
    t.equal(admit({ name }), 'INVALID_ARGUMENT', JSON.stringify(name))
  for (const service of ['*', 'Sum', 'a.b_c-9*', 'x'.repeat(128)]) {
    t.equal(admit({ serves: [service] }), null, service)
    t.equal(admit({ calls: [service] }), null, service)
  }
  for (const service of ['', '**', 'a*b', '*a', '$broker.status', 'a b', 'ä', 'x'.repeat(129)]) {
    t.equal(admit({ serves: [service] }), 'INVALID_ARGUMENT', service)
    t.equal(admit({ calls: [service] }), 'INVALID_ARGUMENT', service)
  }
  const many = Array.from({ length: PATTERNS_MAX }, (_, index) => `s${index}`)
  t.equal(admit({ serves: many, calls: many }), null)
  t.equal(admit({ serves: [...many, 's0'] }), null, 'twice the same is once')
  t.equal(admit({ serves: [...many, 'more'] }), 'INVALID_ARGUMENT')
  t.equal(admit({ calls: [...many, 'more'] }), 'INVALID_ARGUMENT')
  const longest = many.map((service) => service.padEnd(128, 'x'))
  t.equal(admit({ serves: longest, calls: longest }), 'INVALID_ARGUMENT', 'no handshake could carry it')
  for (const roles of [0, 4, 5, -1]) t.equal(admit({ roles }), 'INVALID_ARGUMENT', `roles ${roles}`)
  for (const days of [0, -1, 0.5, Number.NaN, identities.DAYS_MAX + 1])
    t.equal(admit({ days }), 'INVALID_ARGUMENT', `days ${days}`)
  t.equal(identities.admit(authority, { ...admission, days: 1 }, random).certificate.notAfter, NOW + DAY_MS)
  t.match(errorOf(() => identities.checkName('A b'))?.message, /"A b" is not a name: 1 to 64 lowercase/)
  t.match(errorOf(() => identities.checkService('$x'))?.message, /"\$x" is not a service/)
  t.equal(
    codeOf(() => identities.checkService('a*')),
    'INVALID_ARGUMENT',
    'a pattern is not a service',
  )
  t.equal(
    codeOf(() => identities.checkService('a.b')),
    null,
  )
  t.notSame(billing.linkKeyPair.secretKey, identities.admit(authority, admission, random).linkKeyPair.secretKey)
})

t.test('texts', async (t) => {
  const identityText = identities.formatIdentity(billing)
  const list = signRevocations(revoked({ name: 'billing', before: NOW }), authority)
  const first = nextServiceEpoch(authority, 'sum', null, { nowMs: NOW, days: 1 }, random)
  const secrets = nextServiceEpoch(authority, 'sum', first, { nowMs: NOW, days: 1 }, random)
  const texts = {
    identity: identityText,
    authority: identities.formatAuthority(authority),
    net: identities.formatNet(net),
    revocations: identities.formatRevocations(list),
    service: identities.formatServiceSecrets(secrets),
  }
  const parsers = {
    identity: identities.parseIdentity,
    authority: identities.parseAuthority,
    net: identities.parseNet,
    revocations: identities.parseRevocations,
    service: identities.parseServiceSecrets,
  }
  const kinds = Object.keys(texts) as identities.TextKind[]

  t.test('come back as they were', async (t) => {
    t.same(identities.parseIdentity(texts.identity), billing)
    t.same(identities.parseAuthority(texts.authority), authority)
    t.same(identities.parseNet(texts.net), net)
    t.same(identities.parseRevocations(texts.revocations), list)
    t.same(identities.parseServiceSecrets(texts.service), secrets)
    t.same(identities.parseServiceSecrets(identities.formatServiceSecrets(first)), first, 'of one epoch')
    for (const kind of kinds) {
      t.equal(identities.kindOfText(texts[kind]), kind)
      t.ok(texts[kind].startsWith(`{\n  "adaptnet": "${kind}",\n  "version": 1,\n`), 'it says first what it is')
    }
    for (const text of ['', '[]', 'null', '{}', '{"adaptnet":"other"}', '{"adaptnet":1}'])
      t.equal(
        codeOf(() => identities.kindOfText(text)),
        'IDENTITY_MALFORMED',
        text,
      )
  })

  t.test('do not pass for each other', async (t) => {
    for (const kind of kinds)
      for (const wrong of kinds)
        if (kind !== wrong)
          t.equal(
            codeOf(() => parsers[kind](texts[wrong])),
            'IDENTITY_MALFORMED',
            `${wrong}`,
          )
  })

  t.test('with any field missing or mangled are refused, by its name', async (t) => {
    for (const kind of kinds) {
      const fields = JSON.parse(texts[kind]) as Record<string, unknown>
      for (const [field, value] of Object.entries(fields)) {
        const mangled: unknown[] = [undefined, null, '', 7, {}, [value]]
        const text = String(value)
        mangled.push(`${text}=`, `${text} `, `!${text}`)
        if (!['name', 'adaptnet', 'version'].includes(field)) {
          const bytes = Buffer.from(text, 'base64url')
          mangled.push(bytes.subarray(1).toString('base64url'), bytes.toString('hex'), 'AAAA')
          // A net's key and an authority's seed are any 32 bytes; what is signed is judged by the one who uses it.
          if (kind === 'identity') mangled.push(Buffer.from(bytes.map((byte) => byte ^ 1)).toString('base64url'))
        }
        for (const bad of mangled) {
          // Left out one byte, signed revocations are still signed bytes.
          if (kind === 'revocations' && field === 'signed' && mangled.indexOf(bad) > 8 && bad !== 'AAAA') continue
          const error = errorOf(() => parsers[kind](JSON.stringify({ ...fields, [field]: bad })))
          if (error?.code !== 'IDENTITY_MALFORMED') t.fail(`${kind}.${field} = ${JSON.stringify(bad)}: ${error?.code}`)
          const named = field === 'adaptnet' ? /kind|adaptnet/ : /"[a-zA-Z]+"/
          if (!named.test(error?.message ?? '')) t.fail(`${kind}.${field}: ${error?.message}`)
          if (field !== 'net' && field !== 'adaptnet' && !error?.message.includes(`"${field}"`))
            t.fail(`${kind}.${field}: ${error?.message}`)
        }
      }
    }
    t.match(
      errorOf(() => identities.parseNet('{"adaptnet":"net","version":1,"net":"AAAA"}'))?.message,
      'not a net text: the field "net" has 3 bytes, 32 are wanted',
    )
  })

  t.test('of a service, whose parts do not belong together, are refused', async (t) => {
    const third = nextServiceEpoch(authority, 'sum', secrets, { nowMs: NOW, days: 1 }, random)
    const [newest, before] = secrets.epochs
    if (newest === undefined || before === undefined) return t.fail('two epochs are kept')
    t.same(
      third.epochs.map(({ epoch }) => epoch),
      [3, 2],
      'the oldest goes',
    )
    for (const [what, change] of Object.entries({
      'no epoch': { epochs: [] },
      'three epochs': { epochs: [...third.epochs, before] },
      'the wrong order': { epochs: [before, newest] },
      'the older one only': { epochs: [before] },
      'an epoch left out': { epochs: [third.epochs[0] ?? newest, before], record: third.record },
      'the record of another epoch': { record: third.record },
      'the secret of another epoch': { epochs: [{ ...newest, keyPair: before.keyPair }] },
      'another service': { service: 'mul' },
      'another net': { net: other.publicKey },
      'the record of another authority': {
        record: nextServiceEpoch(other, 'sum', first, { nowMs: NOW, days: 1 }, random).record,
      },
    }))
      t.equal(
        codeOf(() => identities.parseServiceSecrets(identities.formatServiceSecrets({ ...secrets, ...change }))),
        'IDENTITY_MALFORMED',
        what,
      )
    // Each takes pages of the system's, which thousands of them exhaust: their number is judged first.
    const many = {
      ...(JSON.parse(identities.formatServiceSecrets(secrets)) as object),
      epochs: Array(50_000).fill('none'),
    }
    t.throws(() => identities.parseServiceSecrets(JSON.stringify(many)), {
      code: 'IDENTITY_MALFORMED',
      message: /"epochs" has 50000 entries, 1 to 2 are wanted/,
    })
  })

  t.test('whose parts do not belong together are refused', async (t) => {
    const fields = JSON.parse(identityText) as Record<string, string>
    const twin = JSON.parse(
      identities.formatIdentity(identities.admit(authority, { ...admission, name: 'twin' }, random)),
    ) as Record<string, string>
    const foreign = JSON.parse(identities.formatIdentity(identities.admit(other, admission, random))) as typeof twin
    for (const from of [twin, foreign])
      for (const field of ['name', 'net', 'linkSecret', 'signSeed', 'certificate']) {
        if (from[field] === fields[field]) continue
        const text = JSON.stringify({ ...fields, [field]: from[field] })
        t.equal(
          codeOf(() => identities.parseIdentity(text)),
          'IDENTITY_MALFORMED',
          field,
        )
      }
  })

  t.test('that are expired are still identities', async (t) => {
    const old = identities.admit(authority, { ...admission, nowMs: 0, days: 1 }, random)
    t.equal(identities.parseIdentity(identities.formatIdentity(old)).name, 'billing')
  })

  t.test('are never quoted in an error', async (t) => {
    const { linkSecret = '' } = JSON.parse(identityText) as Record<string, string>
    const broken = identityText.replace(`"${linkSecret}"`, linkSecret)
    for (const text of [broken, identityText.replace(linkSecret, `${linkSecret}=`), linkSecret, `"${linkSecret}"`]) {
      const error = errorOf(() => identities.parseIdentity(text))
      t.equal(error?.code, 'IDENTITY_MALFORMED')
      t.notMatch(`${error?.stack} ${JSON.stringify(error)} ${String(error?.cause)}`, linkSecret.slice(0, 8))
    }
  })
})

t.test('times in words', async (t) => {
  for (const ms of [0, NOW, Date.UTC(2024, 1, 29, 23, 59, 59), Date.UTC(2100, 1, 28), Date.UTC(2000, 11, 31), -1000])
    t.equal(formatInstant(ms), `${new Date(ms).toISOString().slice(0, 19).replace('T', ' ')} UTC`)
  for (let day = 0; day < 800; day++) {
    const ms = Date.UTC(2023, 0, 1 + day * 97, 12, 34, 56)
    if (formatInstant(ms) !== `${new Date(ms).toISOString().slice(0, 19).replace('T', ' ')} UTC`) t.fail(`day ${day}`)
  }
  t.match(formatInstant(Number.MAX_SAFE_INTEGER), /UTC$/, 'beyond what a Date can say')
  t.same([999, 1000, MINUTE_MS, 3 * HOUR_MS, 2 * DAY_MS - 1, 40 * DAY_MS].map(formatDuration), [
    '0 seconds',
    '1 second',
    '1 minute',
    '3 hours',
    '1 day',
    '40 days',
  ])
})
