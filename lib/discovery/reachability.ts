import type { Address } from '../../protocol/control.ts'

const KEPT_MAX = 4_096

/**
 * Which of a broker's addresses to try first. An address of another network cannot be told from one of this network
 * but by trying, so what failed goes last, and what once led there first.
 */
export class Reachability {
  /** Failures in a row by `host:port`; 0 is known to lead somewhere. */
  readonly #failures = new Map<string, number>()

  order(addresses: readonly Address[]): Address[] {
    const rank = (address: Address): number => {
      const failures = this.#failures.get(keyOf(address))
      if (failures === 0) return -1
      // A zone names a network that this side may not be in.
      return (failures ?? 0) * 2 + (address.zone === '' ? 0 : 1)
    }
    return addresses.toSorted((a, b) => rank(a) - rank(b))
  }

  reached(address: { host: string; port: number }): void {
    this.#keep(keyOf(address), 0)
  }

  failed(address: { host: string; port: number }): void {
    const key = keyOf(address)
    this.#keep(key, (this.#failures.get(key) ?? 0) + 1)
  }

  #keep(key: string, failures: number): void {
    // Taken out first, so that the one that was not used for longest makes place.
    this.#failures.delete(key)
    if (this.#failures.size >= KEPT_MAX) {
      const [oldest] = this.#failures.keys()
      this.#failures.delete(oldest as string)
    }
    this.#failures.set(key, failures)
  }
}

const keyOf = ({ host, port }: { host: string; port: number }): string => `${host}:${port}`
