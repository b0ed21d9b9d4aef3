import { WorkerSeal } from '../identity/sealing.ts'
import type { ServiceSecrets } from '../identity/service-key.ts'
import type { Random } from '../identity/sodium.ts'

/** Clients whose keys are kept; a key is derived again, for 30 us, when a client comes back after as many others. */
const SEALS_KEPT_MAX = 4_096
/** Where the client's epoch and ephemeral key stand in a sealed request (SPEC 5.6). */
const CLIENT_BYTES = 36

/** A worker's keys for the clients that seal to its service, one for each client and epoch. */
export class WorkerSeals {
  readonly #secrets: ServiceSecrets
  readonly #random: Random
  readonly #byClient = new Map<string, WorkerSeal>()
  #last: WorkerSeal | null = null

  constructor(secrets: ServiceSecrets, random: Random) {
    this.#secrets = secrets
    this.#random = random
  }

  /** @throws AdaptnetError REQUEST_FORGED: it is sealed to no key that is kept here */
  of(sealed: Buffer): WorkerSeal {
    if (this.#last?.isOf(sealed)) return this.#last
    const client = sealed.toString('latin1', 0, CLIENT_BYTES)
    let seal = this.#byClient.get(client)
    if (seal === undefined) {
      seal = new WorkerSeal(sealed, this.#secrets.epochs, this.#random)
      if (this.#byClient.size >= SEALS_KEPT_MAX) this.#byClient.clear()
      this.#byClient.set(client, seal)
    }
    this.#last = seal
    return seal
  }
}
