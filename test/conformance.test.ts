import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import type { Test } from 'tap'
import { conformance } from '../lib/cli/conformance.ts'
import { LEVELS } from '../lib/cli/conformance/case.ts'
import { createTestNet } from '../lib/testing.ts'
import type { TestNet } from '../lib/testing.ts'
import { connect } from '../lib/transport/connect.ts'
import { writeAuthority, writeIdentity } from '../lib/transport/identity-files.ts'
import { CLIENT_FAULTS, FAULTS, WORKER_FAULTS } from './judge-faults.ts'
import { judged } from './judge-mutants.ts'
import { Laboratory, expectPlantable } from './laboratory.ts'
import type { Mutant } from './simulation/planted-bugs.ts'
import { sectionsOf } from './spec-tables.ts'

interface Told {
  code: number
  out: string[]
  err: string[]
}

interface Row {
  type: string
  id: string
  section: string
  level: string
  positive: boolean
  outcome: string
  expected: string
  seen: string
  needs: string[]
}

interface Running {
  told: Promise<Told>
  /** The first line of JSON that holds this type. */
  first: (type: string) => Promise<Record<string, unknown>>
}

function start(...args: string[]): Running {
  const out: string[] = []
  const err: string[] = []
  const waiting: { type: string; found: (row: Record<string, unknown>) => void }[] = []
  const told = conformance(args, {
    out: (line) => {
      out.push(line)
      if (!line.startsWith('{')) return
      const row = JSON.parse(line) as Record<string, unknown>
      for (const { type, found } of waiting) if (row['type'] === type) found(row)
    },
    err: (line) => err.push(line),
  }).then((code) => ({ code, out, err }))
  const first = (type: string): Promise<Record<string, unknown>> =>
    new Promise((resolve, reject) => {
      const earlier = out.map((line) => JSON.parse(line) as Record<string, unknown>).find((row) => row['type'] === type)
      if (earlier !== undefined) return resolve(earlier)
      waiting.push({ type, found: resolve })
      told.then(({ err: mistakes }) => reject(new Error(`it ended: ${mistakes.join()}`)), reject)
    })
  return { told, first }
}

const run = (...args: string[]): Promise<Told> => start(...args).told
const rowsOf = ({ out }: Told): Row[] => out.map((line) => JSON.parse(line) as Row)

async function netFolder(t: Test, net: TestNet): Promise<string> {
  const folder = t.testdir({})
  await writeAuthority(join(folder, 'authority.key'), net.authority)
  return folder
}

function passes(t: Test, told: Told, casesMin: number): Row[] {
  const rows = rowsOf(told)
  for (const { id, outcome, expected, seen } of rows)
    if (outcome === 'failed') t.fail(`${id}: expected ${expected}, seen ${seen}`)
  const cases = rows.filter(({ type }) => type === 'case')
  t.ok(cases.length >= casesMin, `${cases.length} cases`)
  t.equal(told.code, 0)
  t.match(rows.at(-1), { type: 'summary', cases: cases.length, failed: 0 })
  return cases
}

t.test('this broker passes every case, in both modes; so do the worker and the client', async (t) => {
  const net = await createTestNet({ brokers: 1 })
  const plain = await createTestNet({ brokers: 1, mode: 'plain' })
  t.teardown(() => Promise.all([net.close(), plain.close()]))
  const folder = await netFolder(t, net)
  const plainFolder = join(folder, 'plain')
  await writeAuthority(`${plainFolder}.key`, plain.authority)
  const identities = ['worker', 'client'].map((name) => join(folder, `${name}.identity`))
  await writeIdentity(identities[0] as string, plain.identity('judge-worker', { serves: ['conformance.*'], calls: [] }))
  await writeIdentity(identities[1] as string, plain.identity('judge-client', { serves: [], calls: ['conformance.*'] }))
  const report = join(folder, 'junit.xml')
  const inNoise = run(net.endpoints[0] as string, '--net', folder, '--json', '--junit', report)
  const options = identities.flatMap((path) => ['--identity', path])
  const inPlain = run(plain.endpoints[0] as string, '--plain', ...options, '--json')
  // Each case that breaks a link waits until the node dials again: the cases of links are tried in part, for both.
  const links = ['--only', '4.4', '--only', '4.7']
  const worker = start('127.0.0.1:0', '--worker', '--net', folder, '--json', '--only', 'worker', ...links)
  const client = start('127.0.0.1:0', '--client', '--net', folder, '--json', '--only', 'client', '--only', '4.5')
  const serving = await connect({ brokers: [await endpointOf(worker)], identity: net.identity('worker') })
  await serving.serve('echo', ({ payload }) => payload)
  const calling = await connect({ brokers: [await endpointOf(client)], identity: net.identity('client') })
  const stop = new AbortController()
  const load = loop(calling, stop.signal)
  const skipped = (await inPlain.then((told) => passes(t, told, 150))).filter(({ outcome }) => outcome === 'skipped')
  t.ok(
    skipped.every(({ seen }) => seen.startsWith('needs ')),
    'what cannot be played without more identities says so',
  )
  const cases = passes(t, await inNoise, 300)
  t.same(
    cases.filter(({ outcome }) => outcome === 'skipped'),
    [],
  )
  t.equal(readFileSync(report, 'utf8').match(/<testcase /g)?.length, cases.length)
  passes(t, await worker.told, 30)
  passes(t, await client.told, 25)
  stop.abort()
  await load
  await Promise.all([serving.close(), calling.close()])
})

