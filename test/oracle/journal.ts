/** SPEC 6.6. A journal in memory, which workers of one process may share: its records are named by client, session and counter. */
interface Result {
  failed: boolean
  payload: Buffer
}

export class Journal {
  readonly name: string
  readonly #records = new Map<string, Result | 'begun'>()

  constructor(name: string) {
    this.name = name
  }

  /** Records that a run has begun, in one step with the question whether one has. */
  begin(record: string, counter: number, watermark: number): 'begun' | 'busy' | 'expired' | Result {
    const known = this.#records.get(record)
    if (known === 'begun') return 'busy'
    if (known !== undefined) return known
    if (counter < watermark) return 'expired'
    this.#records.set(record, 'begun')
    return 'begun'
  }

  complete(record: string, result: Result): void {
    this.#records.set(record, result)
  }
}
