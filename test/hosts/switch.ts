import { execFileSync, spawnSync } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Running } from '../command-fixture.ts'
import { done } from '../net-runner.ts'

/**
 * Real hosts, as far as processes can tell: network namespaces on a switch, made with iproute2 alone in namespaces of this
 * test's own, so that no root is needed, nothing outside is touched, and everything dies with the test. Must run within
 * `WITHIN`.
 */
export const WITHIN: readonly string[] = [
  'unshare',
  '--map-root-user',
  '--net',
  '--mount',
  '--pid',
  '--fork',
  '--kill-child',
  '--mount-proc',
  '--propagation',
  'private',
  'sh',
  '-c',
  // `ip netns` keeps its names there. Where iproute2 lies is not in everybody's PATH.
  'PATH=$PATH:/usr/sbin:/sbin; mount -t tmpfs none /run && ip link set lo up && exec "$@"',
  '-',
]

/** Why there cannot be hosts on this machine, or false when there can. */
export function missing(): string | false {
  const probe =
    'ip netns add probe && ip link add probe0 type veth peer name probe1 netns probe && ip link add br0 type bridge'
  const [program, ...words] = [...WITHIN, 'sh', '-c', probe]
  const { error, status, stderr } = spawnSync(program, words, { encoding: 'utf8', timeout: 10_000 })
  if (error !== undefined) return `no hosts can be made here: ${error.message}`
  if (status === 0) return false
  return `no hosts can be made here (user namespaces, veth, bridge and iproute2 are needed): ${stderr.trim()}`
}

export const PORT = 7_411

/** A net of hosts on one switch, each with a net folder's identities, and the commands that run there. */
export class Switch {
  readonly dir: string = mkdtempSync(join(tmpdir(), 'adaptnet-hosts-'))
  readonly #name: string
  readonly #running: HostRunning[] = []

