/** `adaptnet conformance`: plays a peer against any implementation, and judges it by SPEC.md, case by case. */
import { writeFile } from 'node:fs/promises'
import { Mode } from '../../protocol/constants.ts'
import { AdaptnetError } from '../../protocol/errors.ts'
import { parseHostPort } from '../transport/addresses.ts'
import type { CommandIo } from './command.ts'
import { ExitCode, UsageError, runCommand } from './command.ts'
import { BROKER_CASES } from './conformance/broker/cases.ts'
import type { Case, Need } from './conformance/case.ts'
import { CLIENT_CASES } from './conformance/client-cases.ts'
import { Failure } from './conformance/failure.ts'
import { identitiesOf, needed } from './conformance/identities.ts'
import { Post } from './conformance/post.ts'
import { countsOf, junitOf, listLines, reportLines } from './conformance/report.ts'
import { runCases, selected } from './conformance/run.ts'
import type { RunOptions, Verdict } from './conformance/run.ts'
import { SERVICE_PREFIX, Stand, lacking } from './conformance/stand.ts'
import type { BrokerUnderTest } from './conformance/stand.ts'
import { WORKER_CASES } from './conformance/worker-cases.ts'

/** So many that deadlines overlap, so few that a broker on the same machine has time for each. */
const PARALLEL = 8
const SERVICE_DEFAULT = 'echo'

const SHAPE = {
  operands: ['[HOST:PORT]'],
  options: {
    identity: { type: 'string', multiple: true },
    net: { type: 'string' },
    worker: { type: 'boolean' },
    client: { type: 'boolean' },
    service: { type: 'string' },
    plain: { type: 'boolean' },
    only: { type: 'string', multiple: true },
    list: { type: 'boolean' },
    bail: { type: 'boolean' },
    json: { type: 'boolean' },
    junit: { type: 'string' },
  },
  usage: `usage: adaptnet conformance HOST:PORT (--identity FILE)... [--plain] [--only WHAT]... [--bail] [--json] [--junit FILE]
       adaptnet conformance HOST:PORT --worker|--client [--service SERVICE] --identity FILE ...
       adaptnet conformance HOST:PORT --net DIR ...
       adaptnet conformance --list [--worker|--client] [--only WHAT]... [--json]

Judges an implementation by SPEC.md: plays its peers, those that keep the rules and those that break them, case by case.

A broker, which listens at HOST:PORT, is judged by nodes and brokers that dial it. That needs two identities of its net,
one that serves and one that calls; with a third, more cases are played:
  adaptnet net admit DIR judge-worker --serve '${SERVICE_PREFIX}*'
  adaptnet net admit DIR judge-client --call '${SERVICE_PREFIX}*'
  adaptnet net admit DIR judge-broker --broker

A worker or a client is judged by a broker that listens at HOST:PORT for it. That needs the third identity alone. Tell
the worker that address, and let it serve ${SERVICE_DEFAULT}: each reply is the payload of its request. Or let the client call
${SERVICE_DEFAULT} in a loop, one request at a time, with three retries or more, for some minutes and whatever fails.

  --identity FILE     an identity; which of the three it is, its certificate tells
  --net DIR           the folder of the net's authority instead: the judge makes all identities itself, also such that
                      must be refused, and revokes one. For a net that was made for this, never for one in use
  --worker, --client  what is judged, instead of a broker
  --service SERVICE   what the worker serves or the client calls, ${SERVICE_DEFAULT} by default
  --plain             in plain mode
  --only WHAT         a level (codec, link, broker), a section of SPEC.md (4, 4.1) or a case (broker/4.1/3)
  --list              show the cases: number, what is sent, what must come
  --bail              end at the first case that fails
  --json              print one JSON object per line: each verdict, then a summary
  --junit FILE        write the verdicts to FILE as JUnit's XML, too

exit codes: 0 every case passed, 1 one failed or there is nobody to judge, 2 wrong usage
example: adaptnet conformance 127.0.0.1:7411 --net net`,
} as const

interface Values {
  identity?: string[]
  net?: string
  worker?: boolean
  client?: boolean
  service?: string
  plain?: boolean
  only?: string[]
  list?: boolean
  bail?: boolean
  json?: boolean
  junit?: string
}

/** `adaptnet conformance ...`; gives the exit code. */
export function conformance(args: string[], io: CommandIo): Promise<number> {
  return runCommand(SHAPE, args, io, ({ values, operands }) => {
    if (values.worker === true && values.client === true)
      throw new UsageError('--worker and --client exclude each other')
    if (values.worker === true) return judgeNode('worker', WORKER_CASES, operands[0], values, io)
    if (values.client === true) return judgeNode('client', CLIENT_CASES, operands[0], values, io)
    if (values.service !== undefined) throw new UsageError('--service is for --worker and --client')
    return judgeBroker(operands[0], values, io)
  })
}

