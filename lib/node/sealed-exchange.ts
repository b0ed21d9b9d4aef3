import { FrameFlag } from '../../protocol/constants.ts'
import { AdaptnetError } from '../../protocol/errors.ts'
import { ReplyKind } from '../identity/sealing.ts'
import type { Frame } from '../link/frame.ts'
import { sealFlags } from './attempt-writer.ts'
import type { AttemptWriter } from './attempt-writer.ts'
import type { Seal } from './options.ts'
import type { PendingRequest } from './pending-request.ts'
import type { Seals } from './seals.ts'

/** What a worker answered: a reply, or the text of its error. */
export interface OpenedAnswer {
  kind: number
  payload: Buffer
}

/**
 * Seals the payload, once for all attempts; what may have run unsealed stays so, because its answer is. False when it must
 * be sealed and no key of the service is known yet.
 */
export function sealRequest(request: PendingRequest, seals: Seals, wanted: Seal, writer: AttemptWriter): boolean {
  const { service } = request
  if (request.seal !== null || request.mayHaveReached || service.name.startsWith('$')) return true
  const seal = wanted === 'never' ? null : seals.of(service.name)
  if (seal === null) return wanted !== 'required'
  const id = writer.idBytes(request.counter)
  request.seal = seal
  request.wire = seal.seal(request.payload, seals.wallClockAt(request.deadlineMs), id, request.destination.bytes)
  request.flags = sealFlags(request.wire)
  return true
}

/**
 * The answer in a REPLY. To a sealed request only a sealed one counts: whatever else comes was made by a broker.
 * @throws AdaptnetError REPLY_FORGED
 */
export function openAnswer(request: PendingRequest, frame: Frame, writer: AttemptWriter): OpenedAnswer {
  const sealed = (frame.flags & FrameFlag.SEALED) !== 0
  if (request.seal === null) {
    if (sealed) throw new AdaptnetError('REPLY_FORGED', 'the reply is sealed, and the request was not')
    return { kind: ReplyKind.REPLY, payload: frame.keepPayload() }
  }
  if (!sealed) throw new AdaptnetError('REPLY_FORGED', 'the reply is not sealed, and the request was')
  const id = writer.idBytes(request.counter)
  return request.seal.open(frame.keepPayload(), id, request.destination.bytes)
}
