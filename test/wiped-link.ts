/**
 * A link that is opened and closed, and how often its keys stand in memory, as JSON: of one that is `open`, or else of one
 * that is closed. Not both, because looking itself reads the keys, and may leave what it read.
 */
import { CipherState } from '../lib/identity/cipher-state.ts'
import { Mode } from '../protocol/constants.ts'
import { Needle } from './memory-scan.ts'
import { VirtualCluster } from './virtual-cluster.ts'

const needles: Needle[] = []
const original = Reflect.get(CipherState.prototype, 'initializeKey') as (this: CipherState, key: Uint8Array) => void
CipherState.prototype.initializeKey = function (key) {
  needles.push(new Needle(key))
  original.call(this, key)
}
const found = (): number[] => needles.map((needle) => needle.count()).filter((count) => count > 0)

const cluster = new VirtualCluster({ seed: 1, mode: Mode.noise })
const { broker } = cluster.broker('b1')
const node = await cluster.linkedNode('node', ['b1'])
if (process.argv[2] !== 'open') {
  await node.close()
  await cluster.net.run(5)
  broker.close()
}
process.stdout.write(JSON.stringify({ keys: needles.length, found: found() }))
