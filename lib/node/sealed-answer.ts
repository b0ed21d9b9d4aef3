import { FrameFlag } from '../../protocol/constants.ts'
import { AdaptnetError } from '../../protocol/errors.ts'
import { ReplyKind } from '../identity/sealing.ts'
import type { Frame } from '../link/frame.ts'
import type { AttemptWriter } from './attempt-writer.ts'
import type { PendingRequest } from './pending-request.ts'

/** What a worker answered: a reply, or the text of its error. */
export interface OpenedAnswer {
  kind: number
  payload: Buffer
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
  return request.seal.open(frame.keepPayload(), id, writer.sender, request.destination.bytes)
}
