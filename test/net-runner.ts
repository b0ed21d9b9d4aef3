import { statSync } from 'node:fs'
import { net } from '../lib/cli/net.ts'
import { AdaptnetError } from '../protocol/errors.ts'

export interface Outcome {
  code: number
  out: string
  err: string
}

/** `adaptnet net ...` in this process. */
export async function run(...args: string[]): Promise<Outcome> {
  const out: string[] = []
  const err: string[] = []
  const code = await net(args, { out: (line) => out.push(line), err: (line) => err.push(line) })
  return { code, out: out.join('\n'), err: err.join('\n') }
}

export async function done(...args: string[]): Promise<string> {
  const { code, out, err } = await run(...args)
  if (code !== 0) throw new Error(`exit ${code}: ${err}`)
  return out
}

export async function doneJson(...args: string[]): Promise<Record<string, unknown>> {
  return JSON.parse(await done(...args, '--json')) as Record<string, unknown>
}

export async function failure(promise: Promise<unknown>): Promise<AdaptnetError | null> {
  try {
    await promise
  } catch (error) {
    if (error instanceof AdaptnetError) return error
    throw error
  }
  return null
}

export const codeOf = async (promise: Promise<unknown>): Promise<string | null> =>
  (await failure(promise))?.code ?? null
export const modeOf = (path: string): string => (statSync(path).mode & 0o777).toString(8)
