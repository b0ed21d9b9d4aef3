/**
 * The floors: what Node's own sockets cost for the same bytes without any meaning in them. Each is written as leanly as
 * a good engineer would: no delay, one write for all that a read brought, requests sent out of one prepared block.
 * There is no back-pressure, which would cost more: what is out bounds what can wait.
 */
import net from 'node:net'
import { once } from 'node:events'
import { Window } from '../workload.ts'
import type { Run, RunOutcome } from '../workload.ts'
import type { End } from './end.ts'

const HOST = '127.0.0.1'

async function listen(connected: (socket: net.Socket) => void): Promise<End> {
  const server = net.createServer({ noDelay: true }, connected)
  server.listen(0, HOST)
  await once(server, 'listening')
  return { ready: { port: (server.address() as net.AddressInfo).port }, verbs: {} }
}

/** A peer that leaves ends the pair; nothing else is to be told. */
function endTogether(one: net.Socket, other: net.Socket): void {
  one.on('error', () => other.destroy())
  one.on('close', () => other.destroy())
}

export function startRawEcho(): Promise<End> {
  return listen((socket) => {
    socket.on('data', (chunk) => socket.write(chunk))
    endTogether(socket, socket)
  })
}

export function startRawRelay({ to }: { to: number }): Promise<End> {
  return listen((near) => {
    const far = net.connect({ host: HOST, port: to, noDelay: true })
    near.on('data', (chunk) => far.write(chunk))
    far.on('data', (chunk) => near.write(chunk))
    endTogether(near, far)
    endTogether(far, near)
  })
}

export async function startRawClient({ to }: { to: number }): Promise<End> {
  const socket = net.connect({ host: HOST, port: to, noDelay: true })
  await once(socket, 'connect')
  const run = async (wanted: Run): Promise<RunOutcome> => {
    const { payloadBytes, outstanding } = wanted
    const block = Buffer.alloc(payloadBytes * outstanding, 7)
    const window = new Window(wanted, (count) => void socket.write(block.subarray(0, count * payloadBytes)))
    let bytes = 0
    const received = (chunk: Buffer): void => {
      bytes += chunk.length
      const whole = Math.floor(bytes / payloadBytes)
      if (whole === 0) return
      bytes -= whole * payloadBytes
      window.replied(whole)
    }
    socket.on('data', received)
    try {
      return await window.start()
    } finally {
      socket.off('data', received)
    }
  }
  return { ready: {}, verbs: { run } }
}