async function endpointOf(running: Running): Promise<string> {
  return (await running.first('listening'))['endpoint'] as string
}

/** One request after the other, whatever becomes of it. */
async function loop(node: Awaited<ReturnType<typeof connect>>, signal: AbortSignal): Promise<void> {
  for (let count = 0; !signal.aborted; count++) {
    const asked = node.request('echo', `payload ${count}`, { timeoutMs: 500, retries: 5, deadlineMs: 10_000, signal })
    await asked.catch(() => null)
  }
}

t.test('every case has a number, a level and a section of SPEC.md; both kinds are there', async (t) => {
  const sections = sectionsOf(readFileSync(new URL('../../SPEC.md', import.meta.url), 'utf8'))
  for (const whom of [[], ['--worker'], ['--client']]) {
    const rows = rowsOf(await run('--list', '--json', ...whom))
    t.equal(new Set(rows.map(({ id }) => id)).size, rows.length, 'no number is given twice')
    t.same(
      rows.filter(({ section, level }) => !sections.includes(section) || !LEVELS.some((known) => known === level)),
      [],
    )
    for (const kind of [true, false]) t.ok(rows.filter(({ positive }) => positive === kind).length > 20)
  }
})

t.test('what the command says and gives when it cannot judge', async (t) => {
  t.match(await run('--list', '--only', '4.1'), { code: 0, out: [/^broker\/4\.1\/1 \(link\) /] })
  for (const [args, why] of [
    [[], 'HOST:PORT is missing'],
    [['127.0.0.1:1'], '--identity or --net is missing'],
    [['--list', '--only', '99'], "--only '99' names"],
    [['127.0.0.1:1', '--worker', '--client'], 'exclude each other'],
    [['127.0.0.1:1', '--service', 'x'], '--service is for'],
  ] as const) {
    const { code, err } = await run(...args)
    t.equal(code, 2)
    t.match(err[0], why)
  }
  const net = await createTestNet({ brokers: 0 })
  const folder = await netFolder(t, net)
  t.match(await run('127.0.0.1:1', '--net', folder), { code: 1, err: [/UNREACHABLE/] })
  const path = join(folder, 'one.identity')
  await writeIdentity(path, net.identity('one', { serves: ['conformance.*'], calls: [] }))
  const { code, err } = await run('127.0.0.1:1', '--identity', path)
  t.equal(code, 2)
  t.match(err[0], /no other identity that calls; it is made by: adaptnet net admit DIR judge-client --call/)
})

/** A few of the faults that `npm run mutants -- --judge` plants, each with the section that must find it. */
const FAULTS_TRIED: readonly (readonly [fault: string, section: string])[] = [
  ['strangers are told INTERNAL', '5.2'],
  ['the prologue is what the preamble should be', '4.1'],
  ['SEALED is lost', '6.3'],
]

t.test('faults that are planted in the broker are found, and told with what was expected', async (t) => {
  for (const fault of [...FAULTS, ...WORKER_FAULTS, ...CLIENT_FAULTS]) expectPlantable(fault)
  t.ok(FAULTS.length >= 20)
  const laboratory = new Laboratory()
  t.teardown(() => laboratory.close())
  for (const [name, section] of FAULTS_TRIED) {
    const fault = FAULTS.find((one) => one.name.startsWith(name)) as Mutant
    const { found, seen } = await laboratory.infected(fault, () => judged(laboratory, [section]))
    t.match(found, `broker/${section}/`, fault.name)
    t.not(seen, '')
  }
})
