import { Route } from '../../protocol/route.ts'

/** Payloads up to this size are copied when they are kept: a view would keep the whole chunk alive that they came in. */
const COPY_BYTES_MAX = 1_024

/** Up to this size a loop is as fast as a copy of a part, for which Node makes a view. */
const LOOP_BYTES_MAX = 96

/**
 * One received frame, as positions in the bytes of its record. There is one Frame per link, written anew for each frame:
 * whoever wants to keep something copies it, or keeps a view of the bytes, before the listener returns.
 */
export class Frame {
  type = 0
  flags = 0
  envelope: Buffer = Buffer.alloc(0)
  envelopeStart = 0
  envelopeEnd = 0
  /** The envelope's record, or for a RAW payload the same memory behind the sealed part. */
  payload: Buffer = Buffer.alloc(0)
  payloadStart = 0
  payloadEnd = 0
  /** Set by whoever keeps a view of the payload: the chunk's memory is then not read into again. */
  kept = false
  /** The envelope's route; read for frames that have an envelope. */
  readonly route: Route = new Route()

  /** The payload, valid until the listener returns. */
  payloadView(): Buffer {
    return this.payload.subarray(this.payloadStart, this.payloadEnd)
  }

  /** The payload, valid for as long as it is held. */
  keepPayload(): Buffer {
    const { payload, payloadStart, payloadEnd } = this
    const bytes = payloadEnd - payloadStart
    if (bytes >= COPY_BYTES_MAX) {
      this.kept = true
      return payload.subarray(payloadStart, payloadEnd)
    }
    const copy = Buffer.allocUnsafe(bytes)
    if (bytes > LOOP_BYTES_MAX) payload.copy(copy, 0, payloadStart, payloadEnd)
    else for (let index = 0; index < bytes; index++) copy[index] = payload[payloadStart + index] as number
    return copy
  }
}
