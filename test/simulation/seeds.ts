/**
 * Seeds that once broke a rule, and what they found: they are run for ever. A seed leads the same way only as long as the
 * plans are drawn as they were, so what it found is said in words too.
 */
export const REGRESSION_SEEDS: readonly { seed: number; found: string }[] = [
  { seed: 5, found: 'a retry that joined a waiting request left the mark of a possible duplicate behind' },
  { seed: 59, found: 'a slow transactional run completed what its caller had stopped waiting for: a second effect' },
  { seed: 61, found: 'frames that never left a link given up for its silence are sent again without pay' },
  { seed: 327, found: 'a worker kept the answer of a request whose caller had given up while it ran' },
  { seed: 1_114, found: 'exactly-once failed at once when the broker that was asked for journals had no worker yet' },
  { seed: 1_200, found: 'workers kept errors that nobody acknowledged' },
]
