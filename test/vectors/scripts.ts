/** The words that the scripts of all roles are written in. */
import { toldNumber } from '../oracle/registry.ts'
import type { Step } from './scenario.ts'

export const pass = (ms: number): Step => ({ pass: ms })
export const open = (link: string): Step => ({ open: link })
export const cut = (link: string): Step => ({ cut: link })
export const mute = (link: string): Step => ({ mute: link })
/** What comes in or is done, and the time for what it causes. */
export const within = (ms: number, step: Step): Step => ({ ...step, pass: ms })
export const note = (comment: string, step: Step): Step => ({ comment, ...step })
export const drain: Step = { user: { drain: true } }

/** The body of a REJECT, GO_AWAY, CLOSE or REGISTERED by the name of its code, or by a number that has no name. */
export const coded = (code: string | number, more: Record<string, unknown> = {}): Record<string, unknown> => ({
  code: typeof code === 'number' ? code : toldNumber(code),
  message: '',
  ...more,
})
