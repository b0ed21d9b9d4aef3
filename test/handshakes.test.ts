/** What strangers may have of a broker before they are admitted (SPEC 4.2): turns, a share of the time, bytes, places. */
import t from 'tap'
import { HANDSHAKES_PENDING_MAX } from '../protocol/constants.ts'
import { Handshakes } from '../lib/broker/handshakes.ts'
import type { Entrance } from '../lib/broker/handshakes.ts'
import type { Link } from '../lib/link/link.ts'

/** What a broker's door needs of a link, and what became of it. */
class Stranger {
  readonly name: string
  answered = false
  paused = false
  code: string | null = null
  entrance: Entrance | null = null
  readonly #door: Door
  readonly connection = {
    pause: () => void (this.paused = true),
    resume: () => void (this.paused = false),
  }

  constructor(name: string, door: Door) {
    this.name = name
    this.#door = door
  }

  received(): boolean {
    this.#door.handled.push(this.name)
    this.#door.nowMs += this.#door.costMs
    this.answered = true
    return false
  }

  close(code: string): void {
    this.code = code
    if (this.entrance !== null) this.#door.handshakes.leave(this.entrance)
  }
}

/** A broker's door in a world whose clock moves by what is done. */
class Door {
  nowMs = 0
  /** What a handshake message costs. */
  costMs = 0
  work = 0
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
    })
  }

  come(name: string): Stranger {
    const stranger = new Stranger(name, this)
    this.strangers.set(name, stranger)
    stranger.entrance = this.handshakes.enter(stranger as unknown as Link, this.nowMs)
    return stranger
  }

  say(name: string, bytes = 47): void {
    this.strangers.get(name)?.entrance?.received(Buffer.alloc(bytes), this.nowMs)
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

t.test('while links have work, handshakes take half of the time and no more', async (t) => {
  const door = new Door()
  door.costMs = 0.25
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
    for (const stranger of door.strangers.values()) if (stranger.answered) stranger.close('BYE')
    for (const [name, { answered }] of door.strangers) if (answered) door.strangers.delete(name)
    door.nowMs += 0.01
  }
  t.ok(spentMs > 400 && spentMs < 520, `${spentMs} of 1000 ms`)
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
