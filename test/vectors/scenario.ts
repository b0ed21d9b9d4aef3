/**
 * Behaviour as data: what comes in and what must follow, step by step. `protocol/vectors/README.md` has the format;
 * here are its types, and the words in which frames are written.
 */
import { Body } from '../oracle/avro.ts'
import { readEnvelope, writeEnvelope, writeId, type Envelope } from '../oracle/envelope.ts'
import { Fault, Malformed } from '../oracle/fault.ts'
import { SEALED, readFrames, writeFrame, type Frame } from '../oracle/frame.ts'
import { codeOfNumber, frameType, nameOfType } from '../oracle/registry.ts'
import { hex, secretOf, unhex } from './independent-codec.ts'
import { hexed } from './bodies.ts'

export type Subject = 'client' | 'worker' | 'broker'

/** One frame on one link, or the end of the link. Of what goes out, what is not written is not judged. */
export interface Said {
  link: string
  frame?: string
  sealed?: boolean
  envelope?: Record<string, unknown>
  body?: Record<string, unknown>
  /** Hex. */
  payload?: string
  /** The whole frame, hex. */
  bytes?: string
  /** The connection has ended, and no CLOSE came before. */
  end?: boolean
  /** It has ended, with CLOSE or without. */
  over?: boolean
}

export interface Deed {
  request?: string
  cancel?: string
  serve?: string
  unserve?: string
  answer?: number
  fail?: number
  drain?: boolean
  service?: string
  payload?: string
  message?: string
  timeoutMs?: number
  retries?: number
  deadlineMs?: number
  delivery?: 'at-least-once' | 'at-most-once' | 'exactly-once'
  /** The link for the first attempt. */
  by?: string
  concurrency?: number
  journal?: string
  /** What that journal says of every request, where it is not one that works; a completion is a reply, hex. */
  says?: 'running' | 'gone' | 'ended' | 'unreachable' | 'unwritable' | { completed: string }
}

/** One of `in`, `user`, `pass`, `open`, `cut` and `mute`, and what follows. */
export interface Step {
  comment?: string
  in?: Said
  user?: Deed
  /** Milliseconds. */
  pass?: number
  open?: string
  cut?: string
  mute?: string
  out?: Said[]
  told?: Record<string, unknown>[]
}

export interface Scenario {
  id: number
  level: Subject
  spec: string
  comment: string
  result: 'valid' | 'invalid'
  /** Links that are open at the beginning. */
  links: string[]
  /** Frames that are judged too. PING is answered behind the scenes, and BROKERS is not noted otherwise. */
  also?: string[]
  /** What goes out when the links open. */
  opening?: Said[]
  steps: Step[]
}

/** Who takes part: the subject and its peers. */
export interface Party {
  name: string
  instance: string
  roles: number
  serves: string[]
  calls: string[]
  /** Signed; hex. */
  certificate: string
  linkSecret: string
  signSeed: string
}

const SCHEMA_OF: Readonly<Record<string, string>> = {
  REJECT: 'reject',
  REGISTER: 'register',
  UNREGISTER: 'register',
  REGISTERED: 'registered',
  GO_AWAY: 'farewell',
  CLOSE: 'farewell',
  BROKERS: 'brokers',
  SERVICE_KEYS: 'service-keys',
}
const bodies = new Map<string, Body<Record<string, unknown>>>()
function bodyOf(frame: string): Body<Record<string, unknown>> | null {
  const schema = SCHEMA_OF[frame]
  if (schema === undefined) return null
  const found = bodies.get(schema) ?? new Body<Record<string, unknown>>(schema)
  bodies.set(schema, found)
  return found
}

/** A frame in words; what cannot be read stays bytes. */
export function said(link: string, frame: Frame): Said {
  const name = nameOfType(frame.type)
  const words: Said = { link, frame: name }
  if ((frame.flags & SEALED) !== 0) words.sealed = true
  const envelope = frame.envelope.length === 0 ? null : read(() => readEnvelope(frame.envelope))
  if (envelope !== null) words.envelope = hexed(envelope) as Record<string, unknown>
  const body = read(() => bodyOf(name)?.read(frame.payload) ?? null)
  if (body !== null) words.body = coded(hexed(body) as Record<string, unknown>)
  else if (!['CANCEL', 'ACKNOWLEDGE'].includes(name)) words.payload = hex(frame.payload)
  words.bytes = hex(writeFrame(frame))
  return words
}

function coded(body: Record<string, unknown>): Record<string, unknown> {
  if (typeof body['code'] !== 'number') return body
  const name = codeOfNumber(body['code'])
  return { ...body, code: name === 'INTERNAL' && body['code'] !== 21 ? body['code'] : name }
}

function read<T>(reader: () => T): T | null {
  try {
    return reader()
  } catch (error) {
    if (error instanceof Fault || error instanceof Malformed) return null
    throw error
  }
}

/** The frame of `in`, from its bytes. */
export function frameOf(words: Said): Frame {
  const [frame] = readFrames(unhex(words.bytes ?? ''), Buffer.alloc(0), 'plain').frames
  if (frame === undefined) throw new Error('no frame')
  return frame
}

// --- writing what comes in

/** The one that is judged. */
export const SUBJECT_NAME = 'subject'

/** Whose ids: the first half of them, the same in all vectors. */
export const sessionOf = (name: string): Buffer => secretOf(`session of ${name}`).subarray(0, 8)
export const idOf = (name: string, counter: number): Buffer => writeId(sessionOf(name), counter)

export interface FrameWords {
  flags?: number
  envelope?: Partial<Envelope>
  /** Instead of `envelope`, whatever it says. */
  envelopeBytes?: Buffer
  payload?: string | Buffer
  body?: Record<string, unknown>
}

const NOTHING = Buffer.alloc(0)

export function incoming(link: string, name: string, words: FrameWords = {}): Step {
  const { flags = 0, envelope, envelopeBytes, payload = NOTHING, body } = words
  const written =
    envelope === undefined ? NOTHING : writeEnvelope({ receiver: '', sender: '', ...envelope } as Envelope)
  const content = body === undefined ? Buffer.from(payload) : (bodyOf(name)?.write(body) ?? NOTHING)
  const type = /^\d+$/.test(name) ? Number(name) : frameType(name)
  return { in: said(link, { type, flags, envelope: envelopeBytes ?? written, payload: content }) }
}
