/** SPEC 5.3 for a side that dials: the same for workers and clients. */
import type { Revocations } from '../../../protocol/certificate.ts'
import { FrameType } from '../../../protocol/constants.ts'
import { signRevocations } from '../../identity/certificate.ts'
import { createAuthority } from '../../identity/identity.ts'
import type { Authority } from '../../identity/identity.ts'
import { sodiumRandom } from '../../identity/sodium.ts'
import { bad, good } from './case.ts'
import type { CaseOptions, WrittenCase } from './case.ts'
import type { Post } from './post.ts'

const withAuthority: CaseOptions = { needs: ['authority'] }

const notAList = (what: string, payload: () => Uint8Array): WrittenCase<Post> =>
  bad(what, 'CLOSE with UNAUTHORIZED, then the end', async (post) => {
    const peer = await post.link()
    peer.send(FrameType.REVOCATIONS, { payload: payload() })
    await peer.closed('UNAUTHORIZED')
  })

function listOf({ options }: Post, version: number, entries: Revocations['entries']): Buffer {
  return signRevocations({ net: options.identity.net, version, entries }, options.authority as Authority)
}

export const diallerRevocations: readonly WrittenCase<Post>[] = [
  notAList('REVOCATIONS of random bytes', () => sodiumRandom(120)),
  notAList('REVOCATIONS of no bytes', () => Buffer.alloc(0)),
  notAList("REVOCATIONS of another net's authority", () => {
    const stranger = createAuthority(sodiumRandom)
    return signRevocations({ net: stranger.publicKey, version: 2 ** 40, entries: [] }, stranger)
  }),
  good(
    'a list that names others, twice, and an older one',
    'nothing; the link stays open',
    async (post) => {
      const peer = await post.link()
      const version = Date.now()
      const entries = [{ name: 'somebody-else', before: Date.now() }]
      for (const number of [version, version, version - 1])
        peer.send(FrameType.REVOCATIONS, { payload: listOf(post, number, entries) })
      await peer.alive()
    },
    withAuthority,
  ),
  bad(
    'a newer list that names the broker; by another broker an older one that does not',
    'CLOSE with UNAUTHORIZED; then no message 3 to the broker that is named, whatever the older list says, but to others',
    async (post) => {
      const { certificateBytes: certificate, linkKeyPair, name } = post.brokerIdentity()
      const named = { hello: { certificate }, linkKeyPair }
      const peer = await post.fresh(named)
      // Above any list that an operator counts up by one, and below the next run's.
      const version = Date.now()
      peer.send(FrameType.REVOCATIONS, { payload: listOf(post, version, [{ name, before: Date.now() }]) })
      await peer.closed('UNAUTHORIZED')
      const other = await post.fresh()
      other.send(FrameType.REVOCATIONS, { payload: listOf(post, version - 1, []) })
      await other.alive()
      const wire = await post.wire()
      await post.answered(wire, named)
      await wire.silentEnd()
      await (await post.fresh()).alive()
    },
    withAuthority,
  ),
]
