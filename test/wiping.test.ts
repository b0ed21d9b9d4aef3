/** That secrets are not in the memory of a process any more when they are done with: it is read, from another one. */
import { fork } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import { canScan, countIn } from './memory-scan.ts'
import type { Stop } from './wiping-scenes.ts'

const options = canScan ? {} : { skip: 'needs /proc' }
const SCENES = fileURLToPath(new URL('wiping-scenes.js', import.meta.url))
/** A young generation that is never full in a scene: what the collector moves it leaves behind, and no code can wipe that. */
const FLAGS = ['--min-semi-space-size=64', '--max-semi-space-size=64']

/** Plays a scene: how often each secret was found at each of its stops. */
async function play(scene: string): Promise<Record<string, number[]>> {
  const child = fork(SCENES, [scene], { execArgv: FLAGS, env: { ...process.env, NODE_OPTIONS: '' } })
  const seen: Record<string, number[]> = {}
  child.on('message', ({ where, secrets }: Stop) => {
    seen[where] = countIn(
      child.pid as number,
      secrets.map((secret) => Buffer.from(secret, 'base64')),
    )
    child.send('go on')
  })
  const [code] = (await once(child, 'exit')) as [number | null]
  if (code !== 0) throw new Error(`the scene ${scene} ended with ${code}`)
  return seen
}

t.test('the ephemeral key of a handshake, however it ends', options, async (t) => {
  t.same(await play('handshake'), {
    'open: under way': [1],
    'open: open': [0],
    'refused: under way': [1],
    'refused: over': [0],
    'silent: under way': [1],
    'silent: over': [0],
    'lost: under way': [1],
    'lost: over': [0],
  })
})

t.test(
  'the keys of a link: two at each end while it is open, none afterwards, nor of its handshake',
  options,
  async (t) => {
    const { open = [], closed = [] } = await play('link')
    t.same(
      open.filter((count) => count > 0),
      // A key is the same at both ends.
      [2, 2, 2, 2],
    )
    t.ok(open.length > 4, 'and those of the handshake')
    t.same(
      closed.filter((count) => count > 0),
      [],
    )
  },
)

t.test('the ephemeral key that a client seals with, as soon as its keys are derived', options, async (t) => {
  t.same(await play('seal'), { derived: [0] })
})

t.test('secrets that live as long as the process stand in one place', options, async (t) => {
  t.same(await play('identity'), {
    // The link key, the signing key and the key of a service.
    made: [1, 1, 1],
    'made, and read from a file': [2, 2, 1],
  })
})