  /** `name` tells the hosts of several switches apart. */
  constructor(name: string) {
    this.#name = name
    this.#batch(null, [`netns add ${name}`])
    // Two bridges without a way between them: a port is on one side or on the other.
    this.#batch(name, [
      'link set lo up',
      ...['near', 'far'].flatMap((bridge) => [
        `link add ${bridge} type bridge mcast_snooping 0`,
        `link set ${bridge} up`,
      ]),
    ])
  }

  address(host: number): string {
    return `10.77.0.${host}`
  }

  /** Plugs hosts in. `IPv6`: with no other address than the one that an interface gives itself. */
  add(hosts: readonly number[], options: { only?: 'IPv6'; down?: boolean } = {}): void {
    this.#batch(
      null,
      hosts.map((host) => `netns add ${this.#host(host)}`),
    )
    this.#batch(
      this.#name,
      hosts.flatMap((host) => [
        `link add p${host} type veth peer name eth0 address ${mac(host)} netns ${this.#host(host)}`,
        `link set p${host} master near up`,
      ]),
    )
    for (const host of hosts) {
      // Known neighbours: after a cut a failed question for one would keep a healed pair apart for seconds.
      const others = Array.from({ length: HOSTS_MAX }, (_, index) => index + 1).filter((other) => other !== host)
      const four = [
        `addr add ${this.address(host)}/24 brd + dev eth0`,
        ...others.map((other) => `neigh replace ${this.address(other)} lladdr ${mac(other)} dev eth0 nud permanent`),
      ]
      this.#batch(this.#host(host), [
        'link set lo up',
        ...(options.only === 'IPv6' ? [] : four),
        ...(options.down === true ? [] : ['link set eth0 up']),
      ])
    }
  }

  /** `ip` in a host. */
  ip(host: number, ...lines: string[]): void {
    this.#batch(this.#host(host), lines)
  }

  /** These hosts are on a side of their own; what the others send goes nowhere, and nobody is told. */
  cut(...hosts: number[]): void {
    this.#batch(
      this.#name,
      hosts.map((host) => `link set p${host} master far`),
    )
  }

  heal(...hosts: number[]): void {
    this.#batch(
      this.#name,
      hosts.map((host) => `link set p${host} master near`),
    )
  }

  /** What one host sends to the other goes nowhere; the other direction is as before. */
  blind(from: number, to: number): void {
    this.ip(from, `neigh replace ${this.address(to)} lladdr ${mac(HOSTS_MAX + 1)} dev eth0 nud permanent`)
  }

  see(from: number, to: number): void {
    this.ip(from, `neigh replace ${this.address(to)} lladdr ${mac(to)} dev eth0 nud permanent`)
  }

  /** The host has no power any more: its processes end, and nobody is told. */
  powerOff(host: number): void {
    this.#batch(this.#name, [`link set p${host} down`])
    for (const running of this.#running) if (running.host === host && !running.over) running.signal('SIGKILL')
  }

  // --- commands

  async admit(...names: string[]): Promise<void> {
    await done('create', this.#folder)
    await Promise.all(
      names.map((name) =>
        name.startsWith('b')
          ? done('admit', this.#folder, name, '--broker')
          : done('admit', this.#folder, name, '--serve', '*', '--call', '*'),
      ),
    )
  }

  /** `adaptnet COMMAND ... --identity NAME`, on a host. */
  start(host: number, command: string, name: string, ...args: string[]): HostRunning {
    const running = new HostRunning(this.#host(host), host, [
      command,
      '--identity',
      join(this.#folder, `${name}.identity`),
      ...args,
    ])
    this.#running.push(running)
    return running
  }

  async broker(host: number, name: string, ...args: string[]): Promise<HostRunning> {
    const running = this.start(host, 'broker', name, '--listen', `0.0.0.0:${PORT}`, '--json', ...args)
    await running.event('listening')
    return running
  }

  async serve(host: number, name: string, ...args: string[]): Promise<HostRunning> {
    const running = this.start(host, 'serve', name, 'echo', '--json', ...args, '--', 'cat')
    await running.event('serving')
    return running
  }

  /** What a call prints, its code and complaint when it fails. */
  async call(host: number, name: string, ...args: string[]): Promise<string> {
    const running = this.start(host, 'call', name, 'echo', '--text', 'hello', '--deadline', '5000', ...args)
    const { code, out, err } = await running.ended
    return code === 0 ? out : `${code} ${err}`
  }

  /** The brokers that are alive in the eyes of the one on a host, by name. */
  async alive(host: number, name: string): Promise<string> {
    const running = this.start(host, 'status', name, `${this.address(host)}:${PORT}`, '--json')
    const { code, out, err } = await running.ended
    if (code !== 0) return err
    const { brokers } = JSON.parse(out) as { brokers: { address: string; state: string }[] }
    const alive = brokers.filter(({ state }) => state === 'alive')
    return alive
      .map(({ address }) => address.split('/')[0] as string)
      .sort()
      .join(' ')
  }

  async end(): Promise<void> {
    for (const running of this.#running) if (!running.over) running.signal('SIGKILL')
    await Promise.all(this.#running.map(({ ended }) => ended))
    rmSync(this.dir, { recursive: true, force: true })
  }

  get #folder(): string {
    return join(this.dir, 'net')
  }

  #host(host: number): string {
    return `${this.#name}-${host}`
  }

  #batch(namespace: string | null, lines: readonly string[]): void {
    const where = namespace === null ? [] : ['-n', namespace]
    execFileSync('ip', [...where, '-batch', '-'], {
      input: `${lines.join('\n')}\n`,
      stdio: ['pipe', 'ignore', 'inherit'],
    })
  }
}

const HOSTS_MAX = 9
/** Long enough for any machine: what fails waits for it, nothing else does. */
const LIMIT_MS = 60_000
const mac = (host: number): string => `02:00:00:00:00:0${host.toString(16)}`

export class HostRunning extends Running {
  readonly host: number

  constructor(namespace: string, host: number, args: readonly string[]) {
    super(args, '', ['ip', 'netns', 'exec', namespace])
    this.host = host
  }

  override event(
    type: string,
    matching?: (event: Record<string, unknown>) => boolean,
    options: { after?: number; limitMs?: number } = {},
  ): Promise<Record<string, unknown>> {
    return super.event(type, matching, { limitMs: LIMIT_MS, ...options })
  }
}
