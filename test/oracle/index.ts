/**
 * A second implementation of SPEC.md, slow and plain, written from the specification and `protocol/`'s numbers, schemas
 * and vectors only. It shares no code with `lib/` or `protocol/`: where the two differ, one of them, or the text, is
 * wrong.
 */
export { decodeFrames, decodeRecords, decodeSigned, decoders, type Outcome } from './decoders.ts'
export { VECTOR_FILES, judgeVectors } from './vectors.ts'
