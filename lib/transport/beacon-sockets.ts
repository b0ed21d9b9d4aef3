import dgram from 'node:dgram'
import { BEACON_GROUP_IPV4, BEACON_GROUP_IPV6, BEACON_PORT } from '../../protocol/constants.ts'
import { BEACON_NONCE_BYTES, encodeBeacon } from '../../protocol/beacon.ts'
import { HeardBeacons, beaconPauseMs } from '../discovery/beacons.ts'
import type { HostPort } from '../discovery/candidates.ts'
import { sodiumRandom } from '../identity/sodium.ts'
import { isOnWireOf, localAddresses } from './interfaces.ts'
import type { LocalAddress } from './interfaces.ts'

/** How often it is looked whether interfaces have come or gone. */
const INTERFACES_POLL_MS = 1_000
/** Not beyond the wire that it is sent on. */
const HOPS = 1
/** More addresses than this of one machine are not announced. */
const SENDERS_MAX = 32

export interface BeaconOptions {
  /** UDP port, the same for the whole net. Default 7411. */
  port?: number
  /** Names of the interfaces to use. Default: all. */
  interfaces?: readonly string[]
}

/** What a broker tells of itself. */
export interface Announced {
  instance: Uint8Array
  /** Where it listens; a wildcard stands for every address of this machine. */
  host: string
  port: number
}

/**
 * Beacons by multicast and broadcast (SPEC 7.4): hears those of brokers, and tells those of this one if it is one. No error
 * of a socket ends anything: what does not work now is tried again with the interfaces as they are then.
 */
export class BeaconSockets {
  readonly heard: HeardBeacons
  readonly #net: Uint8Array
  readonly #nonce: Uint8Array = sodiumRandom(BEACON_NONCE_BYTES)
  readonly #port: number
  readonly #names: readonly string[] | null
  readonly #announced: Announced | null
  readonly #tell: (address: HostPort) => void
  readonly #receivers = new Map<dgram.SocketType, dgram.Socket>()
  /** By the address that they send from. */
  readonly #senders = new Map<string, dgram.Socket>()
  #local: LocalAddress[] = []
  #pollTimer: NodeJS.Timeout | null = null
  #sendTimer: NodeJS.Timeout | null = null
  #sent = 0
  #closed = false

