/**
 * Loaded before the program of each process of `adaptnet start`: the process ends with its parent, even one that was
 * killed and could clear up nothing, and tells now and then what CPU time it has used, so that the figure of a process
 * that is killed is not lost. A broker stays the very command that users run; it knows nothing of this.
 *
 * The address of this module names the folder of the run: `tether.js?folder=...`.
 */
import { rmSync } from 'node:fs'
import type { FromChild } from './messages.ts'
import { CPU_EVERY_MS } from './messages.ts'

function tellCpu(): void {
  const { user, system } = process.cpuUsage()
  const message: FromChild = { type: 'cpu', microseconds: user + system }
  // A channel that is closing takes nothing; 'disconnect' follows and ends this process.
  process.send?.(message, undefined, undefined, () => {})
}

function endWithParent(): never {
  if (folder !== null) rmSync(folder, { recursive: true, force: true })
  process.exit(1)
}

const folder = new URL(import.meta.url).searchParams.get('folder')
process.on('disconnect', endWithParent)
if (!process.connected) endWithParent()
// A listener keeps the channel, and so the process, alive: a broker that has drained must be able to end by itself.
process.channel?.unref()
setInterval(tellCpu, CPU_EVERY_MS).unref()
