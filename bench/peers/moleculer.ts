/** Moleculer over its own TCP transporter: the two ends talk directly, there is no broker process. */
import type { End } from '../ends/end.ts'
import { parts } from '../systems.ts'
import { askInLanes } from '../workload.ts'
import type { Run, RunOutcome } from '../workload.ts'
import { loadPackage } from './packages.ts'
import { freePort, lengthOf } from './peer.ts'
import type { Peer, PeerEnds } from './peer.ts'

interface ServiceBroker {
  createService(schema: object): unknown
  start(): Promise<void>
  call(action: string, parameters: object): Promise<Uint8Array>
  waitForServices(name: string, timeoutMs: number): Promise<unknown>
}

interface Moleculer {
  ServiceBroker: new (options: object) => ServiceBroker
}

interface EndSettings {
  port: number
  urls: readonly string[]
}

async function broker(nodeID: string, { port, urls }: EndSettings): Promise<ServiceBroker> {
  const { ServiceBroker } = await loadPackage<Moleculer>('moleculer')
  const options = { host: '127.0.0.1', port, urls, udpDiscovery: false, useHostname: false }
  return new ServiceBroker({
    nodeID,
    logger: false,
    serializer: 'CBOR',
    transporter: { type: 'TCP', options },
  })
}

async function worker(settings: EndSettings): Promise<End> {
  const node = await broker('worker', settings)
  const run = (context: { params: { payload: Uint8Array } }): Uint8Array => context.params.payload
  node.createService({ name: 'echo', actions: { run } })
  await node.start()
  return { ready: {}, verbs: {} }
}

async function client(settings: EndSettings): Promise<End> {
  const node = await broker('client', settings)
  await node.start()
  await node.waitForServices('echo', 20_000)
  const ask = (payload: Buffer): Promise<Uint8Array> => node.call('echo.run', { payload })
  return { ready: {}, verbs: { run: (run: Run): Promise<RunOutcome> => askInLanes({ ask, lengthOf }, run) } }
}

export const moleculerEnds: PeerEnds = { 'moleculer-worker': worker, 'moleculer-client': client }

export const moleculerPeers: readonly Peer[] = [
  {
    name: 'moleculer TCP, no broker',
    settings:
      'TCP transporter with both addresses given, CBOR (it carries bytes as they are); no process between the ends',
    needs: {},
    start: async (starter) => {
      const ports = { worker: await freePort(), client: await freePort() }
      const urls = [`127.0.0.1:${ports.worker}/worker`, `127.0.0.1:${ports.client}/client`]
      const work = await starter.end('moleculer-worker', { port: ports.worker, urls })
      const call = await starter.end('moleculer-client', { port: ports.client, urls })
      return { name: 'moleculer TCP, no broker', client: call, parts: parts({ client: call, worker: work }) }
    },
  },
]
