/** SPEC 6.6. A journal in memory, which workers of one process may share: its records are named by client, session and counter. */
export interface Result {
  failed: boolean
  payload: Buffer
}

/** `busy`: begun by a process that may live; `gone`: by one that certainly does not. */
export type Begun = 'begun' | 'busy' | 'gone' | 'expired' | Result

interface Session {
  watermark: number
  records: Map<number, Result | 'begun'>
}

export class Journal {
  readonly name: string
  readonly #sessions = new Map<string, Session>()

  constructor(name: string) {
    this.name = name
  }

  /** Nobody waits any more for what is below; what has begun there may still end. */
  heard(session: string, watermark: number): void {
    const known = this.#session(session)
    known.watermark = Math.max(known.watermark, watermark)
    for (const counter of known.records.keys()) if (counter < known.watermark) known.records.delete(counter)
  }

  /** Records that a run has begun, in one step with the question whether one has. Throws when it cannot be asked. */
  begin(session: string, counter: number): Begun {
    const { records, watermark } = this.#session(session)
    const known = records.get(counter)
    if (known === 'begun') return 'busy'
    if (known !== undefined) return known
    if (counter < watermark) return 'expired'
    records.set(counter, 'begun')
    return 'begun'
  }

  /** False when it is refused: another run's record may be gone. */
  complete(session: string, counter: number, result: Result): boolean {
    const { records, watermark } = this.#session(session)
    if (counter < watermark || records.get(counter) !== 'begun') return false
    records.set(counter, result)
    return true
  }

  #session(name: string): Session {
    const session: Session = this.#sessions.get(name) ?? { watermark: 0, records: new Map() }
    this.#sessions.set(name, session)
    return session
  }
}
