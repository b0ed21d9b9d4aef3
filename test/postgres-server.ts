/** A PostgreSQL server for tests: its own folder, port and socket; stopped and deleted at the end. */
import { spawn, spawnSync } from 'node:child_process'
import { chmodSync, chownSync, existsSync, mkdtempSync, readFileSync, readdirSync, rmSync } from 'node:fs'
import { createServer } from 'node:net'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import postgres from 'postgres'

export interface PostgresServer {
  /** Connects; ended by the caller or with the server. */
  connect: (options?: { database?: string; max?: number; connect_timeout?: number }) => postgres.Sql
  stop: (mode?: 'fast' | 'immediate') => Promise<void>
  start: () => Promise<void>
  /** Stops the server and deletes its folder. */
  close: () => Promise<void>
}

/** The folder of the server's programs, or null. */
export function postgresPrograms(): string | null {
  const debian = '/usr/lib/postgresql'
  const versions = existsSync(debian) ? readdirSync(debian).sort((one, other) => Number(other) - Number(one)) : []
  const folders = [
    ...versions.map((version) => join(debian, version, 'bin')),
    ...(process.env['PATH'] ?? '').split(':'),
  ]
  return folders.find((folder) => existsSync(join(folder, 'initdb')) && existsSync(join(folder, 'postgres'))) ?? null
}

/** The server refuses to run as root: root runs it as the user of Debian's package. */
function serverUser(): { uid: number; gid: number } | null {
  if (process.getuid?.() !== 0) return null
  const [, , uid, gid] = /^postgres:.*$/m.exec(readFileSync('/etc/passwd', 'utf8'))?.[0]?.split(':') ?? []
  return uid === undefined || gid === undefined ? { uid: 65_534, gid: 65_534 } : { uid: Number(uid), gid: Number(gid) }
}

async function freePort(): Promise<number> {
  const server = createServer()
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as AddressInfo
  await new Promise((resolve) => server.close(resolve))
  return port
}

export async function startPostgres(programs: string): Promise<PostgresServer> {
  const user = serverUser()
  const folder = mkdtempSync(join(tmpdir(), 'adaptnet-pg-'))
  if (user !== null) chownSync(folder, user.uid, user.gid)
  chmodSync(folder, 0o700)
  const data = join(folder, 'data')
  const as = { ...user, cwd: folder, env: { PATH: process.env['PATH'], LC_ALL: 'C' } }
  const made = spawnSync(
    join(programs, 'initdb'),
    ['--pgdata', data, '--username', 'tester', '--auth', 'trust', '--encoding', 'UTF8', '--no-sync'],
    { ...as, encoding: 'utf8' },
  )
  if (made.status !== 0) throw new Error(`initdb: ${made.stderr}${String(made.error ?? '')}`)
  const port = await freePort()
  const settings = ['fsync=off', 'max_connections=100', 'shared_buffers=16MB', `unix_socket_directories=${folder}`]
  const clients: postgres.Sql[] = []
  let server: ReturnType<typeof spawn> | null = null
  let said = ''

  const connect: PostgresServer['connect'] = (options = {}) => {
    const to = { host: '127.0.0.1', port, user: 'tester', database: 'postgres' }
    const made = postgres({ ...to, max: 5, backoff: () => 0.05, connect_timeout: 2, onnotice: () => {}, ...options })
    clients.push(made)
    return made
  }

  const start = async (): Promise<void> => {
    const flags = settings.flatMap((setting) => ['-c', setting])
    const command = [join(programs, 'postgres'), '-D', data, '-h', '127.0.0.1', '-p', String(port), ...flags]
    // If this process is killed, so is the server, where the kernel can do that.
    const tied = existsSync('/usr/bin/setpriv')
      ? ['/usr/bin/setpriv', '--pdeathsig', 'QUIT', '--', ...command]
      : command
    const running = spawn(tied[0] as string, tied.slice(1), { ...as, stdio: ['ignore', 'ignore', 'pipe'] })
    server = running
    running.stderr.on('data', (chunk: Buffer) => (said += chunk.toString()))
    process.once('exit', () => running.kill('SIGQUIT'))
    const deadlineMs = performance.now() + 60_000
    for (;;) {
      if (running.exitCode !== null || performance.now() > deadlineMs) throw new Error(`the server: ${said}`)
      const probe = connect({ max: 1, connect_timeout: 5 })
      const ready = await probe`SELECT 1`.then(
        () => true,
        () => false,
      )
      await probe.end({ timeout: 0 })
      if (ready) return
      await new Promise((resolve) => setTimeout(resolve, 20))
    }
  }

  const stop = async (mode: 'fast' | 'immediate' = 'fast'): Promise<void> => {
    const running = server
    if (running === null || running.exitCode !== null || running.signalCode !== null) return
    const gone = new Promise((resolve) => running.once('exit', resolve))
    running.kill(mode === 'fast' ? 'SIGINT' : 'SIGQUIT')
    await gone
  }

  const close = async (): Promise<void> => {
    await Promise.all(clients.map((client) => client.end({ timeout: 0 })))
    await stop('immediate')
    rmSync(folder, { recursive: true, force: true })
  }

  try {
    await start()
  } catch (error) {
    await close()
    throw error
  }
  return { connect, start, stop, close }
}
