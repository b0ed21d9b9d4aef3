/** How many events wait for a slow reader; the oldest are dropped first, because the newest tell the state. */
const EVENTS_WAITING_MAX = 1_024

/**
 * A stream of status events: any number of readers, each an async iterator with a bounded queue of its own.
 * Publishing costs nothing while nobody reads.
 */
export class StatusFeed<Event> implements AsyncIterable<Event> {
  readonly #readers = new Set<Reader<Event>>()
  #ended = false

  publish(event: Event): void {
    for (const reader of this.#readers) reader.push(event)
  }

  /** Ends every reader after what it has waiting. */
  end(): void {
    this.#ended = true
    for (const reader of this.#readers) reader.end()
    this.#readers.clear()
  }

  [Symbol.asyncIterator](): AsyncIterator<Event, undefined> {
    const reader = new Reader<Event>(() => this.#readers.delete(reader))
    if (this.#ended) reader.end()
    else this.#readers.add(reader)
    return reader
  }
}

class Reader<Event> implements AsyncIterator<Event, undefined> {
  readonly #waiting: Event[] = []
  readonly #left: () => void
  #resolve: ((result: IteratorResult<Event, undefined>) => void) | null = null
  #ended = false

  constructor(left: () => void) {
    this.#left = left
  }

  push(event: Event): void {
    const resolve = this.#resolve
    this.#resolve = null
    if (resolve !== null) resolve({ value: event, done: false })
    else if (this.#waiting.push(event) > EVENTS_WAITING_MAX) this.#waiting.shift()
  }

  end(): void {
    this.#ended = true
    this.#resolve?.({ value: undefined, done: true })
    this.#resolve = null
  }

  next(): Promise<IteratorResult<Event, undefined>> {
    const event = this.#waiting.shift()
    if (event !== undefined) return Promise.resolve({ value: event, done: false })
    if (this.#ended) return Promise.resolve({ value: undefined, done: true })
    return new Promise((resolve) => {
      this.#resolve = resolve
    })
  }

  return(): Promise<IteratorResult<Event, undefined>> {
    this.#left()
    this.end()
    return Promise.resolve({ value: undefined, done: true })
  }
}
