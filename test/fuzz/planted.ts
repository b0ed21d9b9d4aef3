/** Readers with one fault each, for judging the fuzzer itself: it has to find them. */
import { AdaptnetError } from '../../protocol/errors.ts'
import { attempt, expect } from './target.ts'
import type { Target } from './target.ts'

/** What coverage says of this file is what guides the fuzzer to the faults. */
export const PLANTED: RegExp = /\/test\/fuzz\/planted\.js/

const refuse = (): never => {
  throw new AdaptnetError('FRAME_MALFORMED')
}

/** A fault behind three choices, each of which alone is one in a few hundred. */
function readDeep(bytes: Buffer): number {
  if (bytes.length < 6) refuse()
  if (bytes[0] !== 0x41) refuse()
  const type = bytes[1] as number
  if (type > 8) refuse()
  if (bytes[2] === 0x2a) {
    if (bytes[3] === type) {
      if (bytes[4] === 0x07) return (undefined as unknown as Buffer).length
      return 3
    }
    return 2
  }
  return 1
}

/** One input in some thousands spoils what all later ones are read with. */
function forgetful(): (bytes: Buffer) => number {
  let pool = 0
  return (bytes) => {
    if (bytes[0] === 0x7f && bytes[1] === 0xff) pool = Number.NaN
    return pool + bytes.length
  }
}

/** A fault that takes two inputs, with any others between them. */
function remembering(): (bytes: Buffer) => number {
  let armed = false
  return (bytes) => {
    armed ||= bytes.at(-1) === 0x01
    if (armed && bytes.at(-1) === 0x02) return (undefined as unknown as Buffer).length
    return 1
  }
}

function planted(name: string, read: (bytes: Buffer) => number): Target {
  return {
    name,
    reads: 'a planted fault',
    bytesMax: 64,
    stateful: false,
    dictionary: [],
    seeds: () => [Buffer.from([0x41, 1, 0, 0, 0, 0])],
    open: () => ({
      judge: (input) => attempt(() => read(input)).code ?? 'read',
      probe: () => expect(read(Buffer.from([0x41, 1, 0, 0, 0, 0])) > 0, 'good input is read otherwise than before'),
    }),
  }
}

export const plantedTargets: Record<'deep' | 'forgetful' | 'remembering' | 'unregistered' | 'endless', Target> = {
  deep: planted('deep', readDeep),
  forgetful: planted('forgetful', forgetful()),
  remembering: {
    ...planted('remembering', remembering()),
    stateful: true,
    open: () => planted('remembering', remembering()).open(),
  },
  unregistered: planted('unregistered', (bytes) => {
    if (bytes.length > 40) throw new AdaptnetError('NO_SUCH_CODE' as 'BUSY', 'unheard of')
    return 1
  }),
  endless: planted('endless', (bytes) => {
    // Of the processor's time, for one input in four or so: how busy the machine is makes no difference.
    const before = process.cpuUsage()
    if (bytes.length > 12) while (process.cpuUsage(before).user < 400_000);
    return 1
  }),
}
