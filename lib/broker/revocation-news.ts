import { FrameType } from '../../protocol/constants.ts'
import { RevocationList } from '../identity/revocation-list.ts'
import type { BrokerLink } from './broker-link.ts'

/** What telling nodes may take at a time: a full list has 64 KiB, and there may be 10,000 of them. */
const TOLD_BYTES_MAX = 1_048_576

/** What a broker does with the newest list of revocations (SPEC 5.3): it cuts links, and tells brokers and nodes. */
export class RevocationNews {
  readonly list: RevocationList
  /** Nodes that were linked when the newest list came may not have it. */
  #untold = false

  constructor(net: Uint8Array) {
    this.list = new RevocationList(net)
  }

  /** Closes a link whose peer is named. @returns whether it was */
  cut({ peer, link }: BrokerLink, nowMs: number): boolean {
    if (peer === null || !this.list.names(peer.certificate)) return false
    link.close('CERTIFICATE_REVOKED', `${peer.certificate.name} has been revoked`, nowMs)
    return true
  }

  send(to: BrokerLink): void {
    const { signed, version } = this.list
    to.revocationsTold = version
    if (signed !== null) to.link.sendControl(FrameType.REVOCATIONS, signed)
  }

  /** There is a newer list. */
  toTellNodes(): void {
    this.#untold = true
  }

  /** Tells nodes that do not have the newest list: not more at a time than a turn of the loop can bear. */
  tellNodes(nodes: Iterable<BrokerLink>): void {
    if (!this.#untold) return
    const { signed, version } = this.list
    let bytes = 0
    for (const node of nodes) {
      if (signed === null || node.revocationsTold === version || !node.link.open) continue
      if (bytes >= TOLD_BYTES_MAX) return
      bytes += signed.length
      this.send(node)
    }
    this.#untold = false
  }
}
