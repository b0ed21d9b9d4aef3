import { Role, TIME_TO_LIVE_MS_MAX } from '../../protocol/constants.ts'
import { AdaptnetError } from '../../protocol/errors.ts'
import { CLOCK_TOLERANCE_MS, mayCall, verifyCertificate } from '../identity/certificate.ts'
import { certificateIn } from '../identity/client-proof.ts'
import type { OpenedRequest } from '../identity/client-proof.ts'
import { WorkerSeal } from '../identity/sealing.ts'
import type { ServiceSecrets } from '../identity/service-key.ts'
import type { Random } from '../identity/sodium.ts'
import { SESSION_LEASE_MS } from './seen-requests.ts'

/**
 * Clients whose keys are kept, and that have proved who they are. Beyond it the one that was kept first goes; when it
 * comes back, its keys are derived and its proof is verified again.
 */
const SEALS_KEPT_MAX = 4_096
/** Where the client's epoch and ephemeral key stand in a sealed request (SPEC 5.6). */
const CLIENT_BYTES = 36
/**
 * By how much the clocks of client and worker may differ for a sealed request. Less than for certificates: twice this and
 * the longest exactly-once request are within the lease of a session, so that what a broker has kept back is refused
 * before a journal forgets that it ran.
 */
export const SEAL_TOLERANCE_MS = 120_000

export interface WorkerSealsOptions {
  secrets: ServiceSecrets
  wallClock: () => number
  random: Random
}

/** A sealed request, opened; `seal` is what its answer is sealed with. */
export interface OpenedPayload {
  readonly payload: Buffer
  readonly seal: WorkerSeal
}

/** A worker's keys for the clients that seal to its service, one for each client and epoch. */
export class WorkerSeals {
  readonly #options: WorkerSealsOptions
  /** The oldest first. Only what has been proved gets in, so that nobody can push clients out who is not one. */
  readonly #byClient = new Map<string, WorkerSeal>()
  #last: WorkerSeal | null = null

  constructor(options: WorkerSealsOptions) {
    this.#options = options
  }

  /**
   * Opens a request in place; the payload is a view of it. What comes back was sealed for this id and receiver by the
   * client that it names, which may call the service, and which may still wait for the answer.
   * @throws AdaptnetError REQUEST_FORGED, NOT_PERMITTED, EXPIRED, REJECTED
   */
  open(sealed: Buffer, id: Uint8Array, client: Buffer, receiver: Uint8Array, exactlyOnce: boolean): OpenedPayload {
    const seal = this.#sealOf(sealed)
    const opened = seal.open(sealed, id, client, receiver)
    const { notAfterMs, payloadStart } = opened
    const nowMs = this.#options.wallClock()
    if (seal.certificate === null) this.#prove(sealed, seal, opened, client, nowMs)
    else if (nowMs > seal.certificate.notAfter + CLOCK_TOLERANCE_MS)
      throw new AdaptnetError('NOT_PERMITTED', `the certificate of ${seal.certificate.name} has expired`)
    this.#last = seal
    if (nowMs > notAfterMs + SEAL_TOLERANCE_MS)
      throw new AdaptnetError('EXPIRED', 'its time was over when it arrived, unless the clocks differ by minutes')
    // A clock that is far ahead would let a broker send the request again for as long.
    const leftMsMax = exactlyOnce ? SESSION_LEASE_MS / 2 : TIME_TO_LIVE_MS_MAX
    if (notAfterMs > nowMs + leftMsMax + SEAL_TOLERANCE_MS)
      throw new AdaptnetError('REJECTED', "the client's clock is minutes ahead of this worker's")
    return { payload: opened.box.subarray(payloadStart), seal }
  }

  #sealOf(sealed: Buffer): WorkerSeal {
    if (this.#last?.isOf(sealed)) return this.#last
    const { secrets, random } = this.#options
    return this.#byClient.get(keyOf(sealed)) ?? new WorkerSeal(sealed, secrets.epochs, random)
  }

  /** The first request under an ephemeral key has to show whose it is; the key speaks for the others. */
  #prove(sealed: Buffer, seal: WorkerSeal, opened: OpenedRequest, client: Buffer, nowMs: number): void {
    const { net, service } = this.#options.secrets
    try {
      const shown = certificateIn(opened)
      const certificate = verifyCertificate(shown, { net, nowMs, role: Role.node })
      seal.prove(opened, client, certificate, service)
      if (!mayCall(certificate, service))
        throw new AdaptnetError('NOT_PERMITTED', `the certificate of ${certificate.name} does not name ${service}`)
    } catch (error) {
      throw refusalOf(error)
    }
    if (this.#byClient.size >= SEALS_KEPT_MAX) this.#byClient.delete(this.#byClient.keys().next().value as string)
    this.#byClient.set(keyOf(sealed), seal)
  }
}

function keyOf(sealed: Buffer): string {
  return sealed.toString('latin1', 0, CLIENT_BYTES)
}

/** An expired certificate is no forgery: its holder is told, and another attempt would not help. */
function refusalOf(error: unknown): unknown {
  if (!(error instanceof AdaptnetError)) return error
  const { code, message } = error
  if (code === 'CERTIFICATE_EXPIRED' || code === 'CERTIFICATE_REVOKED' || code === 'ROLE_REFUSED')
    return new AdaptnetError('NOT_PERMITTED', message, { cause: error })
  return code.startsWith('CERTIFICATE_') ? new AdaptnetError('REQUEST_FORGED', message, { cause: error }) : error
}
