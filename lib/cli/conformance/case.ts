import { Mode } from '../../../protocol/constants.ts'

/** SPEC 16. */
export type Level = 'codec' | 'link' | 'client' | 'worker' | 'broker' | 'gossip'
export const LEVELS: readonly Level[] = ['codec', 'link', 'client', 'worker', 'broker', 'gossip']

/** Whom the judge plays a peer to. */
export type Subject = 'broker' | 'worker' | 'client'

/** What a case cannot do without, beside the two identities. */
export const NEEDS = {
  broker: 'an identity that may be a broker',
  authority: 'the authority of the net (--net)',
  foreignServices: "a worker's identity that may serve the services of the judge only",
  mute: "a client's identity that may serve nothing, and a worker's that may call nothing",
} as const
export type Need = keyof typeof NEEDS

/** One thing that SPEC.md says, with what is sent to see it and what must come. */
export interface Case<World> {
  /** `subject/section/number`; numbers are appended, never given twice. */
  id: string
  section: string
  level: Level
  /** What the judge does. */
  sent: string
  /** What the implementation must do. */
  expected: string
  /** It sends only what a good peer would. */
  positive: boolean
  needs: readonly Need[]
  modes: readonly Mode[]
  /** Waits for a deadline of SPEC 11.1, so it is begun before the others. */
  slow: boolean
  run: (world: World) => Promise<void>
}

export interface CaseOptions {
  needs?: readonly Need[]
  mode?: Mode
  slow?: boolean
}

export type WrittenCase<World> = Omit<Case<World>, 'id' | 'section' | 'level'>

/** Something that a good peer does, and what follows. */
export function good<World>(
  sent: string,
  expected: string,
  run: (world: World) => Promise<void>,
  options: CaseOptions = {},
): WrittenCase<World> {
  return written(sent, expected, true, run, options)
}

/** Something that no good peer does, and what follows. */
export function bad<World>(
  sent: string,
  expected: string,
  run: (world: World) => Promise<void>,
  options: CaseOptions = {},
): WrittenCase<World> {
  return written(sent, expected, false, run, options)
}

function written<World>(
  sent: string,
  expected: string,
  positive: boolean,
  run: (world: World) => Promise<void>,
  { needs = [], mode, slow = false }: CaseOptions,
): WrittenCase<World> {
  const modes = mode === undefined ? [Mode.noise, Mode.plain] : [mode]
  return { sent, expected, positive, run, needs, modes, slow }
}

/** All cases of one section of SPEC.md, in one place: their numbers are their places in the list. */
export function section<World>(
  subject: Subject,
  name: string,
  level: Level,
  cases: readonly WrittenCase<World>[],
): Case<World>[] {
  return cases.map((one, index) => ({ ...one, id: `${subject}/${name}/${index + 1}`, section: name, level }))
}
