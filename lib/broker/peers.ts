import type { BrokerLink } from './broker-link.ts'

/** The links to other brokers, one to each. */
export class Peers {
  readonly #own: string
  readonly #linked = new Map<string, BrokerLink>()

  /** `own`: this broker's address. */
  constructor(own: string) {
    this.#own = own
  }

  get(address: string): BrokerLink | undefined {
    return this.#linked.get(address)
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
      const smallerDials = this.#own < link.address
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
}
