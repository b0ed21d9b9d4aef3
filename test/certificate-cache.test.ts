/** Certificates that a broker remembers as verified (SPEC 15): the same judgement as without, and found by their holders only. */
import t from 'tap'
import { Role } from '../protocol/constants.ts'
import { CertificateCache } from '../lib/identity/certificate-cache.ts'
import type { VerifyOptions } from '../lib/identity/certificate.ts'
import { admit, createAuthority } from '../lib/identity/identity.ts'
import type { Identity } from '../lib/identity/identity.ts'
import { sodiumRandom } from '../lib/identity/sodium.ts'
import { codeOf } from './identity-fixture.ts'

const NOW = 1_800_000_000_000
const DAY_MS = 86_400_000
const authority = createAuthority(sodiumRandom)
const admitted = (name: string): Identity =>
  admit(authority, { name, roles: Role.node, serves: [], calls: [], nowMs: NOW, days: 1 }, sodiumRandom)
const alice = admitted('alice')
const options = (change: Partial<VerifyOptions> = {}): VerifyOptions => ({
  net: authority.publicKey,
  nowMs: NOW,
  linkKey: alice.certificate.linkKey,
  role: Role.node,
  ...change,
})

t.test('what is remembered is judged each time', async (t) => {
  const cache = new CertificateCache()
  const first = cache.verify(alice.certificateBytes, options())
  t.equal(cache.verify(alice.certificateBytes, options()), first, 'the same, without a look at its signature')
  const revoked = { net: authority.publicKey, version: 1, entries: [{ name: 'alice', before: NOW }] }
  for (const [code, change] of [
    ['CERTIFICATE_EXPIRED', { nowMs: NOW + 2 * DAY_MS }],
    ['CERTIFICATE_EXPIRED', { nowMs: NOW - DAY_MS }],
    ['CERTIFICATE_REVOKED', { revocations: revoked }],
    ['ROLE_REFUSED', { role: Role.broker }],
    ['CERTIFICATE_STOLEN', { linkKey: admitted('mallory').certificate.linkKey }],
    ['CERTIFICATE_FOREIGN', { net: createAuthority(sodiumRandom).publicKey }],
  ] as const) {
    cache.verify(alice.certificateBytes, options())
    t.equal(
      codeOf(() => cache.verify(alice.certificateBytes, options(change))),
      code,
    )
  }
})

t.test('one bit of it, and it is another', async (t) => {
  const cache = new CertificateCache()
  cache.verify(alice.certificateBytes, options())
  for (let bit = 0; bit < 8 * alice.certificateBytes.length; bit++) {
    const changed = Buffer.from(alice.certificateBytes)
    changed[bit >> 3] = (changed[bit >> 3] as number) ^ (1 << (bit & 7))
    const code = codeOf(() => cache.verify(changed, options()))
    if (code === null) t.fail(`bit ${bit}`)
  }
  t.pass('every bit')
})

t.test('who is refused is not remembered, and pushes nobody out', async (t) => {
  const cache = new CertificateCache()
  const first = cache.verify(alice.certificateBytes, options())
  for (let count = 0; count < 10_500; count++) {
    const stranger = { linkKey: Buffer.alloc(32, `${count} `) }
    if (codeOf(() => cache.verify(alice.certificateBytes, options(stranger))) !== 'CERTIFICATE_STOLEN')
      t.fail(`stranger ${count}`)
  }
  t.equal(cache.verify(alice.certificateBytes, options()), first)
})
