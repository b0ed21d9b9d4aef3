import { FrameFlag, FrameType } from '../../protocol/constants.ts'
import { readU32 } from '../../protocol/frame.ts'
import { REPLY_SEAL_BYTES, REQUEST_SEAL_BYTES_MIN } from '../identity/sealing.ts'
import { AEAD_TAG_BYTES, DH_BYTES, XAEAD_NONCE_BYTES } from '../identity/sodium.ts'
import type { BodyPlace } from './annotate-body.ts'
import type { Take } from './capture.ts'

const EPOCH_BYTES = 4

/** Notes the parts of a payload that is sealed end to end (SPEC 5.6). False for one that is not. */
export function annotateSealed(bytes: Buffer, type: number, flags: number, place: BodyPlace, take: Take): boolean {
  const { start, end, depth } = place
  const request = type === FrameType.REQUEST
  if ((flags & FrameFlag.SEALED) === 0 || !(request || type === FrameType.REPLY)) return false
  const length = end - start
  if (length < (request ? REQUEST_SEAL_BYTES_MIN : REPLY_SEAL_BYTES)) {
    take({ offset: start, length, depth, name: 'payload', value: `${length} bytes, shorter than a seal` })
    return true
  }
  take({ offset: start, length: 0, depth, name: 'payload', value: `${length} bytes, sealed end to end` })
  let at = start
  const note = (name: string, bytesLong: number, value: string): void => {
    take({ offset: at, length: bytesLong, depth: depth + 1, name, value })
    at += bytesLong
  }
  if (request) {
    note('epoch', EPOCH_BYTES, String(readU32(bytes, at)))
    note('ephemeral', DH_BYTES, bytes.toString('base64url', at, at + DH_BYTES))
  }
  note('nonce', XAEAD_NONCE_BYTES, bytes.toString('hex', at, at + XAEAD_NONCE_BYTES))
  const plain = end - at - AEAD_TAG_BYTES
  note('encrypted', end - at, `${plain} bytes and a tag`)
  return true
}
