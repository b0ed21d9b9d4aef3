/** A figure of several rounds: the middle one, and how far the others are from it. */
export interface Figure {
  median: number
  low: number
  high: number
}

export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b)
  const middle = sorted.length >> 1
  if (sorted.length % 2 === 1) return sorted[middle] as number
  return sorted.length === 0 ? Number.NaN : ((sorted[middle - 1] as number) + (sorted[middle] as number)) / 2
}

export function figureOf(values: readonly number[]): Figure {
  return { median: median(values), low: Math.min(...values), high: Math.max(...values) }
}

/** Each round's value against the reference's in the same round: what moves both does not move the ratio. */
export function ratioOf(values: readonly number[], reference: readonly number[]): Figure {
  return figureOf(values.map((value, round) => value / (reference[round] ?? Number.NaN)))
}

/** The straight line that fits best: `y = offset + slope * x`. */
export function lineThrough(points: readonly { x: number; y: number }[]): { offset: number; slope: number } {
  const mean = (pick: (point: { x: number; y: number }) => number): number =>
    points.reduce((sum, point) => sum + pick(point), 0) / points.length
  const meanX = mean(({ x }) => x)
  const meanY = mean(({ y }) => y)
  let over = 0
  let under = 0
  for (const { x, y } of points) {
    over += (x - meanX) * (y - meanY)
    under += (x - meanX) ** 2
  }
  const slope = under === 0 ? 0 : over / under
  return { offset: meanY - slope * meanX, slope }
}
