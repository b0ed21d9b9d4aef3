/** A worker that echoes, or a client that asks in a loop, for `adaptnet conformance` to judge: subject, address, identity. */
import { connect } from '../lib/transport/connect.ts'
import type { Node } from '../lib/node/node.ts'

const [subject, broker, identity] = process.argv.slice(2) as [string, string, string]
const TRIES_MAX = 20

/** A broker that is made wrong on purpose may refuse the first link: then another one is tried. */
async function linked(): Promise<Node> {
  for (let tries = 1; ; tries++)
    try {
      return await connect({ brokers: [broker], identity })
    } catch (error) {
      if (tries === TRIES_MAX) throw error
    }
}

const node = await linked()
if (subject === 'worker') await node.serve('echo', ({ payload }) => payload)
else
  for (let count = 0; ; count++)
    await node
      .request('echo', `payload ${count}`, { timeoutMs: 500, retries: 5, deadlineMs: 10_000 })
      // What becomes of a request is for the judge to say.
      .catch(() => null)
