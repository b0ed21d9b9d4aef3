import { FrameType, ID_BYTES } from '../../protocol/constants.ts'
import { encodeReject } from '../../protocol/control.ts'
import type { ErrorCode } from '../../protocol/errors.ts'
import { measureEnvelope, writeEnvelope } from '../../protocol/envelope.ts'
import type { EnvelopeParts } from '../../protocol/envelope.ts'
import type { BrokerLink } from './broker-link.ts'

const EMPTY = Buffer.alloc(0)

/**
 * Frames that the broker itself writes about a request: rejections, and replies of its reserved services. Everything
 * else that it sends is forwarded as it came.
 */
export class Answers {
  readonly #sender: Buffer
  readonly #id: Buffer = Buffer.alloc(ID_BYTES)
  #scratch: Buffer = Buffer.alloc(256)

  /** `session`: 8 unpredictable bytes, the first half of this broker's ids. */
  constructor(sender: Buffer, session: Uint8Array) {
    this.#sender = sender
    this.#id.set(session)
  }

  reject(client: BrokerLink, originalId: Uint8Array, code: ErrorCode, message: string, retryAfterMs: number): void {
    this.#send(client, FrameType.REJECT, originalId, encodeReject({ code, retryAfterMs, message }))
  }

  reply(client: BrokerLink, originalId: Uint8Array, payload: Buffer): void {
    this.#send(client, FrameType.REPLY, originalId, payload)
  }

  #send(client: BrokerLink, type: number, originalId: Uint8Array, payload: Buffer): void {
    this.#id.writeBigUInt64BE(this.#id.readBigUInt64BE(8) + 1n, 8)
    const parts: EnvelopeParts = {
      receiver: client.peer?.addressBytes ?? EMPTY,
      sender: this.#sender,
      retryCount: 0,
      possibleDuplicate: false,
      timeToLive: 0,
      watermark: 0,
      delivery: 0,
      headers: [],
    }
    const bytes = measureEnvelope(parts)
    if (this.#scratch.length < bytes) this.#scratch = Buffer.alloc(bytes)
    const end = writeEnvelope(this.#scratch, 0, this.#id, originalId, parts)
    client.link.sendFrame(type, 0, this.#scratch, 0, end, payload, 0, payload.length)
  }
}