  constructor(net: Uint8Array, options: BeaconOptions, announced: Announced | null, tell: (at: HostPort) => void) {
    this.#net = net
    this.#port = options.port ?? BEACON_PORT
    this.#names = options.interfaces ?? null
    this.#announced = announced
    this.#tell = tell
    this.heard = new HeardBeacons(net, this.#nonce)
    this.#poll()
    this.#send()
  }

  close(): void {
    this.#closed = true
    if (this.#pollTimer !== null) clearTimeout(this.#pollTimer)
    if (this.#sendTimer !== null) clearTimeout(this.#sendTimer)
    for (const socket of [...this.#receivers.values(), ...this.#senders.values()]) socket.close()
    this.#receivers.clear()
    this.#senders.clear()
  }

  // --- interfaces

  #poll(): void {
    if (this.#closed) return
    const before = this.#local.map(({ address }) => address).join(' ')
    this.#local = localAddresses(this.#names)
    if (this.#local.map(({ address }) => address).join(' ') !== before) this.#sent = 0
    for (const type of ['udp4', 'udp6'] as const) {
      const receiver = this.#receivers.get(type)
      if (receiver === undefined) this.#receive(type)
      else this.#join(type, receiver)
    }
    for (const [address, socket] of this.#senders)
      if (!this.#local.some((local) => local.address === address)) {
        this.#senders.delete(address)
        socket.close()
      }
    this.#pollTimer = setTimeout(() => this.#poll(), INTERFACES_POLL_MS).unref()
  }

  // --- hearing

  #receive(type: 'udp4' | 'udp6'): void {
    // Several processes of one machine listen to the same port.
    const socket = dgram.createSocket({ type, reuseAddr: true, ...(type === 'udp6' ? { ipv6Only: true } : {}) })
    this.#receivers.set(type, socket)
    socket.on('error', () => {
      // No IPv6 on this machine, or no such port: the next poll tries again.
      if (this.#receivers.get(type) === socket) this.#receivers.delete(type)
      socket.close()
    })
    socket.on('message', (datagram, { address }) => {
      if (this.#names !== null && !this.#isOnWire(address)) return
      const at = this.heard.take(datagram, address, performance.now())
      if (at !== null) this.#tell(at)
    })
    socket.bind(this.#port, () => this.#join(type, socket))
  }

  /** Joins on every interface, again and again: one that went and came back has forgotten it. */
  #join(type: 'udp4' | 'udp6', socket: dgram.Socket): void {
    const family = type === 'udp4' ? 'IPv4' : 'IPv6'
    for (const local of this.#local) {
      if (local.family !== family) continue
      const [group, at] =
        family === 'IPv4' ? [BEACON_GROUP_IPV4, local.address] : [BEACON_GROUP_IPV6, `::%${local.interface}`]
      attempt(() => socket.addMembership(group, at))
    }
  }

  /** Whether an address is of a net that one of the named interfaces is on: broadcasts come by all of them. */
  #isOnWire(source: string): boolean {
    const [, scope] = source.split('%')
    if (scope !== undefined) return this.#names?.includes(scope) === true
    return this.#local.some((local) => isOnWireOf(local, source))
  }

  // --- telling

  #send(): void {
    if (this.#announced === null || this.#closed) return
    const ways = this.#ways(this.#announced.host).slice(0, SENDERS_MAX)
    for (const way of ways) this.#sendBy(way, ways, this.#announced)
    const pauseMs = beaconPauseMs(this.#sent, Math.random())
    this.#sent += 1
    this.#sendTimer = setTimeout(() => this.#send(), pauseMs).unref()
  }

  /** The addresses that the broker is reached by; of those of IPv6 one an interface, which all on the wire can reach. */
  #ways(host: string): LocalAddress[] {
    if (host !== '0.0.0.0' && host !== '::') return this.#local.filter(({ address }) => address === host)
    return this.#local.filter(({ family, linkLocal }) => family === 'IPv4' || (host === '::' && linkLocal))
  }

  #sendBy(way: LocalAddress, ways: readonly LocalAddress[], { instance, port }: Announced): void {
    const socket = this.#senders.get(way.address) ?? this.#openSender(way)
    const same = ways.filter((other) => other.interface === way.interface && other.family === way.family)
    // The one that it is sent from first: no receiver takes another.
    const addresses = [way, ...same.filter((other) => other !== way)].map(({ bytes }) => bytes)
    const beacon = encodeBeacon({ net: this.#net, instance, nonce: this.#nonce, port, addresses })
    const targets =
      way.family === 'IPv4' ? [BEACON_GROUP_IPV4, way.broadcast] : [`${BEACON_GROUP_IPV6}%${way.interface}`]
    for (const target of targets) {
      if (target === null) continue
      socket.send(beacon, this.#port, target, (error) => {
        if (error !== null) this.#dropSender(way.address, socket)
      })
    }
  }

  #openSender(way: LocalAddress): dgram.Socket {
    const socket = dgram.createSocket(way.family === 'IPv4' ? 'udp4' : 'udp6')
    this.#senders.set(way.address, socket)
    socket.on('error', () => this.#dropSender(way.address, socket))
    socket.bind({ address: way.address, port: 0 }, () => {
      attempt(() => socket.setMulticastTTL(HOPS))
      attempt(() => socket.setMulticastInterface(way.family === 'IPv4' ? way.address : `::%${way.interface}`))
      if (way.family === 'IPv4') attempt(() => socket.setBroadcast(true))
    })
    return socket
  }

  /** The interface is down, or its address has gone. */
  #dropSender(address: string, socket: dgram.Socket): void {
    if (this.#senders.get(address) !== socket) return
    this.#senders.delete(address)
    socket.close()
  }
}

/** What an interface refuses now is asked of it again at the next poll. */
function attempt(act: () => void): boolean {
  try {
    act()
    return true
  } catch (error) {
    if (error instanceof Error && 'code' in error) return false
    throw error
  }
}
