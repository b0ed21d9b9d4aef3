/** One open link and the records that its peer sends: frames are cut, judged and told, and nothing else happens. */
import { FrameType, Mode, Role } from '../../../protocol/constants.ts'
import type { Certificate } from '../../../protocol/certificate.ts'
import { encodeEnvelope } from '../../../protocol/envelope.ts'
import { writeRecordHeader } from '../../../protocol/frame.ts'
import { Handshake } from '../../../lib/link/handshake.ts'
import type { HandshakeOptions } from '../../../lib/link/handshake.ts'
import { Link } from '../../../lib/link/link.ts'
import type { LinkListener } from '../../../lib/link/link.ts'
import { SlabPool } from '../../../lib/link/slab-pool.ts'
import type { Connection } from '../../../lib/runtime.ts'
import { frameBytes } from '../../raw-peer.ts'
import { inputOf, scriptOf } from '../stranger.ts'
import { expect, isOwnFault } from '../target.ts'
import type { Target } from '../target.ts'
import { MemoryWorld } from '../memory-world.ts'
import * as good from './good.ts'
import { goodScripts, scriptDictionary } from './scripts.ts'

const NO_ID = Buffer.alloc(16)
const pool = new SlabPool()
const { runtime } = new MemoryWorld(5)

const optionsOf = (role: Role): HandshakeOptions => ({
  mode: Mode.plain,
  linkKeyPair: good.identities.broker.linkKeyPair,
  hello: { ...(good.hellos[0] as (typeof good.hellos)[0]), role, certificate: Buffer.alloc(1) },
  admit: () => good.certificates[0] as Certificate,
  random: runtime.random,
})
/** What the peer of either side says before its records. */
const greetings = {
  dialler: Buffer.concat(new Handshake(true, optionsOf(Role.node)).output),
  acceptor: ((): Buffer => {
    const acceptor = new Handshake(false, optionsOf(Role.broker))
    acceptor.receive(Buffer.concat(new Handshake(true, optionsOf(Role.node)).output), 0)
    return Buffer.concat(acceptor.output)
  })(),
}
const welcome = recordOf(frameBytes(FrameType.WELCOME, 0, Buffer.alloc(0), Buffer.alloc(0)), Buffer.alloc(0))

function recordOf(frames: Buffer, raw: Buffer): Buffer {
  const bytes = Buffer.alloc(8 + frames.length + raw.length)
  writeRecordHeader(bytes, 0, frames.length, raw.length)
  frames.copy(bytes, 8)
  raw.copy(bytes, 8 + frames.length)
  return bytes
}

class Witness implements LinkListener {
  opens = 0
  frames = 0
  closes: string[] = []
  fault: string | null = null
  link: Link | null = null

  opened(): void {
    this.opens += 1
  }

  frame(frame: Parameters<LinkListener['frame']>[0]): void {
    expect(this.opens === 1 && this.closes.length === 0, 'a frame is told of a link that is not open')
    this.frames += 1
    const { envelope, envelopeStart, envelopeEnd, payload, payloadStart, payloadEnd } = frame
    expect(envelopeStart <= envelopeEnd && envelopeEnd <= envelope.length, 'an envelope outside its record')
    expect(payloadStart <= payloadEnd && payloadEnd <= payload.length, 'a payload outside its record')
    // As a broker forwards it: what goes out must be as sound as what came.
    this.link?.sendFrame(
      frame.type,
      frame.flags,
      envelope,
      envelopeStart,
      envelopeEnd,
      payload,
      payloadStart,
      payloadEnd,
    )
  }

  leaving(): void {}
  relieved(): void {}
  dirty(): void {}

  closed(code: string, message: string): void {
    if (isOwnFault(code, message)) this.fault = message
    this.closes.push(code)
  }

  settle(): boolean {
    return false
  }
}

/** The first byte's highest bit says which side it is. */
function judge(input: Buffer): string {
  const written: Uint8Array[] = []
  let writtenBytes = 0
  const connection: Connection = {
    remote: 'peer',
    bufferedBytes: 0,
    write: (chunks) => {
      for (const chunk of chunks) {
        written.push(Uint8Array.prototype.slice.call(chunk))
        writtenBytes += chunk.length
      }
      return true
    },
    end: () => {},
    destroy: () => {},
    pause: () => {},
    resume: () => {},
  }
  const dialler = ((input[0] ?? 0) & 0x80) !== 0
  const witness = new Witness()
  const role = dialler ? Role.node : Role.broker
  const link = new Link(witness, { dialler, handshake: optionsOf(role), connection, pool, nowMs: 0 })
  witness.link = link
  link.received(Buffer.from(greetings[dialler ? 'acceptor' : 'dialler']), 0)
  if (dialler) link.received(Buffer.from(welcome), 0)
  expect(witness.opens === 1, 'a good handshake does not open a link')
  const beforeBytes = writtenBytes
  const choice = Buffer.from(input)
  if (choice.length > 0) choice[0] = (choice[0] as number) & 0x7f
  const { frames, raw } = scriptOf(choice, NO_ID)
  link.received(recordOf(frames, raw), 1)
  link.tick(60_000, 'busy')
  link.flush(60_000)
  expect(witness.fault === null, `INTERNAL: ${witness.fault}`)
  expect(witness.closes.length <= 1, 'a link closes twice')
  // Each frame is sent on once, with a record header at most; beside them there are an answer to a ping and a farewell.
  const most = 3 * (frames.length + raw.length) + 2_048
  expect(writtenBytes - beforeBytes <= most, `${writtenBytes - beforeBytes} bytes were sent for ${input.length}`)
  return `${dialler} ${Math.min(witness.frames, 3)} ${witness.closes[0] ?? 'open'}`
}

const parties = { sender: 'client/09090909', client: 'client/09090909', worker: 'worker/01020304' }

export const linkTarget: Target = {
  name: 'link',
  reads: 'records and frames of an open link, both sides',
  bytesMax: 2_500,
  stateful: false,
  dictionary: scriptDictionary,
  seeds: () =>
    goodScripts(parties).flatMap((script) => [
      script,
      Buffer.concat([Buffer.of((script[0] as number) | 0x80), script.subarray(1)]),
    ]),
  open: () => ({
    judge,
    probe: () => {
      const request = frameBytes(1, 0, encodeEnvelope(good.envelopes[0] as (typeof good.envelopes)[0]), Buffer.alloc(9))
      expect(judge(inputOf([request])) === 'false 1 open', 'a good request is not told')
    },
  }),
}
