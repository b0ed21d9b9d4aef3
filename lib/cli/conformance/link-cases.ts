/** Cases of an open link that are the same for every subject. */
import { FrameType, Mode, TAG_BYTES } from '../../../protocol/constants.ts'
import type { ErrorCode } from '../../../protocol/errors.ts'
import { sodiumRandom } from '../../identity/sodium.ts'
import { bad, good } from './case.ts'
import type { CaseOptions, WrittenCase } from './case.ts'
import { expectBytes } from './failure.ts'
import { frameBytes, recordHeader } from './frames.ts'
import type { Peer } from './peer.ts'
import type { Part } from './stand.ts'
import { PATIENCE_MS } from './wire.ts'

const noise: CaseOptions = { mode: Mode.noise }
const plain: CaseOptions = { mode: Mode.plain }

type Deed<World> = (peer: Peer, world: World) => void | Promise<void>

export interface LinkCaseOptions extends CaseOptions {
  patienceMs?: number
  /** Whom the judge plays, where there are several. */
  as?: Part
}

export interface LinkWords<World> {
  /** A deed on an open link, which closes it with a code. */
  closes: (sent: string, code: ErrorCode, deed: Deed<World>, options?: LinkCaseOptions) => WrittenCase<World>
  /** A deed on an open link, which goes on as if nothing had been. */
  ignored: (sent: string, expected: string, deed: Deed<World>, options?: LinkCaseOptions) => WrittenCase<World>
}

/** `join` gives a link that is open. */
export function linkWords<World>(join: (world: World, as: Part) => Promise<Peer>): LinkWords<World> {
  return {
    closes: (sent, code, deed, { as = 'client', patienceMs = PATIENCE_MS, ...rest } = {}) =>
      bad(
        sent,
        `CLOSE with ${code}, then the end`,
        async (world) => {
          const peer = await join(world, as)
          await deed(peer, world)
          await peer.closed(code, patienceMs)
        },
        { needs: as === 'broker' ? ['broker'] : [], ...rest },
      ),
    ignored: (sent, expected, deed, { as = 'client', ...rest } = {}) =>
      good(
        sent,
        `${expected}; the link stays open`,
        async (world) => {
          const peer = await join(world, as)
          await deed(peer, world)
          await peer.alive()
        },
        { needs: as === 'broker' ? ['broker'] : [], ...rest },
      ),
  }
}

export const ping = (payload: Uint8Array | string = ''): Buffer => frameBytes(FrameType.PING, { payload })

export async function echoed(peer: Peer, payload: Uint8Array): Promise<void> {
  const pong = await peer.next((frame) => frame.type === FrameType.PONG && frame.payload.equals(payload), 'PONG')
  expectBytes(pong.payload, payload, 'PONG with')
}

/** SPEC 4.5: what a reader of boxes refuses, whoever it is. */
export function boxCases<World>({ closes, ignored }: LinkWords<World>): WrittenCase<World>[] {
  return [
    ignored(
      'REKEY three times, each followed by a PING under the next key',
      'PONG to each',
      async (peer) => {
        for (let count = 0; count < 3; count++) {
          rekeyed(peer)
          await peer.alive()
        }
      },
      noise,
    ),
    ignored(
      'REKEY behind another frame of the same record',
      'both are handled',
      async (peer) => {
        peer.sendRecord(Buffer.concat([ping('last of this key'), frameBytes(FrameType.REKEY)]))
        peer.rekey()
        await echoed(peer, Buffer.from('last of this key'))
      },
      noise,
    ),
    closes(
      'a record under the earlier key behind REKEY',
      'TAG_INVALID',
      (peer) => {
        peer.send(FrameType.REKEY)
        peer.send(FrameType.PING)
      },
      noise,
    ),
    closes(
      'the next key without REKEY',
      'TAG_INVALID',
      (peer) => {
        peer.rekey()
        peer.send(FrameType.PING)
      },
      noise,
    ),
    closes(
      'REKEY that is not the last frame of its record',
      'FRAME_MALFORMED',
      (peer) => peer.sendRecord(Buffer.concat([frameBytes(FrameType.REKEY), ping()])),
      noise,
    ),
    closes('REKEY', 'FRAME_UNEXPECTED', (peer) => peer.send(FrameType.REKEY), plain),
    closes('a record of 0 and 0 bytes', 'RECORD_MALFORMED', (peer) => peer.wire.send(recordHeader(0, 0)), noise),
    closes(
      'a record that is one byte shorter than a tag',
      'RECORD_MALFORMED',
      (peer) => peer.wire.send(recordHeader(TAG_BYTES - 1, 0), Buffer.alloc(TAG_BYTES - 1)),
      noise,
    ),
    closes(
      'a record that is no box',
      'TAG_INVALID',
      (peer) => peer.wire.send(recordHeader(40, 0), sodiumRandom(40)),
      noise,
    ),
    closes(
      'one bit of a box changed',
      'TAG_INVALID',
      (peer) => peer.wire.send(flipped(peer.seal(ping('x')), 12)),
      noise,
    ),
    closes('one bit of a tag changed', 'TAG_INVALID', (peer) => peer.wire.send(flipped(peer.seal(ping()), 23)), noise),
    closes(
      'a header that was changed on the way: the length of the raw part',
      'TAG_INVALID',
      (peer) => {
        const bytes = peer.seal(ping(), Buffer.alloc(4))
        bytes.writeUInt32BE(3, 4)
        peer.wire.send(bytes.subarray(0, -1))
      },
      noise,
    ),
    closes(
      'a record again',
      'TAG_INVALID',
      (peer) => {
        const bytes = peer.seal(ping())
        peer.wire.send(bytes, bytes)
      },
      noise,
    ),
    closes(
      'two records in the other order',
      'TAG_INVALID',
      (peer) => {
        const first = peer.seal(ping())
        peer.wire.send(peer.seal(ping()), first)
      },
      noise,
    ),
    closes(
      'a record left out',
      'TAG_INVALID',
      (peer) => {
        peer.seal(ping())
        peer.wire.send(peer.seal(ping()))
      },
      noise,
    ),
    ignored('the header of a record of 0 and 0 bytes', 'nothing', (peer) => peer.wire.send(recordHeader(0, 0)), plain),
    closes(
      'frames that are not encrypted',
      'TAG_INVALID',
      (peer) => {
        const frames = Buffer.concat([ping('in the clear'), ping('in the clear')])
        peer.wire.send(recordHeader(frames.length, 0), frames)
      },
      noise,
    ),
  ]
}

function rekeyed(peer: Peer): void {
  peer.send(FrameType.REKEY)
  peer.rekey()
}

function flipped(bytes: Buffer, at: number): Buffer {
  bytes[at] = (bytes[at] as number) ^ 4
  return bytes
}
