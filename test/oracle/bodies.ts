/** The bodies of `protocol/schemas/`, by name. */
import { Body } from './avro.ts'

export interface Address {
  host: string
  port: number
  zone: string
}

export interface Hello {
  version: number
  role: number
  instance: Buffer
  features: number
  payloadBytesMax: number
  addresses: Address[]
  certificate: Buffer
}

export interface Broker {
  name: string
  instance: Buffer
  state: number
  addresses: Address[]
}

export interface Register {
  service: string
  concurrency: number
  journal: string
  serviceKey: Buffer
}

export interface Registered {
  service: string
  code: number
  message: string
}

export interface Reject {
  code: number
  retryAfter: number
  message: string
}

export interface Farewell {
  code: number
  message: string
}

export interface Certificate {
  net: Buffer
  name: string
  roles: number
  linkKey: Buffer
  signKey: Buffer
  serves: string[]
  calls: string[]
  notBefore: number
  notAfter: number
}

export interface Revocations {
  net: Buffer
  version: number
  entries: { name: string; before: number }[]
}

export interface ServiceKey {
  net: Buffer
  service: string
  epoch: number
  key: Buffer
  notBefore: number
  notAfter: number
}

export const hello: Body<Hello> = new Body('hello')
export const brokers: Body<{ brokers: Broker[] }> = new Body('brokers')
export const register: Body<Register> = new Body('register')
export const registered: Body<Registered> = new Body('registered')
export const reject: Body<Reject> = new Body('reject')
export const farewell: Body<Farewell> = new Body('farewell')
export const signed: Body<{ body: Buffer; signature: Buffer }> = new Body('signed')
export const certificate: Body<Certificate> = new Body('certificate')
export const revocations: Body<Revocations> = new Body('revocations')
export const serviceKey: Body<ServiceKey> = new Body('service-key')
export const serviceKeys: Body<{ keys: Buffer[] }> = new Body('service-keys')
