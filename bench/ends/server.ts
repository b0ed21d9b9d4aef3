/**
 * Watches over a server that is not ours: starts it, tells what it costs, and ends it with this process, so that nothing
 * is left running whatever becomes of the bench.
 */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync, readdirSync } from 'node:fs'
import net from 'node:net'
import type { End, MemoryUse } from './end.ts'

export interface ServerSettings {
  command: string
  args: readonly string[]
  env?: Readonly<Record<string, string>>
  /** It is ready when it accepts connections here. */
  port: number
  readyMs: number
}

const POLL_MS = 50

export async function startServer(settings: ServerSettings): Promise<End> {
  const { command, args, env, port, readyMs } = settings
  const child = spawn(command, args, { stdio: 'ignore', env: { ...process.env, ...env } })
  // A server may be a script that starts the real one: all of its descendants end.
  process.on('exit', () => {
    for (const pid of child.pid === undefined ? [] : familyOf(child.pid)) endProcess(pid)
  })
  process.on('SIGTERM', () => process.exit(0))
  const end: { why: string | null } = { why: null }
  child.on('error', (error) => (end.why = error.message))
  child.on('exit', (code) => (end.why = `it ended with ${code}`))
  const deadlineMs = performance.now() + readyMs
  while (!(await accepts(port))) {
    if (end.why !== null) throw new Error(`${command}: ${end.why}`)
    if (performance.now() > deadlineMs) throw new Error(`${command} did not listen within ${readyMs} ms`)
    await new Promise((resolve) => setTimeout(resolve, POLL_MS))
  }
  const pid = child.pid as number
  return {
    ready: { pid },
    verbs: {
      cpu: () => Promise.resolve(sum(familyOf(pid).map(cpuMicroseconds))),
      memory: () => {
        const all = familyOf(pid).map(memoryOf)
        return Promise.resolve({
          rssBytes: sum(all.map(({ rssBytes }) => rssBytes)),
          peakBytes: sum(all.map(({ peakBytes }) => peakBytes)),
          heldBytes: sum(all.map(({ heldBytes }) => heldBytes)),
        })
      },
    },
  }
}

async function accepts(port: number): Promise<boolean> {
  const socket = net.connect({ host: '127.0.0.1', port })
  try {
    await once(socket, 'connect')
    return true
  } catch {
    return false
  } finally {
    socket.destroy()
  }
}

/** A process and all that come from it; one that ends meanwhile is left out. */
function familyOf(root: number): number[] {
  const parents = new Map<number, number>()
  for (const name of readdirSync('/proc')) {
    if (!/^\d+$/.test(name)) continue
    // pid (command) state ppid ...: the command may hold anything.
    const parent = /^.*\) \S (\d+) /s.exec(readIfThere(`/proc/${name}/stat`))?.[1]
    if (parent !== undefined) parents.set(Number(name), Number(parent))
  }
  const family = [root]
  for (let index = 0; index < family.length; index++)
    for (const [pid, parent] of parents) if (parent === family[index]) family.push(pid)
  return family
}

function endProcess(pid: number): void {
  try {
    process.kill(pid, 'SIGKILL')
  } catch (error) {
    // It has ended by itself.
    if (!(error instanceof Error && 'code' in error && error.code === 'ESRCH')) throw error
  }
}

function readIfThere(path: string): string {
  try {
    return readFileSync(path, 'latin1')
  } catch {
    return ''
  }
}

function sum(values: readonly number[]): number {
  return values.reduce((all, value) => all + value, 0)
}

/** Time on a processor of all threads, as the scheduler has counted it. */
function cpuMicroseconds(pid: number): number {
  let nanoseconds = 0
  for (const task of readdirSync(`/proc/${pid}/task`))
    nanoseconds += Number(readIfThere(`/proc/${pid}/task/${task}/schedstat`).split(' ')[0])
  return nanoseconds / 1_000
}

function memoryOf(pid: number): MemoryUse {
  const status = readIfThere(`/proc/${pid}/status`)
  const bytes = (name: string): number =>
    Number(new RegExp(`^${name}:\\s+(\\d+) kB`, 'm').exec(status)?.[1] ?? 0) * 1_024
  return { rssBytes: bytes('VmRSS'), peakBytes: bytes('VmHWM'), heldBytes: bytes('VmRSS') }
}
