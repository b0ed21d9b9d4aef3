/** gRPC with grpc-js: unary calls from client to worker, without a broker between them and without TLS. */
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { End } from '../ends/end.ts'
import { parts } from '../systems.ts'
import { askInLanes } from '../workload.ts'
import type { Run, RunOutcome } from '../workload.ts'
import { loadPackage } from './packages.ts'
import type { Peer, PeerEnds } from './peer.ts'

interface Body {
  payload: Buffer
}

type Reply = (error: Error | null, body?: Body) => void

interface Client {
  run(body: Body, replied: Reply): void
}

interface Server {
  addService(service: object, handlers: object): void
  bindAsync(address: string, credentials: object, bound: (error: Error | null, port: number) => void): void
}

interface Grpc {
  Server: new () => Server
  ServerCredentials: { createInsecure(): object }
  credentials: { createInsecure(): object }
  loadPackageDefinition(definition: object): {
    Echo: (new (address: string, credentials: object) => Client) & { service: object }
  }
}

interface Loader {
  loadSync(path: string): object
}

const PROTO = `syntax = "proto3";
message Body { bytes payload = 1; }
service Echo { rpc Run (Body) returns (Body); }
`

async function load(proto: string): Promise<{ grpc: Grpc; Echo: ReturnType<Grpc['loadPackageDefinition']>['Echo'] }> {
  const grpc = await loadPackage<Grpc>('@grpc/grpc-js')
  const loader = await loadPackage<Loader>('@grpc/proto-loader')
  return { grpc, Echo: grpc.loadPackageDefinition(loader.loadSync(proto)).Echo }
}

async function worker({ proto }: { proto: string }): Promise<End> {
  const { grpc, Echo } = await load(proto)
  const server = new grpc.Server()
  server.addService(Echo.service, {
    Run: ({ request }: { request: Body }, reply: Reply) => reply(null, { payload: request.payload }),
  })
  const port = await new Promise<number>((resolve, reject) =>
    server.bindAsync('127.0.0.1:0', grpc.ServerCredentials.createInsecure(), (error, bound) =>
      error === null ? resolve(bound) : reject(error),
    ),
  )
  return { ready: { port }, verbs: {} }
}

async function client({ proto, port }: { proto: string; port: number }): Promise<End> {
  const { grpc, Echo } = await load(proto)
  const stub = new Echo(`127.0.0.1:${port}`, grpc.credentials.createInsecure())
  const ask = (payload: Buffer): Promise<Body> =>
    new Promise((resolve, reject) =>
      stub.run({ payload }, (error, body) =>
        body === undefined ? reject(error ?? new Error('no reply')) : resolve(body),
      ),
    )
  const lengthOf = ({ payload }: Body): number => payload.length
  return { ready: {}, verbs: { run: (run: Run): Promise<RunOutcome> => askInLanes({ ask, lengthOf }, run) } }
}

export const grpcEnds: PeerEnds = { 'grpc-worker': worker, 'grpc-client': client }

export const grpcPeers: readonly Peer[] = [
  {
    name: 'grpc, no broker',
    settings: 'grpc-js, unary calls on one channel, proto-loader, no TLS; no process between the ends',
    needs: {},
    start: async (starter) => {
      const proto = join(starter.folder, 'echo.proto')
      writeFileSync(proto, PROTO)
      const work = await starter.end('grpc-worker', { proto })
      const call = await starter.end('grpc-client', { proto, port: work.ready['port'] })
      return { name: 'grpc, no broker', client: call, parts: parts({ client: call, worker: work }) }
    },
  },
]
