/** What strangers may have of a broker before they are admitted (SPEC 4.2): turns, a share of the time, bytes, places. */
import t from 'tap'
import { HANDSHAKES_PENDING_MAX } from '../protocol/constants.ts'
import { Handshakes } from '../lib/broker/handshakes.ts'
import type { Entrance } from '../lib/broker/handshakes.ts'
import type { Link } from '../lib/link/link.ts'
import type { Connection } from '../lib/runtime.ts'
import { encodePreamble } from '../protocol/preamble.ts'

/** What a broker's door needs of a link, and what became of it. */
class Stranger {
  readonly name: string
  answered = false
  paused = false
  code: string | null = null
  entrance: Entrance | null = null
  readonly #door: Door
  /** How often its connection was closed without a word. */
  destroyed = 0
  /** Whether a link was made for it. */
  linked = false
  open = false
  readonly connection = {
    pause: () => void (this.paused = true),
    resume: () => void (this.paused = false),
    destroy: () => void (this.destroyed += 1),
  }

  constructor(name: string, door: Door) {
    this.name = name
    this.#door = door
  }

  received(): boolean {
    this.#door.handled.push(this.name)
    this.#door.nowMs += this.#door.costMs
    if (this.answered && this.#door.admits) this.admit()
    this.answered = true
    return false
  }

  admit(): void {
    this.open = true
    if (this.entrance !== null) this.#door.handshakes.leave(this.entrance)
  }

  close(code: string): void {
    this.code = code
    if (this.entrance !== null) this.#door.handshakes.leave(this.entrance)
  }
}

const FIRST_MESSAGE = Buffer.concat([
  encodePreamble({ versionLowest: 1, versionHighest: 1, mode: 1 }),
  Buffer.alloc(35),
])

/** A broker's door in a world whose clock moves by what is done. */
class Door {
  nowMs = 0
  /** What a handshake message costs. */
  costMs = 0
  work = 0
  /** Who says a second message is admitted. */
  admits = false
  alarmMs: number | null = null
  #asked = false
  #turn: (nowMs: number) => void = () => {}
  #ring: (nowMs: number) => void = () => {}
  readonly handled: string[] = []
  readonly strangers = new Map<string, Stranger>()
  readonly handshakes: Handshakes

