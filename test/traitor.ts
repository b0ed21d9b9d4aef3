import { FrameType } from '../protocol/constants.ts'
import { decodeRegister, encodeRegistered, encodeServiceKeys } from '../protocol/control.ts'
import { encodeEnvelope } from '../protocol/envelope.ts'
import type { Envelope } from '../protocol/envelope.ts'
import type { RawPeer, ReceivedFrame } from './raw-peer.ts'
import type { VirtualCluster } from './virtual-cluster.ts'

/** What a traitor does; what is left out it does as an honest broker would. */
export interface Misdeeds {
  /** What goes to the worker instead of this REQUEST. */
  request?: (frame: ReceivedFrame, traitor: Traitor) => ReceivedFrame[]
  /** What goes to the client instead of this REPLY or REJECT. */
  answer?: (frame: ReceivedFrame, traitor: Traitor) => ReceivedFrame[]
  /** What nodes are told when a worker brings this signed key. */
  keys?: (record: Uint8Array) => Uint8Array[]
}

/**
 * A broker that the authority has admitted and that nobody should have trusted: it relays between true clients and true
 * workers, and does with what passes whatever a test wants.
 */
export class Traitor {
  readonly links: RawPeer[] = []
  readonly #misdeeds: Misdeeds
  /** The workers of each service, in the order in which they came. */
  readonly #workers = new Map<string, RawPeer[]>()

  constructor(cluster: VirtualCluster, name: string, misdeeds: Misdeeds) {
    this.#misdeeds = misdeeds
    cluster.scriptedBroker(name, (peer) => {
      this.links.push(peer)
      peer.onFrame = (frame) => this.#take(frame, peer)
    })
  }

  toWorker(frame: ReceivedFrame, place = 0): void {
    const [service = ''] = (frame.envelope as Envelope).receiver.split('#')
    relay(frame, this.#workers.get(service)?.[place])
  }

  toClient(frame: ReceivedFrame): void {
    const { receiver } = frame.envelope as Envelope
    relay(
      frame,
      this.links.find((link) => link.greeting !== null && link.peerAddress === receiver),
    )
  }

  /** An answer to this request, as if a worker had given it. */
  answerTo(request: ReceivedFrame, type: number, flags: number, payload: Buffer): ReceivedFrame {
    const { id, sender, receiver } = request.envelope as Envelope
    const envelope = { ...(request.envelope as Envelope), id: Buffer.alloc(16, 9), originalId: id }
    return { type, flags, payload, envelope: { ...envelope, receiver: sender, sender: `${receiver}/00000000` } }
  }

  #take(frame: ReceivedFrame, from: RawPeer): void {
    const { request, answer } = this.#misdeeds
    switch (frame.type) {
      case FrameType.REGISTER:
        return this.#register(frame, from)
      case FrameType.REQUEST:
        for (const sent of request?.(frame, this) ?? [frame]) this.toWorker(sent)
        return
      case FrameType.REPLY:
      case FrameType.REJECT:
        for (const sent of answer?.(frame, this) ?? [frame]) this.toClient(sent)
        return
      default:
    }
  }

  #register(frame: ReceivedFrame, from: RawPeer): void {
    const { service, serviceKey } = decodeRegister(frame.payload)
    this.#workers.set(service, [...(this.#workers.get(service) ?? []), from])
    const told = this.#misdeeds.keys?.(serviceKey) ?? (serviceKey.length > 0 ? [serviceKey] : [])
    for (const link of this.links)
      if (link.greeting !== null && link.lostWhy === null && told.length > 0)
        link.send(FrameType.SERVICE_KEYS, { payload: encodeServiceKeys(told) })
    from.send(FrameType.REGISTERED, { payload: encodeRegistered({ service, code: 'BYE', message: '' }) })
  }
}

function relay({ type, flags, envelope, payload }: ReceivedFrame, to: RawPeer | undefined): void {
  if (to?.lostWhy === null) to.send(type, { envelope: encodeEnvelope(envelope as Envelope), payload, flags })
}
