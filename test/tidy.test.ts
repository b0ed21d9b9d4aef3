/** The rules of the house as a test: layers, purity, numbers that stand in several places, and what a reviewer would miss. */
import { existsSync, readFileSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import * as constants from '../protocol/constants.ts'
import { ErrorTable } from '../protocol/errors.ts'
import { ReplyKind } from '../lib/identity/sealing.ts'
import { VERSION } from '../lib/version.ts'
import { LINES_MAX, brokenHouseRules, brokenLayerRules, citedSections, codeOf, importsOf } from './source-text.ts'
import { numbersOf, sectionsOf, tableOf, tablesOf } from './spec-tables.ts'

const root = fileURLToPath(new URL('.', import.meta.resolve('adaptnet/package.json')))
const read = (path: string): string => readFileSync(join(root, path), 'utf8')

interface Registry {
  version: { lowest: number; highest: number }
  ports: Record<string, number>
  beaconGroups: Record<string, string>
  modes: Record<string, number>
  roles: Record<string, number>
  handshakeKinds: Record<string, number>
  frameTypes: Record<string, number>
  frameFlags: Record<string, number>
  frames: Record<string, { from: string; to: string; carries: string; body: string | null; sections: string }>
  replyKinds: Record<string, number>
  features: Record<string, number>
  deliveries: Record<string, number>
  brokerStates: Record<string, number>
  gossipKinds: Record<string, number>
  verdicts: Record<string, number>
  evidence: Record<string, number>
  errorCodes: Record<string, { number: number | null; scope: string; meaning: string }>
  sizes: Record<string, number>
  limits: Record<string, { value: number; unit: string; beyond: string }>
}

const registry = JSON.parse(read('protocol/registry.json')) as Registry
const spec = read('SPEC.md')
const tables = tablesOf(spec)

/** The constants that SPEC 4.5 has as sizes: they follow from the drawings, and no peer can go beyond them. */
const sizes = numbersOf(tableOf(tables, '4.5', 'Size'))

/** Parameters of this implementation, from SPEC 11.2: name of the constant and where it is kept. */
const parameters: Record<string, true> = Object.fromEntries(
  tableOf(tables, '11.2', 'Parameter').rows.map((row) => [row[3]?.split(' ').at(-1) as string, true as const]),
)

/** All TypeScript files of a folder, from the root of the package. */
function sourcesOf(folder: string): string[] {
  return readdirSync(join(root, folder), { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile() && entry.name.endsWith('.ts') && !entry.name.endsWith('.d.ts'))
    .filter((entry) => !entry.parentPath.includes('node_modules'))
    .map((entry) => join(entry.parentPath, entry.name).slice(root.length))
    .sort()
}

/** What a file of the oracle must not import: it is written from SPEC.md and the data of `protocol/` alone. */
function foreignToOracle(text: string): string[] {
  return importsOf(text).filter((specifier) => !/^(?:node:|\.\/)/.test(specifier))
}

const pure = [...sourcesOf('protocol'), ...sourcesOf('lib')]
const all = [...pure, ...sourcesOf('test'), ...(existsSync(join(root, 'bench')) ? sourcesOf('bench') : [])]

t.test('layers import downward, and only the outer ones touch the world', async (t) => {
  t.ok(pure.length > 30, 'the sources were found')
  for (const path of pure) t.same(brokenLayerRules(path, read(path)), [], path)
})

t.test('nothing decompresses', async (t) => {
  const zlib = (text: string): string[] => importsOf(text).filter((specifier) => /zlib|gzip|brotli/.test(specifier))
  for (const path of pure) t.same(zlib(read(path)), [], path)
  t.same(zlib("import { gunzipSync } from 'node:zlib'"), ['node:zlib'])
})

t.test('the oracle shares nothing with what it judges', async (t) => {
  const oracle = sourcesOf('test/oracle')
  t.ok(oracle.length > 10, 'the oracle was found')
  for (const path of oracle)
    t.same(foreignToOracle(read(path)), [], `${path} imports itself, and what Node brings, only`)
  t.same(foreignToOracle("import a from './link.ts'\nimport 'node:net'"), [])
  t.same(foreignToOracle("import a from '../../lib/x.ts'\nimport 'avsc'"), ['../../lib/x.ts', 'avsc'])
})

t.test('every source keeps the rules of the house', async (t) => {
  for (const path of all) t.same(brokenHouseRules(path, read(path)), [], path)
})

t.test('the sections that the code cites are there', async (t) => {
  const sections = sectionsOf(spec)
  t.same(sections, [...new Set(sections)], 'no number is given twice')
  const schemas = readdirSync(join(root, 'protocol/schemas')).map((name) => `protocol/schemas/${name}`)
  for (const path of [...all.filter((source) => !source.startsWith('test/tidy')), ...schemas])
    for (const section of citedSections(read(path))) t.ok(sections.includes(section), `${path} cites SPEC ${section}`)
  for (const [, inner] of spec.matchAll(/\(((?:(?:and )?\d{1,2}(?:\.\d)?(?:, | and )?)+)\)/g))
    for (const section of (inner as string).match(/\d+(?:\.\d+)?/g) ?? [])
      if (section.includes('.')) t.ok(sections.includes(section), `SPEC.md itself refers to ${section}`)
})

t.test('every number on the wire is the same in SPEC.md, in registry.json and in the code', async (t) => {
  const spell = (section: string, first: string): Record<string, number> => numbersOf(tableOf(tables, section, first))
  const versions = { lowest: constants.VERSION_LOWEST, highest: constants.VERSION_HIGHEST }
  t.same(registry.version, versions)
  t.same(spell('4.1', 'Version'), versions)
  t.same(registry.ports, { broker: constants.BROKER_PORT, beacon: constants.BEACON_PORT })
  t.same(registry.beaconGroups, { IPv4: constants.BEACON_GROUP_IPV4, IPv6: constants.BEACON_GROUP_IPV6 })
  const groups = tableOf(tables, '7.4', 'Group').rows.map(([family, group]) => [family, group?.replaceAll('`', '')])
  t.same(Object.fromEntries(groups), registry.beaconGroups)
  t.same(spell('4.1', 'Port'), registry.ports)
  for (const [name, section, first, inRegistry, inCode] of [
    ['modes', '4.1', 'Mode', registry.modes, constants.Mode],
    ['handshake kinds', '4.2', 'Kind', registry.handshakeKinds, constants.HandshakeKind],
    ['roles', '4.3', 'Role', registry.roles, constants.Role],
    ['frame types', '3.2', 'Frame', registry.frameTypes, constants.FrameType],
    ['frame flags', '3.2', 'Flag', registry.frameFlags, constants.FrameFlag],
    ['reply kinds', '5.6', 'Reply kind', registry.replyKinds, lowerCased(ReplyKind)],
    ['deliveries', '6.6', 'Delivery', registry.deliveries, constants.DeliveryNumber],
    ['broker states', '7.1', 'State', registry.brokerStates, constants.BrokerStateNumber],
    ['features', '4.3', 'Feature', registry.features, constants.Feature],
    ['kinds of gossip', '7.2', 'Kind', registry.gossipKinds, constants.GossipKind],
    ['verdicts', '7.2', 'Verdict', registry.verdicts, constants.Verdict],
    ['evidence', '7.2', 'Evidence', registry.evidence, constants.Evidence],
  ] as const) {
    t.same(inRegistry, { ...inCode }, `${name}: registry and code`)
    t.same(spell(section, first), inRegistry, `${name}: SPEC and registry`)
    const numbers = Object.values(inRegistry)
    t.equal(new Set(numbers).size, numbers.length, `${name}: no number is given twice`)
  }
})

t.test('protocol/README.md tells of every field of the registry', async (t) => {
  const readme = read('protocol/README.md')
  for (const field of Object.keys(registry)) if (field !== 'comment') t.ok(readme.includes(`\`${field}\``), field)
})

function lowerCased(numbers: Record<string, number>): Record<string, number> {
  return Object.fromEntries(Object.entries(numbers).map(([name, number]) => [name.toLowerCase(), number]))
}

t.test('what the registry says of frames is what SPEC.md says, and bodies have schemas', async (t) => {
  const rows = tableOf(tables, '3.2', 'Frame').rows.map(([frame, , from, to, carries, sections]) => {
    const { body = null } = registry.frames[frame as string] ?? {}
    return [frame, { from, to, carries, body, sections }]
  })
  t.same(Object.fromEntries(rows), registry.frames)
  t.same(Object.keys(registry.frames), Object.keys(registry.frameTypes))
  const duties = tableOf(tables, '16', 'Frame').rows.map(([frame]) => frame as string)
  t.same(duties.sort(), Object.keys(registry.frameTypes).sort(), 'SPEC 16 tells what each role does with each frame')
  for (const [frame, { body, carries }] of Object.entries(registry.frames)) {
    t.equal(body !== null, carries.includes('body'), `${frame} ${carries}`)
    if (body !== null) t.ok(existsSync(join(root, `protocol/schemas/${body}.avsc`)), `${frame}: ${body}.avsc`)
  }
})

t.test('error codes are the same everywhere', async (t) => {
  t.same(registry.errorCodes, ErrorTable, 'registry and code')
  const table = tableOf(tables, '12', 'Code')
  const rows = table.rows.map(([code, number, scope, meaning]) => ({ code, number, scope, meaning }))
  const wanted = Object.entries(registry.errorCodes).map(([code, { number, scope, meaning }]) => ({
    code,
    number: number === null ? '' : String(number),
    scope,
    meaning,
  }))
  t.same(rows, wanted, 'SPEC and registry, in the same order')
  const numbers = wanted.map((row) => row.number).filter((number) => number !== '')
  t.equal(new Set(numbers).size, numbers.length, 'no number is given twice')
  for (const { number, scope } of Object.values(registry.errorCodes))
    t.equal(number === null, scope === 'local', 'exactly the local codes have no number')
  for (const word of spec.match(/\b[A-Z]+(?:_[A-Z]+)+\b/g) ?? [])
    t.ok(
      word in registry.errorCodes ||
        word in registry.limits ||
        word in registry.frameTypes ||
        word in constants ||
        word in parameters,
      `SPEC.md says ${word}, which is a code, a limit, a frame or a parameter`,
    )
})

t.test('limits are the same everywhere', async (t) => {
  const table = tableOf(tables, '11.1', 'Limit')
  const rows = table.rows.map(([name, value, unit, beyond]) => [name, { value: Number(value), unit, beyond }])
  t.same(Object.fromEntries(rows), registry.limits, 'SPEC and registry')
  const inCode: Record<string, number> = {}
  for (const [name, value] of Object.entries(constants))
    if (typeof value === 'number' && !/^(?:VERSION_|BROKER_PORT|BEACON_PORT)/.test(name)) inCode[name] = value
  const inRegistry = Object.entries(registry.limits).map(([name, { value }]): [string, number] => [name, value])
  t.same(inCode, { ...Object.fromEntries(inRegistry), ...sizes }, 'code, registry and the sizes of SPEC 4.5')
  t.same(registry.sizes, sizes, 'sizes of SPEC 4.5 and registry')
})

t.test('the limits fit each other', async (t) => {
  const { FRAME_HEADER_BYTES, TAG_BYTES, ENVELOPE_BYTES_MAX, PAYLOAD_BYTES_MAX } = constants
  const largest = FRAME_HEADER_BYTES + ENVELOPE_BYTES_MAX + PAYLOAD_BYTES_MAX
  t.ok(largest + TAG_BYTES <= constants.RECORD_SEALED_BYTES_MAX, 'the largest frame fits a record')
  t.ok(PAYLOAD_BYTES_MAX <= constants.RECORD_RAW_BYTES_MAX, 'the largest payload fits the raw part')
  t.ok(ENVELOPE_BYTES_MAX <= 0xffff, 'an envelope fits its u16')
  t.ok(constants.HANDSHAKE_BYTES_MAX <= 0xffff, 'a handshake message fits its u16')
  t.ok(
    constants.CERTIFICATE_BYTES_MAX + constants.SIGNATURE_BYTES + 512 <= constants.HANDSHAKE_BYTES_MAX,
    'the largest certificate fits a handshake message',
  )
  t.ok(constants.RETRY_COUNT_MAX * 2 < 128, 'the retry count fits one byte')
  t.ok(constants.TIME_TO_LIVE_MS_MAX < 2 ** 31, 'a time to live is an int')
  t.ok(constants.LINK_PAUSE_BYTES + largest < constants.LINK_SEND_BYTES_MAX, 'pausing comes before cutting')
  t.ok(constants.NAME_BYTES_MAX + 9 <= constants.SERVICE_BYTES_MAX, 'an address is no longer than a service')
  const own = (name: string): number => constantOf(read('lib/link/rekeying.ts'), name)
  t.ok(own('REKEY_RECORDS') * 2 <= constants.REKEY_RECORDS_MAX, 'a link rekeys before it has to, by records')
  t.ok(own('REKEY_MS') + 60_000 <= constants.REKEY_MS_MAX, 'and by time')
})

t.test('the parameters that SPEC.md names are those of the code', async (t) => {
  for (const [what, value, , kept] of tableOf(tables, '11.2', 'Parameter').rows) {
    const [, path, name] = /^`([^`]+)` (\w+)$/.exec(kept ?? '') ?? []
    if (path === undefined || name === undefined) return t.fail(`SPEC 11.2: "${what}" does not say where it is kept`)
    t.equal(constantOf(read(path), name), Number(value), `${what}: ${name}`)
  }
})

/** The value of `const NAME = ...`, a product of numbers and of other constants of the same file. */
function constantOf(text: string, name: string): number {
  const found = new RegExp(`\\bconst ${name}(?:: number)? = ([\\w *.]+)\\n`).exec(codeOf(text))
  if (found === null) return Number.NaN
  return (found[1] as string)
    .split('*')
    .map((factor) => factor.trim())
    .map((factor) => (/^\d/.test(factor) ? Number(factor.replaceAll('_', '')) : constantOf(text, factor)))
    .reduce((product, factor) => product * factor, 1)
}

t.test('one version', async (t) => {
  const { version } = JSON.parse(read('package.json')) as { version: string }
  t.equal(VERSION, version)
  if (existsSync(join(root, 'CHANGELOG.md'))) t.match(read('CHANGELOG.md'), `## ${version}`)
  t.match(spec, `of version ${version} of the software`, 'the text says which it is of')
})

t.test('planted faults are found', async (t) => {
  const layer = (path: string, text: string): number => brokenLayerRules(path, text).length
  t.equal(layer('lib/link/x.ts', "import { y } from './y.ts'\nimport { z } from '../identity/z.ts'\n"), 0)
  t.equal(layer('lib/link/x.ts', "import { y } from '../broker/y.ts'"), 1, 'an upward import')
  t.equal(layer('lib/link/x.ts', "import type { Y } from '../node/y.ts'"), 1, 'an upward import of a type')
  t.equal(layer('lib/link/x.ts', "import {\n  a,\n  b,\n} from '../node/y.ts'"), 1, 'over several lines')
  t.equal(layer('lib/link/x.ts', "let y: import('../node/y.ts').Y"), 1, 'within a type')
  t.equal(layer('lib/link/x.ts', "export * from '../node/y.ts'"), 1, 'an export')
  t.equal(layer('lib/node/x.ts', "import { y } from '../broker/y.ts'"), 1, 'between neighbours')
  t.equal(layer('protocol/x.ts', "import { y } from '../lib/runtime.ts'"), 1, 'from protocol to lib')
  t.equal(layer('lib/runtime.ts', "import { y } from './link/y.ts'"), 1, 'from the ground up')
  t.equal(layer('lib/transport/x.ts', "import { y } from '../index.ts'"), 1, 'from the top')
  t.equal(layer('lib/elsewhere/x.ts', ''), 1, 'a folder without a place')
  for (const outer of ['lib/cli/x.ts', 'lib/testing.ts', 'protocol/x.ts'])
    t.equal(layer(outer, "import { y } from '../../test/oracle/index.ts'"), 1, `from the tests, in ${outer}`)
  t.equal(layer('lib/link/x.ts', "import net from 'node:net'"), 1, 'a socket')
  t.equal(layer('lib/transport/x.ts', "import net from 'node:net'"), 0, 'a socket where it may be')
  t.equal(layer('lib/link/x.ts', "import sodium from 'sodium-native'"), 1, 'sodium elsewhere')
  t.equal(layer('lib/transport/x.ts', "import avro from 'avsc'"), 1, 'avsc elsewhere')
  for (const world of [
    'Date.now()',
    'new Date()',
    'performance.now()',
    'Math.random()',
    'process.env',
    'setTimeout(f, 1)',
    'setInterval(f, 1)',
    'setImmediate(f)',
    'queueMicrotask(f)',
    "fetch('x')",
    'AbortSignal.timeout(1)',
    '`${Date.now()}`',
  ])
    t.equal(layer('lib/link/x.ts', `const x = ${world}\n`), 1, world)
  for (const harmless of [
    '// Date.now()',
    '/* setTimeout */',
    "'Math.random()'",
    '`process.env`',
    'new Date(0)',
    '/fetch\\(/',
    "'//' + \"/*\" + 'setTimeout'",
  ])
    t.equal(layer('lib/link/x.ts', `const x = 1 ${harmless}\n`), 0, harmless)

  const house = (path: string, text: string): number => brokenHouseRules(path, text).length
  t.equal(house('lib/x.ts', 'x\n'.repeat(LINES_MAX)), 0)
  t.equal(house('lib/x.ts', 'x\n'.repeat(LINES_MAX + 1)), 1, 'a long file')
  t.equal(house('lib/x.ts', 'try { x() } catch {}'), 1, 'an empty catch')
  t.equal(house('lib/x.ts', 'try { x() } catch (error) { /* never mind */ }'), 1, 'a catch with a comment only')
  t.equal(house('lib/x.ts', 'x().catch(() => {})'), 1, 'an empty catch of a promise')
  t.equal(house('lib/x.ts', 'try { x() } catch { return null }'), 0)
  t.equal(house('lib/x.ts', `// ${'TO'}${'DO'}: later`), 1)
  t.equal(house('test/x.ts', 't.only(() => 1)'), 1)
  t.equal(house('lib/link-utils.ts', ''), 1, 'a name that says nothing')

  t.same(importsOf("import a from 'a'\n// import b from 'b'\nimport 'c'\nconst d = await import('d')"), ['a', 'c', 'd'])
  t.same(citedSections('SPEC 4.1 to 4.4, and SPEC 11, 12; SPEC.md'), ['4.1', '4.4', '11', '12'])
  t.throws(
    () =>
      numbersOf({
        section: '1',
        columns: ['A'],
        rows: [
          ['X', '1'],
          ['X', '1'],
        ],
      }),
    'a row twice',
  )
  t.throws(() => numbersOf({ section: '1', columns: ['A'], rows: [['X', 'one']] }), 'a row without a number')
})
