import { AdaptnetError } from '../../protocol/errors.ts'
import type { CommandIo } from './command.ts'
import { ExitCode } from './command.ts'

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

/** Runs what a command does; an AdaptnetError is told, anything else goes on to the caller. */
export async function tellingFailures(
  asJson: boolean | undefined,
  io: CommandIo,
  action: () => Promise<number | void>,
): Promise<number> {
  try {
    return (await action()) ?? ExitCode.DONE
  } catch (error) {
    if (error instanceof AdaptnetError) return tellFailure(error, asJson === true, io)
    throw error
  }
}
