import { ADDRESSES_MAX, BROKERS_MAX, BrokerStateNumber } from '../../protocol/constants.ts'
import { addressOf } from '../../protocol/control.ts'
import type { Address, BrokerEntry } from '../../protocol/control.ts'
import type { Candidates } from '../discovery/candidates.ts'
import type { BrokerLink } from './broker-link.ts'

/**
 * The other brokers, as far as links tell: a broker is on the list while it is linked. Each broker tells its list to
 * everyone linked; who hears of a broker that it has no link to dials it.
 */
export class Peers {
  readonly #own: BrokerEntry
  readonly #linked = new Map<string, BrokerLink>()

  constructor(own: BrokerEntry) {
    this.#own = own
  }

  get ownAddress(): string {
    return addressOf(this.#own.name, this.#own.instance)
  }

  get own(): BrokerEntry {
    return this.#own
  }

  advertise(addresses: Address[]): void {
    this.#own.addresses = addresses.slice(0, ADDRESSES_MAX)
  }

  drain(): void {
    this.#own.state = BrokerStateNumber.draining
  }

  links(): Iterable<BrokerLink> {
    return this.#linked.values()
  }

  /**
   * Decides what to do with a new link to a broker. When two brokers dial each other at once, both keep the link that
   * the one with the smaller address dialled. Of two links that the peer dialled the later is kept: it dials again only
   * when it has lost the first.
   * @returns the link to close, if there are two
   */
  add(link: BrokerLink): BrokerLink | null {
    const earlier = this.#linked.get(link.address)
    if (earlier !== undefined && earlier !== link) {
      const smallerDials = this.ownAddress < link.address
      const sameDialler = link.link.dialler === earlier.link.dialler
      const better = sameDialler ? !link.link.dialler : link.link.dialler === smallerDials
      if (!better) return link
    }
    this.#linked.set(link.address, link)
    return earlier ?? null
  }

  remove(link: BrokerLink): boolean {
    return this.#linked.get(link.address) === link && this.#linked.delete(link.address)
  }

  list(): BrokerEntry[] {
    const entries = [this.#own]
    for (const { peer, link } of this.#linked.values()) {
      if (peer === null || entries.length >= BROKERS_MAX) continue
      entries.push({
        name: peer.certificate.name,
        instance: peer.hello.instance,
        state: link.draining ? BrokerStateNumber.draining : BrokerStateNumber.alive,
        addresses: peer.hello.addresses,
      })
    }
    return entries
  }

  /** Adds the addresses of brokers that a peer tells of and that are not linked. */
  learn(entries: readonly BrokerEntry[], candidates: Candidates, nowMs: number): void {
    for (const entry of entries) {
      const address = addressOf(entry.name, entry.instance)
      if (address === this.ownAddress || this.#linked.has(address) || entry.state >= BrokerStateNumber.draining)
        continue
      for (const { host, port } of entry.addresses) candidates.add(host, port, false, nowMs)
    }
  }
}
