/** Where the time of a process goes, while it is asked for. */
import { writeFileSync } from 'node:fs'
import { Session } from 'node:inspector/promises'
import { PerformanceObserver, constants } from 'node:perf_hooks'
import type { PerformanceEntry } from 'node:perf_hooks'
import type { Collections } from './end.ts'

const SAMPLING_MICROSECONDS = 200

const inspector = new Session()
const collections: Collections = { minor: 0, major: 0, milliseconds: 0 }
const collector = new PerformanceObserver((list) => {
  for (const entry of list.getEntries()) {
    const { duration } = entry
    const { kind } = (entry as PerformanceEntry & { detail: { kind: number } }).detail
    if (kind === constants.NODE_PERFORMANCE_GC_MINOR) collections.minor += 1
    if (kind === constants.NODE_PERFORMANCE_GC_MAJOR) collections.major += 1
    collections.milliseconds += duration
  }
})

export async function startProfile(): Promise<null> {
  inspector.connect()
  collector.observe({ entryTypes: ['gc'] })
  await inspector.post('Profiler.enable')
  await inspector.post('Profiler.setSamplingInterval', { interval: SAMPLING_MICROSECONDS })
  await inspector.post('Profiler.start')
  return null
}

/** Writes what was recorded, as viewers of flame charts read it; gives what was collected meanwhile. */
export async function stopProfile(path: string): Promise<Collections> {
  const { profile } = await inspector.post('Profiler.stop')
  inspector.disconnect()
  writeFileSync(path, JSON.stringify(profile))
  return collections
}
