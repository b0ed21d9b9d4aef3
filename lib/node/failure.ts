import { decodeReject } from '../../protocol/control.ts'
import { AdaptnetError, ErrorTable } from '../../protocol/errors.ts'
import type { ErrorCode } from '../../protocol/errors.ts'
import type { Frame } from '../link/frame.ts'
import type { PendingRequest, Rejection } from './pending-request.ts'

/**
 * The honest error of a request that ends without an answer (SPEC 6.2): a code that promises that nothing ran, and never
 * will, is used only when that is certain; what is uncertain is UNKNOWN and nothing else.
 */
export function failureOf(request: PendingRequest): AdaptnetError {
  const { attempts, rejection } = request
  const said = rejection === null ? '' : `; the last answer was ${rejection.code}: ${rejection.message}`
  const details = {
    attempts,
    ...(rejection === null || rejection.retryAfterMs === 0 ? {} : { retryAfterMs: rejection.retryAfterMs }),
  }
  if (rejection?.code === 'WORKER_ERROR') return new AdaptnetError('WORKER_ERROR', rejection.message, details)
  if (request.forged)
    return new AdaptnetError('REPLY_FORGED', `a broker forged the answer to ${attempts} attempts${said}`, details)
  if (request.mayHaveReached)
    return new AdaptnetError(
      'UNKNOWN',
      `no answer after ${attempts} attempts, and a worker may have run it${said}`,
      details,
    )
  if (attempts === 0 && (rejection?.code === 'SEAL_REQUIRED' || rejection?.code === 'TOO_LARGE'))
    return new AdaptnetError(rejection.code, rejection.message, details)
  if (attempts === 0) return new AdaptnetError('NOT_SENT', `no broker could take it${said}`, details)
  if (rejection === null) return new AdaptnetError('NOT_SENT', `${attempts} attempts never left this node`, details)
  return new AdaptnetError(honest(rejection.code), rejection.message || ErrorTable[rejection.code].meaning, details)
}

/** The code of a rejection after which nothing ran: codes that speak of a link or of doubt say here that nothing started. */
function honest(code: ErrorCode): ErrorCode {
  return ErrorTable[code].scope === 'request' && code !== 'WORKER_LOST' && code !== 'UNCERTAIN' ? code : 'NOT_STARTED'
}

/**
 * What a REJECT says. Workers write it and brokers do not read it, so one that cannot be read must not cost the link to
 * the broker; like a code of a later version (SPEC 12) it does not tell whether something ran.
 */
export function rejectionIn(frame: Frame): Rejection {
  try {
    const rejection = decodeReject(frame.payloadView())
    return rejection.code === 'INTERNAL' ? { ...rejection, code: 'UNCERTAIN' } : rejection
  } catch {
    return { code: 'UNCERTAIN', message: 'the rejection cannot be read', retryAfterMs: 0 }
  }
}
