/**
 * The stable codes (SPEC 12) and the one class of error that this library throws. Users match on `code`, never on text.
 *
 * `number` is what goes on the wire; codes without one never leave the process. `scope` says what a code ends:
 * a link, a request, or nothing but the local call.
 */
export const ErrorTable = {
  BYE: { number: 0, scope: 'link', meaning: 'The link ends as agreed; nothing went wrong.' },
  NOT_ADAPTNET: { number: 1, scope: 'link', meaning: 'The first bytes are not an adaptnet preamble.' },
  VERSION_UNSUPPORTED: { number: 2, scope: 'link', meaning: 'The two sides speak no common version.' },
  MODE_REFUSED: {
    number: 3,
    scope: 'link',
    meaning: 'The mode asked for (noise or plain) is not the one this side listens for.',
  },
  HANDSHAKE_FAILED: {
    number: 4,
    scope: 'link',
    meaning: 'A handshake message is malformed, out of order, too large or not authentic.',
  },
  HANDSHAKE_TIMEOUT: { number: 5, scope: 'link', meaning: 'The handshake did not end in time.' },
  UNAUTHORIZED: {
    number: 6,
    scope: 'link',
    meaning: 'The peer is not admitted; the reason is told to nobody outside.',
  },
  RECORD_TOO_LARGE: { number: 7, scope: 'link', meaning: 'A record announces more bytes than the limit.' },
  RECORD_MALFORMED: { number: 8, scope: 'link', meaning: "A record's lengths do not fit its frames." },
  TAG_INVALID: { number: 9, scope: 'link', meaning: 'A record is not authentic.' },
  FRAME_MALFORMED: { number: 10, scope: 'link', meaning: "A frame's lengths, flags or body are wrong." },
  FRAME_TOO_LARGE: {
    number: 11,
    scope: 'link',
    meaning: 'A frame announces an envelope or a payload above the limit.',
  },
  FRAME_UNKNOWN: { number: 12, scope: 'link', meaning: 'A frame of an unknown type does not carry the OPTIONAL flag.' },
  FRAME_UNEXPECTED: {
    number: 13,
    scope: 'link',
    meaning: 'A known frame came from the wrong role or in the wrong state.',
  },
  ENVELOPE_MALFORMED: { number: 14, scope: 'link', meaning: 'An envelope cannot be read.' },
  SENDER_SPOOFED: { number: 15, scope: 'link', meaning: "The sender in an envelope is not the link's own address." },
  PEER_SILENT: { number: 16, scope: 'link', meaning: 'The peer answered no ping within three keepalive intervals.' },
  SLOW_READER: { number: 17, scope: 'link', meaning: 'The peer takes what is sent to it too slowly.' },
  LIMIT_EXCEEDED: {
    number: 18,
    scope: 'link',
    meaning: 'The peer holds more services, names or links than the limit.',
  },
  DRAINING: { number: 19, scope: 'any', meaning: 'This side is leaving; nothing new is started here.' },
  DUPLICATE_LINK: {
    number: 20,
    scope: 'link',
    meaning: 'Another link to the same instance is kept instead of this one.',
  },
  INTERNAL: { number: 21, scope: 'any', meaning: "This side failed; it is not the peer's fault." },
  SLOW_WRITER: { number: 22, scope: 'link', meaning: 'The peer began a record and does not finish it.' },
  NO_WORKER: { number: 64, scope: 'request', meaning: 'No worker serves this service here; nothing was started.' },
  BUSY: {
    number: 65,
    scope: 'request',
    meaning: 'All workers are busy and the queue is full; nothing was started; retry after the time given.',
  },
  EXPIRED: { number: 66, scope: 'request', meaning: "The request's time to live ended before it was started." },
  NOT_PERMITTED: { number: 67, scope: 'request', meaning: 'The certificate does not name this service.' },
  NOT_STARTED: { number: 68, scope: 'request', meaning: 'No worker ran the request, and none will.' },
  WORKER_LOST: {
    number: 69,
    scope: 'request',
    meaning: "The worker's link broke while it had the request: it may have run.",
  },
  WORKER_ERROR: { number: 70, scope: 'request', meaning: 'The handler ran and failed.' },
  CANCELLED: { number: 71, scope: 'request', meaning: 'The caller cancelled the request.' },
  TOO_LARGE: { number: 72, scope: 'request', meaning: 'The payload or the envelope is above the limit.' },
  REJECTED: { number: 73, scope: 'request', meaning: 'The request breaks a rule; a retry would not help.' },
  UNCERTAIN: {
    number: 74,
    scope: 'request',
    meaning: 'An earlier run of this request began and its end is not known; it is not run again.',
  },
  REQUEST_FORGED: {
    number: 75,
    scope: 'request',
    meaning: 'The sealed payload is not what the client sealed for this request; nothing was run.',
  },
  SEAL_REQUIRED: {
    number: 76,
    scope: 'request',
    meaning: 'This side takes sealed payloads only; nothing was run.',
  },
  REPLY_FORGED: {
    number: null,
    scope: 'local',
    meaning: 'The answer is not what a worker of the service sealed for this request; the request may have run.',
  },
  NOT_SENT: { number: null, scope: 'local', meaning: 'No broker could be reached in time; nothing left this node.' },
  UNKNOWN: {
    number: null,
    scope: 'local',
    meaning: 'An attempt may have reached a worker and no answer came: it may have run.',
  },
  CLOSED: { number: null, scope: 'local', meaning: 'The node or the broker is closed.' },
  INVALID_ARGUMENT: { number: null, scope: 'local', meaning: 'The caller passed a value that cannot work.' },
  CERTIFICATE_MALFORMED: { number: null, scope: 'local', meaning: 'The bytes are not a certificate.' },
  CERTIFICATE_FOREIGN: {
    number: null,
    scope: 'local',
    meaning: "The certificate is not signed by this net's authority.",
  },
  CERTIFICATE_EXPIRED: { number: null, scope: 'local', meaning: "The certificate's time is over or has not begun." },
  CERTIFICATE_REVOKED: { number: null, scope: 'local', meaning: 'The authority has revoked the certificate.' },
  CERTIFICATE_STOLEN: {
    number: null,
    scope: 'local',
    meaning: 'The peer does not hold the key that its certificate names.',
  },
  ROLE_REFUSED: {
    number: null,
    scope: 'local',
    meaning: 'The certificate does not allow the role that the peer claims.',
  },
  IDENTITY_MISSING: { number: null, scope: 'local', meaning: 'There is no file at this path.' },
  IDENTITY_MALFORMED: { number: null, scope: 'local', meaning: 'The file is not what its name says.' },
  IDENTITY_EXPOSED: { number: null, scope: 'local', meaning: 'Others can read the secret file.' },
  ALREADY_EXISTS: { number: null, scope: 'local', meaning: 'A key or an identity would be overwritten.' },
  ADDRESS_IN_USE: { number: null, scope: 'local', meaning: 'Another process listens on this port.' },
  ADDRESS_UNRESOLVED: {
    number: null,
    scope: 'local',
    meaning: 'The host name has no address, or the address is not HOST:PORT.',
  },
  UNREACHABLE: { number: null, scope: 'local', meaning: 'No broker answered.' },
  PLAIN_NOT_LOOPBACK: { number: null, scope: 'local', meaning: 'Plain mode is for loopback addresses only.' },
} as const

