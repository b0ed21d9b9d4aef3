/**
 * The numbers of the wire (SPEC 11, 12): the same rows as `registry.json`, as literals, because a codec that reads
 * a file at start would no longer be stateless. `test/tidy.test.ts` compares them with the registry and with SPEC.md.
 */
export const VERSION_LOWEST = 1
export const VERSION_HIGHEST = 1
/** Where brokers listen unless told otherwise. */
export const BROKER_PORT = 7411
/** UDP: where beacons are sent to (SPEC 7.4). */
export const BEACON_PORT = 7411
/** Of what may be given out privately (RFC 2365), and of what is not given out at all (RFC 4291, link-local, transient). */
export const BEACON_GROUP_IPV4 = '239.255.74.11'
export const BEACON_GROUP_IPV6 = 'ff12::7411'

/** How a link is protected (SPEC 4.1). `plain` is for measuring and for loopback only. */
export const Mode = {
  noise: 1,
  plain: 2,
} as const
export type Mode = (typeof Mode)[keyof typeof Mode]

/** What a peer is on this link (SPEC 4.3); in a certificate, a set of bits. */
export const Role = {
  node: 1,
  broker: 2,
} as const
export type Role = (typeof Role)[keyof typeof Role]

/** The first byte of each handshake message (SPEC 4.2). */
export const HandshakeKind = {
  NOISE: 1,
  PLAIN: 2,
  REFUSAL: 3,
} as const
export type HandshakeKind = (typeof HandshakeKind)[keyof typeof HandshakeKind]

/** SPEC 3.2. */
export const FrameType = {
  REQUEST: 1,
  REPLY: 2,
  REJECT: 3,
  CANCEL: 4,
  ACKNOWLEDGE: 5,
  REGISTER: 16,
  UNREGISTER: 17,
  REGISTERED: 18,
  WELCOME: 32,
  PING: 33,
  PONG: 34,
  GO_AWAY: 35,
  CLOSE: 36,
  REKEY: 37,
  BROKERS: 48,
  REVOCATIONS: 49,
  GOSSIP: 50,
  SERVICE_KEYS: 51,
} as const
export type FrameType = (typeof FrameType)[keyof typeof FrameType]

/** Bits of a frame's second byte (SPEC 3.2). */
export const FrameFlag = {
  RAW: 1,
  SEALED: 2,
  OPTIONAL: 128,
} as const

/** What the caller was promised (SPEC 6.6), as the envelope carries it. */
export const DeliveryNumber = {
  'at-least-once': 0,
  'at-most-once': 1,
  'exactly-once': 2,
} as const

/** What a broker says of another in BROKERS (SPEC 7.1). */
export const BrokerStateNumber = {
  alive: 1,
  suspect: 2,
  draining: 3,
  left: 4,
} as const

/** Bits of `features` in a Hello (SPEC 4.3). */
export const Feature = {
  gossip: 1,
} as const

/** What a GOSSIP frame is for (SPEC 7.2). */
export const GossipKind = {
  NEWS: 1,
  PROBE: 2,
  ANSWER: 3,
  ASK: 4,
  UNREACHED: 5,
  DIGEST: 6,
  LIST: 7,
  WANT: 8,
} as const
export type GossipKind = (typeof GossipKind)[keyof typeof GossipKind]

/** What one broker says of another that does not answer (SPEC 7.2). */
export const Verdict = {
  suspect: 1,
  dead: 2,
  notice: 3,
} as const
export type Verdict = (typeof Verdict)[keyof typeof Verdict]

/** What a verdict rests on (SPEC 7.2). */
export const Evidence = {
  silence: 1,
  refused: 2,
} as const
export type Evidence = (typeof Evidence)[keyof typeof Evidence]

/** Bytes of the fixed parts. */
export const PREAMBLE_BYTES = 12
export const HANDSHAKE_HEADER_BYTES = 3
export const RECORD_HEADER_BYTES = 8
export const FRAME_HEADER_BYTES = 8
export const ID_BYTES = 16
/** The first half of an id: random, one for a node's lifetime. */
export const SESSION_BYTES = 8
export const INSTANCE_BYTES = 4
export const KEY_BYTES = 32
export const SIGNATURE_BYTES = 64
export const TAG_BYTES = 16
/** The sums of a DIGEST (SPEC 7.2). */
export const DIGEST_SUMS = 64

