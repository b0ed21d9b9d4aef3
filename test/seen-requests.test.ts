import t from 'tap'
import { encodeEnvelope } from '../protocol/envelope.ts'
import { Route } from '../protocol/route.ts'
import { SeenRequests } from '../lib/node/seen-requests.ts'

// What a worker remembers (SPEC 6.5), where only its bounds are of interest; `work.test.ts` has what it is for.

t.test('the sessions that a client may name are bounded; one that works is kept', (t) => {
  const destination = (bytes: Buffer): never => ({ bytes }) as never
  const seen = new SeenRequests<string>({ destination, forgotten: () => {}, seed: 1 })
  const route = new Route()
  const session = (number: number): ReturnType<typeof seen.session> => {
    const id = Buffer.alloc(16)
    id.writeUInt32BE(number)
    const parts = { originalId: Buffer.alloc(16), receiver: 'echo', sender: 'client/00000001', retryCount: 0 }
    const rest = { possibleDuplicate: false, timeToLive: 1, watermark: 0, delivery: 0, headers: [] }
    const bytes = encodeEnvelope({ id, ...parts, ...rest })
    route.read(bytes, 0, bytes.length)
    return seen.session(bytes, 0, route)
  }
  const working = session(0)
  seen.begin(working, 1, 'runs')
  for (let number = 1; number < 40_000; number++) session(number)
  t.ok(seen.sessions <= 16_384, `${seen.sessions} sessions`)
  t.equal(session(0), working)
  t.end()
})
