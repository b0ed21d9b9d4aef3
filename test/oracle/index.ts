/**
 * A second implementation of SPEC.md, slow and plain, written from the specification and `protocol/`'s numbers, schemas
 * and vectors only. It shares no code with `lib/` or `protocol/`: where the two differ, one of them, or the text, is
 * wrong.
 */
export * as bodies from './bodies.ts'
export { OracleBroker } from './broker.ts'
export type { Reply as OracleReply, RequestOptions as OracleRequestOptions } from './call.ts'
export { Connection, hostAndPort } from './connection.ts'
export { writeEnvelope, writeId, type Envelope, type Route } from './envelope.ts'
export { SEALED, controlFrame, type Frame } from './frame.ts'
export {
  decodeBrokerRecord,
  decodeFrames,
  decodeRecords,
  decodeSigned,
  decoders,
  type Decoder,
  type Outcome,
} from './decoders.ts'
export {
  readIdentity,
  signCertificate,
  signRevocations,
  signServiceKey,
  signWith,
  CONTEXTS,
  type Identity as OracleIdentity,
} from './identity.ts'
export { RECORD_CONTEXT } from './gossip.ts'
export { Journal, type Begun } from './journal.ts'
export { wireOf, type Machine, type Wire, type WireListener } from './machine.ts'
export { violations } from './violations.ts'
export { OracleNode } from './node.ts'
export { xchachaOpen, xchachaSeal } from './primitives.ts'
export { WorkerSeals, associatedData, openRequest } from './seal.ts'
export { codeOfNumber, frameType, limit, nameOfType } from './registry.ts'
export { driven, openAcceptor } from './vector-links.ts'
export { outcome, spelled, vectorFile, type Vector } from './vector.ts'
export { VECTOR_FILES, judgeVectors } from './vectors.ts'
