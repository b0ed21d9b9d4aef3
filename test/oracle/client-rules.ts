/** SPEC 3.3, 5.6 and 6.2. What a broker can see of a client that keeps its rules from attempt to attempt, and of one that does not. */
import { readEnvelope } from './envelope.ts'
import { Fault } from './fault.ts'
import type { Frame } from './frame.ts'

interface Attempt {
  retryCount: number
  possibleDuplicate: boolean
  receiver: string
  flags: number
  payload: Buffer
  /** Whether a worker was given it. */
  given: boolean
}

export class ClientRules {
  /** By id, of all brokers of this process: the next attempt goes to another one. */
  static readonly #attempts = new Map<string, Attempt>()
  /** Of one broker: requests of two links may overtake each other. */
  readonly #watermarks = new Map<string, number>()
  readonly #broken: string[]

  /** What is broken is added to the list: no rule of these closes a link. */
  constructor(broken: string[]) {
    this.#broken = broken
  }

  request(frame: Frame): void {
    try {
      this.#judge(frame)
    } catch (error) {
      // What cannot be read is for the worker to judge.
      if (!(error instanceof Fault)) throw error
    }
  }

  /** A worker was given the last attempt of this id. */
  given(id: Buffer): void {
    const last = ClientRules.#attempts.get(id.toString('hex'))
    if (last !== undefined) last.given = true
  }

  #judge(frame: Frame): void {
    const { id, retryCount, possibleDuplicate, receiver, watermark, sender } = readEnvelope(frame.envelope)
    const name = id.toString('hex')
    const session = `${sender} ${name.slice(0, 16)}`
    const expect = (holds: boolean, rule: string): void => {
      if (!holds) this.#broken.push(`${rule}: ${sender}, id ${name}, retry ${retryCount}`)
    }
    const known = this.#watermarks.get(session) ?? 0
    expect(watermark >= known, 'the watermark never falls')
    expect(BigInt(watermark) <= id.readBigUInt64BE(8), 'a request that is sent has not ended')
    this.#watermarks.set(session, Math.max(known, watermark))
    const last = ClientRules.#attempts.get(name)
    if (last !== undefined) {
      expect(retryCount > last.retryCount, 'the retry count counts up')
      expect(possibleDuplicate || !last.possibleDuplicate, 'once a possible duplicate, always one')
      expect(possibleDuplicate || !last.given, 'a worker may have had it')
      const same = receiver === last.receiver && frame.payload.equals(last.payload)
      expect(same || receiver !== last.receiver, 'the payload stays the same')
      expect(receiver === last.receiver || !possibleDuplicate, 'what may have run keeps its receiver')
      expect(
        (frame.flags & 2) === (last.flags & 2) || !possibleDuplicate,
        'what may have run stays sealed, or in the clear',
      )
    } else expect(retryCount > 0 || !possibleDuplicate, 'the first attempt is no duplicate')
    const { flags, payload } = frame
    ClientRules.#attempts.set(name, {
      retryCount,
      possibleDuplicate,
      receiver,
      flags,
      payload: Buffer.from(payload),
      given: false,
    })
  }
}
