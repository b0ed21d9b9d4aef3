import net from 'node:net'
import { HANDSHAKE_HEADER_BYTES, HandshakeKind } from '../../../protocol/constants.ts'
import type { ErrorCode } from '../../../protocol/errors.ts'
import { decodeRefusal } from '../../../protocol/preamble.ts'
import { Failure, shown } from './failure.ts'

/** How long anything that must come may take: more than any deadline of SPEC 11.1 that a case does not wait for. */
export const PATIENCE_MS = 4_000
/** A judge that keeps all that comes would be a victim of what it judges. */
const KEPT_BYTES_MAX = 16 * 1_048_576

/** A condition that somebody else's events may make true. */
export class Changes {
  readonly #waiting = new Set<() => void>()

  tell(): void {
    for (const wake of this.#waiting) wake()
  }

  /** @returns whether it became true in time */
  async until(condition: () => boolean, patienceMs: number): Promise<boolean> {
    const deadlineMs = performance.now() + patienceMs
    while (!condition()) {
      const leftMs = deadlineMs - performance.now()
      if (leftMs <= 0) return false
      await new Promise<void>((resolve) => {
        const done = (): void => {
          clearTimeout(timer)
          this.#waiting.delete(done)
          resolve()
        }
        // Infinity is no time that a timer knows.
        const timer = leftMs === Infinity ? undefined : setTimeout(done, leftMs)
        this.#waiting.add(done)
      })
    }
    return true
  }
}

/** One connection as bytes, either way: what a case sends may break any rule. */
export class Wire {
  readonly socket: net.Socket
  readonly changes: Changes = new Changes()
  #received: Buffer[] = []
  #have = 0
  /** Nothing more comes. */
  ended = false
  /** It ended by a reset, or was cut on the way: what is told then may be lost. */
  reset = false

  constructor(socket: net.Socket) {
    this.socket = socket
    socket.setNoDelay(true)
    socket.on('data', (chunk: Buffer) => {
      this.#received.push(chunk)
      this.#have += chunk.length
      if (this.#have > KEPT_BYTES_MAX) socket.destroy()
      this.changes.tell()
    })
    socket.on('error', () => {
      this.reset = true
      this.#over()
    })
    socket.on('end', () => this.#over())
    socket.on('close', () => this.#over())
  }

  #over(): void {
    this.ended = true
    this.changes.tell()
  }

  static dial(host: string, port: number): Promise<Wire> {
    return new Promise((resolve, reject) => {
      const socket = net.connect({ host, port, timeout: PATIENCE_MS })
      const refuse = (why: string): void => {
        socket.destroy()
        reject(new Failure(`a connection to ${host}:${port}`, why))
      }
      const fail = (error: Error): void => refuse(error.message)
      socket.once('error', fail)
      socket.once('timeout', () => refuse('no answer'))
      socket.once('connect', () => {
        socket.setTimeout(0)
        socket.removeAllListeners('timeout')
        const wire = new Wire(socket)
        socket.off('error', fail)
        resolve(wire)
      })
    })
  }

  get have(): number {
    return this.#have
  }

  send(...parts: Uint8Array[]): void {
    if (!this.socket.destroyed && !this.socket.writableEnded) this.socket.write(Buffer.concat(parts))
  }

  /** Waits until so many bytes are there, without taking them. */
  hasBytes(bytes: number, patienceMs: number = PATIENCE_MS): Promise<boolean> {
    return this.changes.until(() => this.#have >= bytes || this.ended, patienceMs).then(() => this.#have >= bytes)
  }

  /** The next bytes, so many. @throws Failure when they do not come */
  async take(bytes: number, what: string): Promise<Buffer> {
    if (!(await this.hasBytes(bytes))) throw new Failure(what, this.#seen())
    return this.takeNow(bytes)
  }

  takeNow(bytes: number): Buffer {
    const all = Buffer.concat(this.#received)
    const rest = all.subarray(bytes)
    this.#received = rest.length === 0 ? [] : [rest]
    this.#have = rest.length
    return Buffer.from(all.subarray(0, bytes))
  }

  #seen(): string {
    const bytes = Buffer.concat(this.#received)
    const what = bytes.length === 0 ? 'nothing' : shown(bytes)
    return this.ended ? `${what}, then the end of the connection` : `${what} within ${PATIENCE_MS} ms`
  }

  // --- what a handshake may bring

  async message(what: string): Promise<{ kind: number; body: Buffer }> {
    const header = await this.take(HANDSHAKE_HEADER_BYTES, what)
    return { kind: header[0] as number, body: await this.take(header.readUInt16BE(1), what) }
  }

  /** @throws Failure unless a REFUSAL with this code comes, and then the end */
  async refused(code: ErrorCode): Promise<{ versionLowest: number; versionHighest: number }> {
    const wanted = `REFUSAL with ${code}, then the end of the connection`
    const { kind, body } = await this.message(wanted)
    if (kind !== HandshakeKind.REFUSAL || body.length < 3)
      throw new Failure(wanted, `a handshake message of kind ${kind} with ${body.length} bytes`)
    const refusal = decodeRefusal(body)
    if (refusal.code !== code) throw new Failure(wanted, `REFUSAL with ${refusal.code}`)
    await this.over(wanted)
    return refusal
  }

  /** @throws Failure unless the connection ends without a byte */
  async silentEnd(patienceMs: number = PATIENCE_MS): Promise<void> {
    const wanted = 'the end of the connection without an answer'
    await this.over(wanted, patienceMs)
    if (this.#have > 0) throw new Failure(wanted, this.#seen())
  }

  async over(wanted: string, patienceMs: number = PATIENCE_MS): Promise<void> {
    if (!(await this.changes.until(() => this.ended, patienceMs)))
      throw new Failure(wanted, `the connection is still open after ${patienceMs} ms`)
  }

  close(): void {
    this.socket.destroy()
  }
}