  constructor() {
    this.handshakes = new Handshakes({
      runtime: {
        now: () => this.nowMs,
        alarm: (ring) => {
          this.#ring = ring
          return { set: (atMs) => void (this.alarmMs = atMs) }
        },
        endOfTurn: (run) => {
          this.#turn = run
          return () => void (this.#asked = true)
        },
      },
      workDone: () => this.work,
      open: (entrance) => {
        const stranger = this.#strangerOf(entrance.connection)
        stranger.linked = true
        return stranger as unknown as Link
      },
      refused: (connection, code) => void (this.#strangerOf(connection).code = code),
    })
  }

  #strangerOf(connection: Connection): Stranger {
    for (const stranger of this.strangers.values())
      if ((stranger.connection as unknown as Connection) === connection) return stranger
    throw new Error('nobody has this connection')
  }

  come(name: string): Stranger {
    const stranger = new Stranger(name, this)
    this.strangers.set(name, stranger)
    stranger.entrance = this.handshakes.enter(stranger.connection as unknown as Connection, this.nowMs)
    return stranger
  }

  say(name: string, bytes = 47): void {
    this.strangers.get(name)?.entrance?.received(Buffer.alloc(bytes), this.nowMs)
  }

  /** Says so much of what every peer says first. */
  begin(name: string, bytes: number, from = 0): void {
    this.strangers.get(name)?.entrance?.received(FIRST_MESSAGE.subarray(from, from + bytes), this.nowMs)
  }

  /** Ends a turn of the loop; false when nothing waits for one. */
  turn(): boolean {
    if (this.alarmMs !== null && this.alarmMs <= this.nowMs) {
      this.alarmMs = null
      this.#ring(this.nowMs)
      return true
    }
    if (!this.#asked) return false
    this.#asked = false
    this.#turn(this.nowMs)
    return true
  }
}

t.test('one message in a turn: who has been answered goes first, then the newest', async (t) => {
  const door = new Door()
  for (const name of ['a', 'b', 'c', 'd']) door.come(name)
  door.say('a')
  t.same(door.handled, ['a'], 'the first at once')
  for (const name of ['b', 'c', 'a', 'd']) door.say(name)
  t.same(door.handled, ['a'], 'the others wait')
  t.same(
    ['a', 'b', 'c', 'd'].map((name) => door.strangers.get(name)?.paused),
    [true, true, true, true],
    'and nothing more is read from them',
  )
  const handled: number[] = []
  while (door.turn()) handled.push(door.handled.length)
  t.same(door.handled, ['a', 'a', 'd', 'c', 'b'])
  t.ok(handled.every((count, index) => index === 0 || count - (handled[index - 1] ?? 0) <= 1))
  t.notOk([...door.strangers.values()].some(({ paused }) => paused))
})

/** Milliseconds of a second that handshakes of 0.25 ms a message take while links have work. */
function spentWithWork(door: Door, admitted: boolean): number {
  door.costMs = 0.25
  door.admits = admitted
  let spentMs = 0
  let index = 0
  const startMs = door.nowMs
  while (door.nowMs < startMs + 1_000) {
    door.work += 1
    while (door.handshakes.size < 100) {
      door.come(`s${++index}`)
      door.say(`s${index}`)
    }
    const beforeMs = door.nowMs
    door.turn()
    spentMs += door.nowMs - beforeMs
    for (const [name, stranger] of door.strangers) {
      if (!stranger.answered) continue
      if (!admitted) stranger.close('BYE')
      else if (!stranger.open && !stranger.paused) door.say(name)
      if (stranger.entrance?.over === true) door.strangers.delete(name)
    }
    door.nowMs += 0.01
  }
  return spentMs
}

t.test('while links have work, strangers take a quarter of the time, and those that are admitted half', async (t) => {
  const strangersMs = spentWithWork(new Door(), false)
  t.ok(strangersMs > 200 && strangersMs < 270, `strangers: ${strangersMs} of 1000 ms`)
  const admittedMs = spentWithWork(new Door(), true)
  t.ok(admittedMs > 400 && admittedMs < 520, `admitted: ${admittedMs} of 1000 ms`)
})

t.test('a broker that relays nothing has all its time for those who come', async (t) => {
  const door = new Door()
  door.costMs = 0.25
  for (let index = 0; index < 1_000; index++) {
    door.come(`${index}`)
    door.say(`${index}`)
  }
  const startMs = door.nowMs
  const end = (): void => {
    for (const stranger of door.strangers.values())
      if (stranger.answered && stranger.code === null) stranger.close('BYE')
  }
  while (door.turn()) end()
  t.equal(door.handled.length, 1_000)
  t.ok(door.nowMs - startMs <= 250, 'without a pause')
})

const closedIn = (door: Door): string[] =>
  [...door.strangers.values()].flatMap(({ name, code }) => (code === null ? [] : [`${name}: ${code}`]))

t.test('places: the oldest that keeps this side waiting makes room', async (t) => {
  const door = new Door()
  for (let index = 0; index < HANDSHAKES_PENDING_MAX + 10; index++) door.come(`silent ${index}`)
  while (door.turn());
  t.same(closedIn(door), [], 'they have only just come: perhaps they have not been read')
  door.nowMs = door.alarmMs ?? 0
  while (door.turn());
  const names = Array.from({ length: 10 }, (_, index) => `silent ${index}: HANDSHAKE_TIMEOUT`)
  t.same(closedIn(door), names)
  t.equal(door.handshakes.size, HANDSHAKES_PENDING_MAX)
})

t.test(
  'places: so many may have an answer and not go on; then the oldest of them, and not before a second',
  async (t) => {
    const door = new Door()
    for (let index = 0; index < HANDSHAKES_PENDING_MAX; index++) {
      door.come(`${index}`)
      door.say(`${index}`)
    }
    while (door.turn());
    const begun = HANDSHAKES_PENDING_MAX / 2
    t.equal(door.handled.length, begun, 'the others wait')
    t.same(closedIn(door), [])
    const slow = door.handled.at(-1) as string
    door.say(slow, 1)
    while (door.turn());
    t.equal(door.handled.length, begun + 1, 'who has been answered is heard')
    door.strangers.get(slow)?.close('BYE')
    while (door.turn());
    t.equal(door.handled.length, begun + 2, 'one has ended: another may begin')
    door.nowMs = door.alarmMs ?? 0
    while (door.turn());
    t.equal(door.nowMs, 1_000)
    t.equal(closedIn(door).length, begun)
    t.equal(door.handshakes.size, begun, 'each of them made room for one')
  },
)

t.test('places: those that wait for this side do not count, and are bounded too', async (t) => {
  const door = new Door()
  door.come('busy')
  door.say('busy')
  for (let index = 0; index < 7_000; index++) {
    door.come(`${index}`)
    door.say(`${index}`)
  }
  t.same(closedIn(door).length, 7_000 - 6_144)
  t.equal(closedIn(door)[0], '0: HANDSHAKE_TIMEOUT', 'the oldest have gone')
  for (let index = 0; index < 7_000; index++) door.come(`fresh ${index}`)
  t.equal(closedIn(door).length, 7_000 - 6_144 + 7_000 - 4_096)
})

t.test('bytes: one message is all that it may leave here', async (t) => {
  const door = new Door()
  for (const name of ['a', 'b', 'c']) door.come(name)
  door.say('a')
  door.say('b', 4_111)
  t.equal(door.strangers.get('b')?.code, null)
  door.say('c', 4_112)
  t.equal(door.strangers.get('c')?.code, 'HANDSHAKE_FAILED')
  door.say('b', 1)
  t.equal(door.strangers.get('b')?.code, 'HANDSHAKE_FAILED', 'in pieces neither')
})

t.test(
  'who says next to nothing has no link: it is kept as the bytes that it said, and closed when its time is over',
  async (t) => {
    const door = new Door()
    const linked = (): string[] => [...door.strangers.values()].flatMap(({ name, linked }) => (linked ? [name] : []))
    for (const name of ['silent', 'slow', 'whole', 'wrong', 'gone']) door.come(name)
    for (let at = 0; at < 11; at++) door.begin('slow', 1, at)
    door.begin('whole', 10)
    door.begin('gone', 10)
    t.same(linked(), [])
    t.equal(door.handshakes.unlinked, 5)
    door.say('wrong', 1)
    while (door.turn());
    t.same(linked(), ['wrong'], 'what cannot be a preamble is judged at once')
    door.begin('whole', 37, 10)
    while (door.turn());
    t.same(linked(), ['whole', 'wrong'], 'what came in pieces is handled as one')
    t.same(door.handled, ['wrong', 'whole'])
    t.equal(door.handshakes.unlinked, 3)
    door.strangers.get('gone')?.entrance?.lost('reset', door.nowMs)
    t.equal(door.strangers.get('gone')?.code, 'UNREACHABLE')
    door.nowMs = 4_999
    while (door.turn());
    door.handshakes.tick(door.nowMs)
    t.same(closedIn(door), ['gone: UNREACHABLE'])
    door.nowMs = 5_000
    door.handshakes.tick(door.nowMs)
    t.same(closedIn(door), ['silent: HANDSHAKE_TIMEOUT', 'slow: HANDSHAKE_TIMEOUT', 'gone: UNREACHABLE'])
    t.equal(door.strangers.get('slow')?.destroyed, 1)
    t.equal(door.handshakes.size, 2, 'their links see to the others')
    door.come('late')
    door.handshakes.close()
    t.equal(door.strangers.get('late')?.code, 'BYE')
    t.equal(door.handshakes.unlinked, 0)
  },
)
