/** SPEC 5.6. Payloads sealed end to end. */
import type { ServiceKey } from './bodies.ts'
import type { Envelope } from './envelope.ts'

export interface ClientSeal {
  /** What travels as payload of the request. */
  request: Buffer
  openReply(payload: Buffer): { kind: number; payload: Buffer } | null
}

export interface WorkerSeal {
  replyOverhead: number
  sealReply(kind: number, payload: Buffer): Buffer
}

export class ClientSeals {
  readonly #keys = new Map<string, ServiceKey>()

  constructor(_address: string) {}

  learn(key: ServiceKey): void {
    this.#keys.set(key.service, key)
  }

  seal(_service: string, _receiver: string, _id: Buffer, _payload: Buffer): ClientSeal | null {
    return null
  }
}

export class WorkerSeals {
  static read(_file: string): WorkerSeals {
    return new WorkerSeals()
  }

  readonly record: Buffer = Buffer.alloc(0)

  open(_payload: Buffer, _envelope: Envelope): { payload: Buffer; seal: WorkerSeal } | null {
    return null
  }
}
