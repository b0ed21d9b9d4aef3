/** Makes the vectors of behaviour out of scripts, by playing them with the oracle; and compares what a player does with them. */
import { isDeepStrictEqual } from 'node:util'
import { role } from '../oracle/registry.ts'
import { NET, certificateFields, linkSecretOf, signedCertificate } from './certificates.ts'
import { hex, secretOf } from './independent-codec.ts'
import { oraclePlayer } from './players.ts'
import { SUBJECT_NAME, sessionOf, type Party, type Said, type Scenario, type Step, type Subject } from './scenario.ts'
import { Stage, addressOf, type Cast, type Heard } from './stage.ts'
import type { VectorFile } from './vector.ts'

export interface Script extends Pick<Scenario, 'spec' | 'comment' | 'links' | 'also' | 'steps'> {
  /** A peer does what it must not. */
  bad?: boolean
}

export interface BehaviourFile extends VectorFile {
  parties: Record<string, Party>
}

export function party(
  name: string,
  instance: string,
  { broker = false, serves = [], calls = [] }: { broker?: boolean; serves?: string[]; calls?: string[] } = {},
): Party {
  const roles = role(broker ? 'broker' : 'node')
  const certificate = hex(signedCertificate(certificateFields(name, { roles, serves, calls })))
  const [linkSecret, signSeed] = [hex(linkSecretOf(name)), hex(secretOf(`sign key of ${name}`))]
  return { name, instance, roles, serves, calls, certificate, linkSecret, signSeed }
}

/** The file of one level: every script played by the oracle. */
export async function behaviourVectors(
  subject: Subject,
  comment: string,
  parties: Record<string, Party>,
  scripts: readonly Script[],
): Promise<VectorFile> {
  const vectors: Scenario[] = []
  for (const { spec, comment: about, links, also, bad = false, steps } of scripts) {
    const head = { id: vectors.length + 1, level: subject, spec, comment: about, links }
    const scenario: Scenario = { ...head, ...(also && { also }), result: bad ? 'invalid' : 'valid', steps }
    const stage = new Stage(scenario, new Map(Object.entries(parties)))
    const [opening, ...rest] = await stage.play(oraclePlayer(subject))
    const muted = steps.flatMap(({ mute }) => mute ?? [])
    const { out } = followed(stage, muted, {}, opening as Heard)
    const played = steps.map((step, index) => ({ ...step, ...followed(stage, muted, step, rest[index] as Heard) }))
    vectors.push({ ...scenario, ...(out && { opening: out }), steps: played })
  }
  const session = hex(sessionOf(SUBJECT_NAME))
  return { comment, net: hex(NET), session, parties, vectors: vectors as unknown as VectorFile['vectors'] }
}

/** What followed a step, as a vector has it: without what is each implementation's own. */
function followed(
  stage: Stage,
  muted: readonly string[],
  step: Step,
  { startMs, out, told }: Heard,
): Pick<Step, 'out' | 'told'> {
  const subject = addressOf(stage.party(SUBJECT_NAME))
  const frames = out
    // Who takes a peer for dead may say so, though it would not arrive (SPEC 4.6).
    .map(({ atMs, ...words }) =>
      words.end === true && muted.includes(words.link)
        ? { link: words.link, over: true }
        : withRange(judgedPart(words, subject), step, atMs - startMs),
    )
    .toSorted((a, b) => (a.link < b.link ? -1 : a.link > b.link ? 1 : 0))
  return { ...(frames.length > 0 && { out: frames }), ...(told.length > 0 && { told }) }
}

/** A relayed frame is judged byte by byte; of others, only what the rules decide. */
function judgedPart({ bytes = '', ...words }: Said, subject: string): Said {
  const { envelope, body, frame } = words
  if (envelope !== undefined && envelope['sender'] !== subject) {
    const { envelope: _envelope, payload: _payload, body: _body, ...rest } = words
    return { ...rest, bytes }
  }
  const judged: Said = { ...words }
  if (envelope !== undefined && frame !== 'REQUEST') {
    const { id: _own, ...rest } = envelope
    judged.envelope = rest
  }
  if (body !== undefined) {
    const { message, retryAfter: _parameter, ...rest } = body
    judged.body = body['code'] === 'WORKER_ERROR' ? { ...rest, message } : rest
  }
  return judged
}

/** When within a step a request is sent is free, and so is what is left of its time then. */
function withRange(words: Said, { pass = 0 }: Step, afterMs: number): Said {
  const left = words.envelope?.['timeToLive']
  if (words.frame !== 'REQUEST' || typeof left !== 'number') return words
  // How long a node asks a broker itself is its own matter.
  if (String(words.envelope?.['receiver']).startsWith('$')) {
    const { timeToLive: _own, ...envelope } = words.envelope ?? {}
    return { ...words, envelope }
  }
  if (pass === 0) return words
  const timeToLive = { least: left + afterMs - pass, most: left + afterMs }
  return { ...words, envelope: { ...words.envelope, timeToLive } }
}

/** Plays a vector and says, as sentences, where what follows is not what it says. */
export async function differences(file: BehaviourFile, scenario: Scenario, cast: Cast): Promise<string[]> {
  const stage = new Stage(scenario, new Map(Object.entries(file.parties)))
  const [opening, ...rest] = await stage.play(cast)
  const steps: Step[] = [{ out: scenario.opening ?? [] }, ...scenario.steps]
  return [opening as Heard, ...rest].flatMap((heard, index) => {
    const { out = [], told = [], comment } = steps[index] as Step
    if (allMatch(out, heard.out) && allMatch(told, heard.told)) return []
    const [wanted, came] = [
      { out, told },
      { out: heard.out, told: heard.told },
    ].map((one) => JSON.stringify(one))
    return [`step ${index} (${comment ?? ''}): ${came} instead of ${wanted}`]
  })
}

/** Whether what came is what is written, in any order: of what one step causes, the order is nobody's promise. */
function allMatch(wanted: readonly unknown[], came: readonly unknown[]): boolean {
  const left = [...came]
  for (const one of wanted) {
    const at = left.findIndex((other) => matches(one, other))
    if (at < 0) return false
    left.splice(at, 1)
  }
  return left.length === 0
}

/** Whether all that is written came; numbers may be a range. */
function matches(wanted: unknown, came: unknown): boolean {
  if (Array.isArray(wanted))
    return Array.isArray(came) && wanted.length === came.length && wanted.every((one, at) => matches(one, came[at]))
  if (typeof wanted !== 'object' || wanted === null) return isDeepStrictEqual(wanted, came)
  if ('least' in wanted && 'most' in wanted && typeof came === 'number')
    return came >= Number(wanted.least) && came <= Number(wanted.most)
  if (typeof came !== 'object' || came === null) return false
  if ('over' in wanted) return 'end' in came || ('frame' in came && came.frame === 'CLOSE')
  return Object.entries(wanted).every(([name, value]) => matches(value, (came as Record<string, unknown>)[name]))
}