export type ErrorCode = keyof typeof ErrorTable

const codeOfNumber = new Map<number, ErrorCode>()
for (const [code, row] of Object.entries(ErrorTable))
  if (row.number !== null) codeOfNumber.set(row.number, code as ErrorCode)

/** The wire number of a code; a local code has none and is sent as INTERNAL, which tells the peer nothing. */
export function wireNumber(code: ErrorCode): number {
  return ErrorTable[code].number ?? ErrorTable.INTERNAL.number
}

/** The code of a wire number; a number of a later version is read as INTERNAL (SPEC 12). */
export function codeFromWire(number: number): ErrorCode {
  return codeOfNumber.get(number) ?? 'INTERNAL'
}

export interface ErrorDetails {
  cause?: unknown
  /** After how many milliseconds a retry may be welcome; with BUSY. */
  retryAfterMs?: number
  /** How many times the request was sent before it failed. */
  attempts?: number
}

/** Every error of this library. The message names the value and the limit or the rule that it breaks. */
export class AdaptnetError extends Error {
  override readonly name = 'AdaptnetError'
  readonly code: ErrorCode
  readonly retryAfterMs: number | undefined
  readonly attempts: number | undefined

  constructor(code: ErrorCode, message?: string, details: ErrorDetails = {}) {
    super(message ?? ErrorTable[code].meaning, details.cause === undefined ? undefined : { cause: details.cause })
    this.code = code
    this.retryAfterMs = details.retryAfterMs
    this.attempts = details.attempts
  }
}