/** In bytes. Beyond it: HANDSHAKE_FAILED. */
export const HANDSHAKE_BYTES_MAX = 4096
/** In ms. Beyond it: HANDSHAKE_TIMEOUT. */
export const HANDSHAKE_TIMEOUT_MS = 5000
/** In links. Beyond it: the oldest is closed. */
export const HANDSHAKES_PENDING_MAX = 256
/** In bytes. Beyond it: RECORD_TOO_LARGE. */
export const RECORD_SEALED_BYTES_MAX = 1_310_720
/** In bytes. Beyond it: RECORD_TOO_LARGE. */
export const RECORD_RAW_BYTES_MAX = 1_310_720
/** In bytes. Beyond it: FRAME_TOO_LARGE. */
export const ENVELOPE_BYTES_MAX = 4096
/** In bytes. Beyond it: FRAME_TOO_LARGE. */
export const PAYLOAD_BYTES_MAX = 1_048_576
/** In bytes. Beyond it: FRAME_TOO_LARGE. */
export const CONTROL_BYTES_MAX = 65_536
/** In bytes. Beyond it: CERTIFICATE_MALFORMED. */
export const NAME_BYTES_MAX = 64
/** In bytes. Beyond it: ENVELOPE_MALFORMED. */
export const SERVICE_BYTES_MAX = 128
/** In bytes of a certificate's body. Beyond it: CERTIFICATE_MALFORMED. */
export const CERTIFICATE_BYTES_MAX = 3072
/** In service keys of a list. Beyond it: the rest is ignored. */
export const SERVICE_KEYS_MAX = 128
/** In bytes of a journal's id. Beyond it: FRAME_MALFORMED. */
export const JOURNAL_BYTES_MAX = 32
/** In patterns of a certificate, for serving and for calling each. Beyond it: CERTIFICATE_MALFORMED. */
export const PATTERNS_MAX = 32
/** In retries. Beyond it: ENVELOPE_MALFORMED. */
export const RETRY_COUNT_MAX = 63
/** In ms. Beyond it: lowered to the limit. */
export const TIME_TO_LIVE_MS_MAX = 86_400_000
/** In services. Beyond it: LIMIT_EXCEEDED. */
export const SERVICES_PER_LINK_MAX = 256
/** In requests. Beyond it: lowered to the limit. */
export const CONCURRENCY_MAX = 65_535
/** In requests. Beyond it: BUSY. */
export const OUTSTANDING_PER_LINK_MAX = 16_384
/** In requests of a service. Beyond it: BUSY. */
export const QUEUE_REQUESTS_MAX = 4096
/** In bytes of a broker. Beyond it: BUSY. */
export const QUEUE_BYTES_MAX = 67_108_864
/** In links of a broker. Beyond it: the connection is closed unanswered. */
export const LINKS_MAX = 10_000
/** In bytes waiting for a node. Beyond it: the broker reads no more from it. */
export const LINK_PAUSE_BYTES = 1_048_576
/** In bytes waiting for a peer. Beyond it: SLOW_READER. */
export const LINK_SEND_BYTES_MAX = 67_108_864
/** In ms without progress. Beyond it: SLOW_READER. */
export const SLOW_READER_MS = 10_000
/** In ms for a record, and one second more per KiB of it. Beyond it: SLOW_WRITER. */
export const RECORD_TIMEOUT_MS = 5000
/** In ms. Beyond it: PING, then PEER_SILENT after three. */
export const KEEPALIVE_BUSY_MS = 250
/** In ms. Beyond it: PING, then PEER_SILENT after three. */
export const KEEPALIVE_IDLE_MS = 5000
/** In records of a direction under one key. Beyond it: the sender sends REKEY before. */
export const REKEY_RECORDS_MAX = 4_294_967_296
/** In ms under one key. Beyond it: the sender sends REKEY before. */
export const REKEY_MS_MAX = 3_600_000
/** In brokers of a list. Beyond it: the rest is ignored. */
export const BROKERS_MAX = 64
/** In addresses of a broker. Beyond it: the rest is ignored. */
export const ADDRESSES_MAX = 8
/** In bytes of a beacon. Beyond it: the beacon is ignored. */
export const BEACON_BYTES_MAX = 1200
/** In entries of a list. Beyond it: FRAME_MALFORMED. */
export const REVOCATIONS_MAX = 1024
/** In headers of an envelope. Beyond it: ENVELOPE_MALFORMED. */
export const HEADERS_MAX = 16
/** In bytes of a signed broker record. Beyond it: the record is ignored. */
export const BROKER_RECORD_BYTES_MAX = 4096
/** In ms from now to a record's end. Beyond it: the record is ignored. */
export const BROKER_RECORD_MS_MAX = 604_800_000
/** In steps from the incarnation that is known. Beyond it: the record is ignored. */
export const INCARNATION_JUMP_MAX = 4_294_967_296
/** Of a host in an address, as long as a name in DNS can be. Beyond it: the broker record is ignored. */
export const HOST_BYTES_MAX = 253
/** Of the software in a broker record. Beyond it: the record is ignored. */
export const SOFTWARE_BYTES_MAX = 64
/** In records, accusations or entries of a GOSSIP. Beyond it: FRAME_MALFORMED. */
export const GOSSIP_ITEMS_MAX = 1024
