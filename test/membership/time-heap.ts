type Run = () => void

/** Events by time: a binary heap over two arrays, so that ten thousand brokers make no garbage of it. */
export class TimeHeap {
  readonly #times: number[] = []
  readonly #orders: number[] = []
  readonly #runs: Run[] = []
  #order = 0

  nextMs(): number {
    return this.#times.length === 0 ? Infinity : (this.#times[0] as number)
  }

  push(atMs: number, run: Run): void {
    const order = this.#order++
    let at = this.#times.length
    this.#times.push(atMs)
    this.#orders.push(order)
    this.#runs.push(run)
    while (at > 0) {
      const parent = (at - 1) >> 1
      if (!this.#before(at, parent)) break
      this.#swap(at, parent)
      at = parent
    }
  }

  pop(): Run {
    const first = this.#runs[0] as Run
    const last = this.#times.length - 1
    this.#swap(0, last)
    this.#times.pop()
    this.#orders.pop()
    this.#runs.pop()
    let at = 0
    for (;;) {
      let child = 2 * at + 1
      if (child >= last) break
      if (child + 1 < last && this.#before(child + 1, child)) child += 1
      if (!this.#before(child, at)) break
      this.#swap(at, child)
      at = child
    }
    return first
  }

  #before(one: number, other: number): boolean {
    const difference = (this.#times[one] as number) - (this.#times[other] as number)
    return difference < 0 || (difference === 0 && (this.#orders[one] as number) < (this.#orders[other] as number))
  }

  #swap(one: number, other: number): void {
    for (const list of [this.#times, this.#orders, this.#runs] as unknown[][]) {
      const item = list[one]
      list[one] = list[other]
      list[other] = item
    }
  }
}
