/**
 * What every command of `adaptnet` shares: how arguments are read, what `--help` and a mistake print, and the exit codes,
 * which are a contract: 0 done, 1 failed, 2 wrong usage.
 *
 * A command describes itself as data and hands its work to `runCommand`:
 *
 *     const command = { usage: USAGE, operands: ['DIR', '[NAME]'], options: { days: { type: 'string' } } } as const
 *     export const prune = (args: string[], io: CommandIo): Promise<number> =>
 *       runCommand(command, args, io, async ({ values, operands }) => { ... })
 *
 * Its results go to `io.out`, one line a call; whatever is for the person beside them (progress, warnings, mistakes) goes
 * to `io.err`, so that a pipe gets the results alone.
 */
import { parseArgs } from 'node:util'
import type { ParseArgsConfig } from 'node:util'
import { AdaptnetError } from '../../protocol/errors.ts'

export interface CommandIo {
  out(line: string): void
  err(line: string): void
}

/** As node's parseArgs has them: `{ days: { type: 'string' }, json: { type: 'boolean' } }`, `multiple` for lists. */
export type CommandOptions = NonNullable<ParseArgsConfig['options']>

export const ExitCode = {
  DONE: 0,
  FAILED: 1,
  WRONG_USAGE: 2,
} as const
export type ExitCode = (typeof ExitCode)[keyof typeof ExitCode]

/** The person asked for something that the command does not have. `runCommand` prints it with the usage and gives 2. */
export class UsageError extends Error {
  override readonly name = 'UsageError'
}

export interface CommandShape<Options extends CommandOptions> {
  /** Printed by `--help`, and after a mistake. Its first line is `usage: adaptnet ...`. */
  usage: string
  /** In order: `NAME` must be there, `[NAME]` may, `[NAME...]` takes all that are left. */
  operands: readonly string[]
  options: Options
  /** What stands behind `--`, where a command takes the words of another program; otherwise `--` only ends the options. */
  rest?: string
}

type OptionValues<Options extends CommandOptions> = ReturnType<
  typeof parseArgs<{ args: string[]; options: Options; allowPositionals: true; strict: true }>
>['values']

export interface ParsedCommand<Options extends CommandOptions> {
  values: OptionValues<Options>
  /** As many as the shape demands, at least. */
  operands: string[]
  rest: string[]
}

/** Whether help is asked for, before anything is judged: `--help` answers also where other arguments are wrong. */
export function wantsHelp(args: readonly string[]): boolean {
  const end = args.indexOf('--')
  return (end === -1 ? args : args.slice(0, end)).some((arg) => arg === '--help' || arg === '-h')
}

/** Reads the arguments by the shape. Throws UsageError for unknown, missing and surplus ones. */
export function parseCommand<Options extends CommandOptions>(
  shape: CommandShape<Options>,
  args: readonly string[],
): ParsedCommand<Options> {
  const end = shape.rest === undefined ? -1 : args.indexOf('--')
  const own = end === -1 ? [...args] : args.slice(0, end)
  const rest = end === -1 ? [] : args.slice(end + 1)
  if (shape.rest !== undefined && rest.length === 0) throw new UsageError(`-- ${shape.rest} is missing`)
  let values: OptionValues<Options>
  let operands: string[]
  try {
    const parsed = parseArgs({ args: own, options: shape.options, allowPositionals: true, strict: true })
    values = parsed.values as OptionValues<Options>
    operands = parsed.positionals
  } catch (cause) {
    // Only the first sentence: the others of node's texts explain a syntax that is not documented here.
    const text = cause instanceof Error ? cause.message : String(cause)
    throw new UsageError(text.split(/\. (?=To specify|Did you)/)[0] ?? text, { cause })
  }
  const needed = shape.operands.filter((operand) => !operand.startsWith('['))
  const missing = needed.slice(operands.length)
  if (missing.length > 0) throw new UsageError(`${missing.join(' and ')} ${missing.length > 1 ? 'are' : 'is'} missing`)
  const endless = shape.operands.some((operand) => operand.endsWith('...]'))
  const surplus = operands[shape.operands.length]
  if (!endless && surplus !== undefined) throw new UsageError(`unexpected argument '${surplus}'`)
  return { values, operands, rest }
}

/** An option's integer; undefined stays undefined. Throws UsageError outside [min, max]. */
export function parseInteger(
  text: string | undefined,
  option: string,
  range: { min: number; max: number },
): number | undefined {
  if (text === undefined) return undefined
  const value = /^\d{1,15}$/.test(text) ? Number(text) : Number.NaN
  if (!(value >= range.min && value <= range.max))
    throw new UsageError(`${option} '${text}' is not an integer from ${range.min} to ${range.max}`)
  return value
}

/**
 * Reads the arguments, runs the command and gives the exit code: what `action` returns, or 0. An AdaptnetError is told
 * with its code (as JSON when `--json` was given) and gives 1; a UsageError gives 2 with the usage, and INVALID_ARGUMENT
 * gives 2 without it, because its sentence names the value. Anything else is a fault of this program: it is told whole.
 */
export async function runCommand<Options extends CommandOptions>(
  shape: CommandShape<Options>,
  args: readonly string[],
  io: CommandIo,
  action: (parsed: ParsedCommand<Options>) => Promise<number | void>,
): Promise<number> {
  if (wantsHelp(args)) {
    io.out(shape.usage)
    return ExitCode.DONE
  }
  let asJson = false
  try {
    const parsed = parseCommand(shape, args)
    asJson = (parsed.values as Record<string, unknown>)['json'] === true
    return (await action(parsed)) ?? ExitCode.DONE
  } catch (error) {
    if (error instanceof UsageError) return wrongUsage(shape.usage, error.message, io)
    if (!(error instanceof AdaptnetError)) {
      io.err(error instanceof Error ? (error.stack ?? error.message) : String(error))
      return ExitCode.FAILED
    }
    return tellFailure(error, asJson, io)
  }
}

/**
 * Tells an error of this library in one line, its stable code first, so that a script can cut it off; or as an object.
 * Gives the exit code.
 */
export function tellFailure(error: AdaptnetError, asJson: boolean, io: CommandIo): ExitCode {
  const { code, message, attempts, retryAfterMs } = error
  if (asJson) io.err(JSON.stringify({ code, message, attempts, retryAfterMs }))
  else io.err(`adaptnet: ${code}: ${message}`)
  return code === 'INVALID_ARGUMENT' ? ExitCode.WRONG_USAGE : ExitCode.FAILED
}

/** Tells a mistake with the usage; for those who choose a command before there is a shape. */
export function wrongUsage(usage: string, message: string, io: CommandIo): ExitCode {
  io.err(`adaptnet: ${message}`)
  io.err(usage)
  return ExitCode.WRONG_USAGE
}
