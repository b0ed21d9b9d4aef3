import { section } from '../case.ts'
import type { Case } from '../case.ts'
import type { Stand } from '../stand.ts'
import { admissionCases } from './admission.ts'
import { answerCases } from './answers.ts'
import { envelopeCases } from './envelopes.ts'
import { handshakeCases } from './handshake.ts'
import { leavingCases } from './leaving.ts'
import { questionCases } from './questions.ts'
import { recordCases } from './records.ts'
import { registrationCases } from './registration.ts'
import { requestCases } from './requests.ts'

/** Every case for a broker, in the order of SPEC.md. */
export const BROKER_CASES: readonly Case<Stand>[] = [
  ...recordCases,
  ...envelopeCases,
  ...handshakeCases,
  ...admissionCases,
  ...leavingCases,
  ...registrationCases,
  ...section<Stand>('broker', '6.3', 'broker', [...requestCases, ...answerCases]),
  ...questionCases,
].sort((one, other) => bySection(one.section, other.section))

/** `4.10` comes behind `4.9`; cases of one section keep their order. */
function bySection(one: string, other: string): number {
  const [a, b] = [one.split('.').map(Number), other.split('.').map(Number)]
  return (a[0] as number) - (b[0] as number) || (a[1] ?? 0) - (b[1] ?? 0)
}
