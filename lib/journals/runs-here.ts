import type { CompletionKey } from '../node/completion-journal.ts'

/** The marked runs that go on in this process: they keep their sessions alive however long they take. */
export class RunsHere {
  readonly #counters = new Map<string, Set<number>>()

  add({ client, counter }: CompletionKey): void {
    const counters = this.#counters.get(client)
    if (counters === undefined) this.#counters.set(client, new Set([counter]))
    else counters.add(counter)
  }

  delete({ client, counter }: CompletionKey): void {
    const counters = this.#counters.get(client)
    if (counters?.delete(counter) === true && counters.size === 0) this.#counters.delete(client)
  }

  has(client: string): boolean {
    return this.#counters.has(client)
  }

  clients(): string[] {
    return [...this.#counters.keys()]
  }
}
