/** `adaptnet conformance`: plays a peer against any implementation, and judges it by SPEC.md, case by case. */
import { writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { Mode, Role } from '../../protocol/constants.ts'
import { AdaptnetError } from '../../protocol/errors.ts'
import { mayCall, mayServe } from '../identity/certificate.ts'
import { admit } from '../identity/identity.ts'
import type { Authority, Identity } from '../identity/identity.ts'
import { equal, sodiumRandom } from '../identity/sodium.ts'
import { parseHostPort } from '../transport/addresses.ts'
import { readAuthority, readIdentity } from '../transport/identity-files.ts'
import type { CommandIo } from './command.ts'
import { ExitCode, UsageError, runCommand } from './command.ts'
import { BROKER_CASES } from './conformance/broker/cases.ts'
import type { Case } from './conformance/case.ts'
import { Failure } from './conformance/failure.ts'
import { countsOf, junitOf, listLines, reportLines } from './conformance/report.ts'
import { runCases, selected } from './conformance/run.ts'
import type { RunOptions, Verdict } from './conformance/run.ts'
import { SERVICE_PREFIX, Stand, lacking } from './conformance/stand.ts'
import type { BrokerUnderTest } from './conformance/stand.ts'

/** So many that deadlines overlap, so few that a broker on the same machine has time for each. */
const PARALLEL = 8

const SHAPE = {
  operands: ['[HOST:PORT]'],
  options: {
    identity: { type: 'string', multiple: true },
    net: { type: 'string' },
    plain: { type: 'boolean' },
    only: { type: 'string', multiple: true },
    list: { type: 'boolean' },
    bail: { type: 'boolean' },
    json: { type: 'boolean' },
    junit: { type: 'string' },
  },
  usage: `usage: adaptnet conformance HOST:PORT (--identity FILE)... [--plain] [--only WHAT]... [--bail] [--json] [--junit FILE]
       adaptnet conformance HOST:PORT --net DIR ...
       adaptnet conformance --list [--only WHAT]... [--json]

Judges the broker at HOST:PORT by SPEC.md: plays nodes and brokers that keep the rules and that break them, case by case.
It needs two identities of the broker's net, one that serves and one that calls, and plays more cases with a third:

  adaptnet net admit DIR judge-worker --serve '${SERVICE_PREFIX}*'
  adaptnet net admit DIR judge-client --call '${SERVICE_PREFIX}*'
  adaptnet net admit DIR judge-broker --broker

  --identity FILE     an identity; which of the three it is, its certificate tells
  --net DIR           the folder of the net's authority instead: the judge makes all identities itself, also such that
                      must be refused, and revokes one. For a net that was made for this, never for one in use
  --plain             the broker listens in plain mode
  --only WHAT         a level (codec, link, broker), a section of SPEC.md (4, 4.1) or a case (broker/4.1/3)
  --list              show the cases: number, what is sent, what must come
  --bail              end at the first case that fails
  --json              print one JSON object per line: each verdict, then a summary
  --junit FILE        write the verdicts to FILE as JUnit's XML, too

exit codes: 0 every case passed, 1 one failed or there is no broker, 2 wrong usage
example: adaptnet conformance 127.0.0.1:7411 --net net`,
} as const

/** `adaptnet conformance ...`; gives the exit code. */
export function conformance(args: string[], io: CommandIo): Promise<number> {
  return runCommand(SHAPE, args, io, async ({ values, operands }) => {
    const cases = chosen(BROKER_CASES, values.only)
    if (values.list === true) {
      for (const line of values.json === true ? jsonList(cases) : listLines(cases)) io.out(line)
      return ExitCode.DONE
    }
    const subject = await subjectOf(operands[0], values)
    await expectBroker(subject)
    const options = { stand: () => new Stand(subject), mode: subject.mode, lacking: lacking(subject) }
    return run(cases, options, values, io)
  })
}

interface Output {
  bail?: boolean | undefined
  json?: boolean | undefined
  junit?: string | undefined
}

async function run<World extends { close: () => void }>(
  cases: readonly Case<World>[],
  options: Pick<RunOptions<World>, 'stand' | 'mode' | 'lacking'>,
  { bail = false, json = false, junit }: Output,
  io: CommandIo,
): Promise<number> {
  const beganMs = performance.now()
  const own = cases.filter(({ modes }) => modes.includes(options.mode))
  const judged = (verdict: Verdict): void => {
    if (json) io.out(JSON.stringify({ type: 'case', ...verdict }))
  }
  const verdicts = await runCases(own, { ...options, parallel: PARALLEL, bail, judged })
  const tookMs = performance.now() - beganMs
  const counts = countsOf(verdicts)
  if (json) io.out(JSON.stringify({ type: 'summary', ...counts, ms: Math.round(tookMs) }))
  else for (const line of reportLines(verdicts, tookMs)) io.out(line)
  if (junit !== undefined) await writeJunit(junit, junitOf('adaptnet conformance', verdicts, tookMs))
  return counts.failed === 0 ? ExitCode.DONE : ExitCode.FAILED
}

async function writeJunit(path: string, text: string): Promise<void> {
  try {
    await writeFile(path, text)
  } catch (cause) {
    const why = cause instanceof Error ? cause.message : String(cause)
    throw new AdaptnetError('INVALID_ARGUMENT', `${path} cannot be written: ${why}`, { cause })
  }
}

function chosen<World>(cases: readonly Case<World>[], words: readonly string[] = []): Case<World>[] {
  const found = selected(cases, words)
  if (typeof found !== 'string') return found
  throw new UsageError(`--only '${found}' names no level, no section and no case; --list shows them`)
}

function jsonList<World>(cases: readonly Case<World>[]): string[] {
  return cases.map(({ id, section, level, positive, sent, expected, needs, modes }) =>
    JSON.stringify({ type: 'case', id, section, level, positive, sent, expected, needs, modes }),
  )
}

interface Whom {
  identity?: string[]
  net?: string
  plain?: boolean
}

async function subjectOf(operand: string | undefined, { identity = [], net, plain }: Whom): Promise<BrokerUnderTest> {
  if (operand === undefined) throw new UsageError('HOST:PORT is missing')
  const { host, port } = parseHostPort(operand)
  const mode = plain === true ? Mode.plain : Mode.noise
  if (net !== undefined) return { host, port, mode, ...madeBy(await readAuthority(join(net, 'authority.key'))) }
  if (identity.length === 0) throw new UsageError('--identity or --net is missing')
  const identities: Identity[] = []
  for (const path of identity) identities.push(await readIdentity(path))
  return { host, port, mode, ...partsOf(identities), authority: null }
}

function madeBy(authority: Authority): Pick<BrokerUnderTest, 'worker' | 'client' | 'broker' | 'authority'> {
  const made = { nowMs: Date.now(), days: 1, roles: Role.node, serves: [], calls: [] }
  const patterns = [`${SERVICE_PREFIX}*`]
  return {
    worker: admit(authority, { ...made, name: 'judge-worker', serves: patterns }, sodiumRandom),
    client: admit(authority, { ...made, name: 'judge-client', calls: patterns }, sodiumRandom),
    broker: admit(authority, { ...made, name: 'judge-broker', roles: Role.node | Role.broker }, sodiumRandom),
    authority,
  }
}

/** Which identity is for what. @throws UsageError when one is missing */
function partsOf(identities: readonly Identity[]): Pick<BrokerUnderTest, 'worker' | 'client' | 'broker'> {
  const probe = `${SERVICE_PREFIX}x`
  const nodes = identities.filter(({ certificate }) => (certificate.roles & Role.broker) === 0)
  const worker = nodes.find(({ certificate }) => mayServe(certificate, probe))
  const client = nodes.find((one) => one !== worker && mayCall(one.certificate, probe))
  const broker = identities.find(({ certificate }) => (certificate.roles & Role.broker) !== 0) ?? null
  if (worker === undefined) throw new UsageError(`no identity may serve ${SERVICE_PREFIX}*`)
  if (client === undefined) throw new UsageError(`no other identity may call ${SERVICE_PREFIX}*`)
  if (identities.some(({ net }) => !equal(net, worker.net))) throw new UsageError('the identities are of several nets')
  return { worker, client, broker }
}

/** One look before the cases, so that a wrong address does not look like many faults. */
async function expectBroker(subject: BrokerUnderTest): Promise<void> {
  const stand = new Stand(subject)
  try {
    ;(await stand.wire()).close()
  } catch (error) {
    if (!(error instanceof Failure)) throw error
    throw new AdaptnetError('UNREACHABLE', `${subject.host}:${subject.port}: ${error.seen}`, { cause: error })
  } finally {
    stand.close()
  }
}
