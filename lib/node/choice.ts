import type { NodeLink } from './node-link.ts'

/**
 * Which broker gets the next attempt: the one that the caller named, if it is usable; else the cheaper of two taken at
 * random (Mitzenmacher, "The power of two choices", 2001). Always the cheapest would send every node's work to the
 * broker that was last the fastest; one at random would not notice a slow one.
 *
 * `avoid` holds links that this request should not use again yet; they are taken only if there is no other, and a
 * suspect one, one that other brokers suspect, or one whose broker has just said that nobody serves this there, only after those that are not.
 */
export function chooseLink(
  links: readonly NodeLink[],
  named: string | null,
  avoid: readonly NodeLink[],
  service: string,
  nowMs: number,
  chance: () => number,
): NodeLink | null {
  if (named !== null)
    for (const link of links) if (link.usable && link.isNamed(named) && !avoid.includes(link)) return link
  let highest = NOT_USABLE
  for (const link of links) highest = Math.max(highest, rankOf(link, avoid, service, nowMs))
  return highest === NOT_USABLE ? null : cheaperOfTwo(links, highest, avoid, service, nowMs, chance)
}

const NOT_USABLE = -1

/** The best links first: usable and wanted, then the suspect among them, then any. */
function rankOf(link: NodeLink, avoid: readonly NodeLink[], service: string, nowMs: number): number {
  if (!link.usable) return NOT_USABLE
  if (avoid.length > 0 && avoid.includes(link)) return 0
  return link.suspect || link.doubted || link.isUnserved(service, nowMs) ? 1 : 2
}

/** Of the links of this rank two at random, and of these the cheaper one. */
function cheaperOfTwo(
  links: readonly NodeLink[],
  rank: number,
  avoid: readonly NodeLink[],
  service: string,
  nowMs: number,
  chance: () => number,
): NodeLink | null {
  let count = 0
  for (const link of links) if (rankOf(link, avoid, service, nowMs) === rank) count += 1
  const first = count <= 2 ? 0 : Math.floor(chance() * count)
  const second = count <= 2 ? count - 1 : (first + 1 + Math.floor(chance() * (count - 1))) % count
  let index = 0
  let best: NodeLink | null = null
  for (const link of links) {
    if (rankOf(link, avoid, service, nowMs) !== rank) continue
    // Of two that cost the same either may be taken: the first of the list would get all the work of an idle net.
    if (index === first || index === second)
      if (best === null || link.cost < best.cost || (link.cost === best.cost && chance() < 0.5)) best = link
    index += 1
  }
  return best
}
