import type { NodeLink } from './node-link.ts'

/**
 * Which broker gets the next attempt: the one that the caller named, if it is usable; else the cheaper of two taken at
 * random (Mitzenmacher, "The power of two choices", 2001). Always the cheapest would send every node's work to the
 * broker that was last the fastest; one at random would not notice a slow one.
 *
 * `avoid` holds links that this request should not use again yet; they are taken only if there is no other.
 */
export function chooseLink(
  links: readonly NodeLink[],
  named: string | null,
  avoid: readonly NodeLink[],
  chance: () => number,
): NodeLink | null {
  if (named !== null) {
    const link = links.find((candidate) => candidate.isNamed(named) && candidate.usable && !avoid.includes(candidate))
    if (link !== undefined) return link
  }
  return (
    cheaperOfTwo(links, (link) => link.usable && !link.suspect && !avoid.includes(link), chance) ??
    cheaperOfTwo(links, (link) => link.usable && !avoid.includes(link), chance) ??
    cheaperOfTwo(links, (link) => link.usable, chance)
  )
}

function cheaperOfTwo(
  links: readonly NodeLink[],
  wanted: (link: NodeLink) => boolean,
  chance: () => number,
): NodeLink | null {
  let count = 0
  for (const link of links) if (wanted(link)) count += 1
  if (count === 0) return null
  const first = Math.floor(chance() * count)
  const second = count === 1 ? first : (first + 1 + Math.floor(chance() * (count - 1))) % count
  let index = 0
  let best: NodeLink | null = null
  for (const link of links) {
    if (!wanted(link)) continue
    if ((index === first || index === second) && (best === null || link.cost < best.cost)) best = link
    index += 1
  }
  return best
}
