/**
 * A node in a process without free file descriptors, for `catalogue-machine.test.ts`, which starts it under a low limit.
 * It tells what came of each step, as one JSON object.
 */
import { closeSync, openSync } from 'node:fs'
import { connect } from '../lib/transport/connect.ts'
import type { ConnectOptions } from '../lib/transport/connect.ts'
import { readIdentity } from '../lib/transport/identity-files.ts'

const DESCRIPTORS_MAX = 4_096

/** Takes every descriptor that is left. */
function starve(): number[] {
  const taken: number[] = []
  while (taken.length < DESCRIPTORS_MAX) {
    try {
      taken.push(openSync('/dev/null', 'r'))
    } catch (error) {
      if (error instanceof Error && 'code' in error && error.code === 'EMFILE') return taken
      throw error
    }
  }
  throw new Error(`no limit before ${DESCRIPTORS_MAX} descriptors`)
}

const codeOf = (error: unknown): string => String((error as { code?: unknown }).code)

const [path = '', broker = ''] = process.argv.slice(2)
const options: ConnectOptions = { identity: await readIdentity(path), brokers: [broker], mode: 'plain' }
// What has to be read for the first time is read while it can be.
const warm = await connect(options)
await warm.close()
// Its socket lingers for its last words, and would give its descriptor back later.
while (process.getActiveResourcesInfo().includes('TCPSocketWrap'))
  await new Promise((resolve) => setTimeout(resolve, 10))

let taken = starve()
const refused = await connect({ ...options, connectTimeoutMs: 600 }).then((linked) => linked.close(), codeOf)
for (const descriptor of taken) closeSync(descriptor)

const node = await connect(options)
const before = await node.request('echo', 'before').then((reply) => reply.payload.toString(), codeOf)
taken = starve()
const during = await node.request('echo', 'during').then((reply) => reply.payload.toString(), codeOf)
for (const descriptor of taken) closeSync(descriptor)
const after = await node.request('echo', 'after').then((reply) => reply.payload.toString(), codeOf)
await node.close()
process.stdout.write(JSON.stringify({ refused: refused ?? 'linked', before, during, after, taken: taken.length }))