async function judgeBroker(operand: string | undefined, values: Values, io: CommandIo): Promise<number> {
  const cases = chosen(BROKER_CASES, values.only)
  if (values.list === true) return list(cases, values, io)
  const { host, port } = where(operand)
  const mode = modeOf(values)
  const identities = await identitiesOf(values)
  const subject: BrokerUnderTest = {
    host,
    port,
    mode,
    worker: needed(identities.worker, 'identity that serves', `judge-worker --serve '${SERVICE_PREFIX}*'`),
    client: needed(identities.client, 'other identity that calls', `judge-client --call '${SERVICE_PREFIX}*'`),
    broker: identities.broker,
    authority: identities.authority,
  }
  await expectBroker(subject)
  const stand = (): Stand => new Stand(subject)
  return run(cases, { stand, mode, lacking: lacking(subject), parallel: PARALLEL }, values, io)
}

/** A worker or a client comes to the judge, who is its broker. */
async function judgeNode(
  subject: 'worker' | 'client',
  all: readonly Case<Post>[],
  operand: string | undefined,
  values: Values,
  io: CommandIo,
): Promise<number> {
  const cases = chosen(all, values.only)
  if (values.list === true) return list(cases, values, io)
  const { host, port } = where(operand)
  const mode = modeOf(values)
  const { broker, authority } = await identitiesOf(values)
  const identity = needed(broker, 'identity that may be a broker', 'judge-broker --broker')
  const service = values.service ?? SERVICE_DEFAULT
  const post = await Post.listen(host, port, { subject, mode, identity, authority, service })
  try {
    const at = `${host.includes(':') ? `[${host}]` : host}:${post.port}`
    if (values.json === true) io.out(JSON.stringify({ type: 'listening', endpoint: at, subject, service }))
    else {
      const deed = subject === 'worker' ? `a worker that serves ${service}` : `a client that calls ${service} in a loop`
      io.err(`waiting at ${at} for ${deed}`)
    }
    await post.begin()
    const missing = new Set<Need>(authority === null ? ['authority'] : [])
    // One link at a time: whom it judges may keep no second one to the same broker.
    return await run(cases, { stand: () => post, mode, lacking: missing, parallel: 1 }, values, io)
  } finally {
    post.end()
  }
}

function where(operand: string | undefined): { host: string; port: number } {
  if (operand === undefined) throw new UsageError('HOST:PORT is missing')
  return parseHostPort(operand)
}

function modeOf({ plain }: Values): Mode {
  return plain === true ? Mode.plain : Mode.noise
}

function chosen<World>(cases: readonly Case<World>[], words: readonly string[] = []): Case<World>[] {
  const found = selected(cases, words)
  if (typeof found !== 'string') return found
  throw new UsageError(`--only '${found}' names no level, no section and no case; --list shows them`)
}

function list<World>(cases: readonly Case<World>[], { json = false }: Values, io: CommandIo): Promise<number> {
  const shown = cases.map(({ id, section, level, positive, sent, expected, needs, modes }) =>
    JSON.stringify({ type: 'case', id, section, level, positive, sent, expected, needs, modes }),
  )
  for (const line of json ? shown : listLines(cases)) io.out(line)
  return Promise.resolve(ExitCode.DONE)
}

async function run<World extends { close: () => void }>(
  cases: readonly Case<World>[],
  options: Pick<RunOptions<World>, 'stand' | 'mode' | 'lacking' | 'parallel'>,
  { bail = false, json = false, junit }: Values,
  io: CommandIo,
): Promise<number> {
  const beganMs = performance.now()
  const own = cases.filter(({ modes }) => modes.includes(options.mode))
  const judged = (verdict: Verdict): void => {
    if (json) io.out(JSON.stringify({ type: 'case', ...verdict }))
  }
  const verdicts = await runCases(own, { ...options, bail, judged })
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

/** One look before the cases, so that a wrong address does not look like many faults. */
async function expectBroker(subject: BrokerUnderTest): Promise<void> {
  const stand = new Stand(subject)
  try {
    await stand.wire()
  } catch (error) {
    if (!(error instanceof Failure)) throw error
    throw new AdaptnetError('UNREACHABLE', `${subject.host}:${subject.port}: ${error.seen}`, { cause: error })
  } finally {
    stand.close()
  }
}
