import type { Mutant } from '../simulation/planted-bugs.ts'

const TESTS: readonly string[] = ['membership-net', 'membership']

/** Bugs of the membership machine. */
export const MEMBERSHIP_BUGS: readonly Mutant[] = [
  {
    name: 'no refutation',
    file: 'discovery/membership.js',
    search: 'this.#refute(nowMs);',
    replace: ';',
    tests: TESTS,
  },
  {
    name: 'a stale record is accepted',
    file: 'discovery/membership.js',
    search: 'known !== null && incarnation <= known',
    replace: 'known !== null && incarnation < known - 1',
    tests: TESTS,
  },
  {
    name: 'records are not proved',
    file: 'discovery/membership.js',
    search: 'if (refusal !== null)',
    replace: 'if (refusal === 0)',
    tests: TESTS,
  },
  {
    name: 'a leap of incarnations is accepted',
    file: 'discovery/membership.js',
    search: '> INCARNATION_JUMP_MAX)',
    replace: '> Infinity)',
    tests: TESTS,
  },
  {
    name: 'the dead are forgotten: nobody looks for them',
    file: 'discovery/partial-view.js',
    search: 'this.#lookForDead(nowMs);',
    replace: ';',
    tests: TESTS,
  },
  {
    name: 'nobody is looked at but neighbours',
    file: 'discovery/partial-view.js',
    search: 'this.#lookAtStranger(nowMs);',
    replace: ';',
    tests: TESTS,
  },
  {
    name: 'no meetings',
    file: 'discovery/meeting.js',
    search: 'if (differing.size === 0)',
    replace: 'if (differing.size >= 0)',
    tests: TESTS,
  },
  {
    name: 'who wakes accuses the others',
    file: 'discovery/membership.js',
    search: 'if (lateMs > LATE_MS)',
    replace: 'if (lateMs > Infinity)',
    tests: TESTS,
  },
  {
    name: 'no indirect probes: what one cannot reach is dead',
    file: 'discovery/probes.js',
    search: 'probe.helpers = Math.min(helpers.length, HELPERS);',
    replace: 'probe.helpers = 0;',
    tests: TESTS,
  },
  {
    name: 'tombstones without a bound',
    file: 'discovery/gone.js',
    search: '>= TOMBSTONES_MAX',
    replace: '>= Infinity',
    tests: TESTS,
  },
  {
    name: 'who has left is held for dead',
    file: 'discovery/membership.js',
    search: 'record.state === BrokerStateNumber.left) {\n            this.#spread',
    replace: 'record.state === 99) {\n            this.#spread',
    tests: TESTS,
  },
  {
    name: 'a kill is not seen by the broken link',
    file: 'discovery/membership.js',
    search: 'this.#probes.probe(address, nowMs, true);',
    replace: ';',
    tests: TESTS,
  },
]
