#!/usr/bin/env node
/**
 * The command `adaptnet`: finds the command that is meant and gives its exit code. Each command is loaded when it is
 * asked for, so that `--help` need not load the cryptography first.
 */
import { AdaptnetError } from '../../protocol/errors.ts'
import { VERSION } from '../version.ts'
import type { CommandIo } from './command.ts'
import { ExitCode, wrongUsage, tellFailure } from './command.ts'

type Run = (args: string[], io: CommandIo) => Promise<number>

const COMMANDS: Readonly<Record<string, () => Promise<Run>>> = {
  start: async () => (await import('./start.ts')).start,
  net: async () => (await import('./net.ts')).net,
  broker: async () => (await import('./broker.ts')).broker,
  serve: async () => (await import('./serve.ts')).serve,
  call: async () => (await import('./call.ts')).call,
  status: async () => (await import('./status.ts')).status,
  inspect: async () => (await import('./inspect.ts')).inspect,
  check: async () => (await import('./check.ts')).check,
  conformance: async () => (await import('./conformance.ts')).conformance,
  bench: async () => (await import('./bench.ts')).bench,
}

const USAGE = `usage: adaptnet COMMAND [ARG...]

  start        runs a net on this machine, kills parts of it and shows that nothing is lost
  net          makes a net, and says who belongs to it
  broker       runs a broker
  serve        makes any program a worker
  call         calls a service, once or many times
  status       asks a broker how it is
  inspect      decodes captured bytes
  check        judges histories that nodes have written
  conformance  judges another implementation by SPEC.md
  bench        measures round trips through a net

  --help       this text; adaptnet COMMAND --help tells more
  --version    the version of this program

example: adaptnet start`

const io: CommandIo = {
  out: (line) => void process.stdout.write(`${line}\n`),
  err: (line) => void process.stderr.write(`${line}\n`),
}

async function main(args: string[]): Promise<number> {
  const [name, ...rest] = args
  if (name === '--help' || name === '-h') {
    io.out(USAGE)
    return ExitCode.DONE
  }
  if (name === '--version') {
    io.out(VERSION)
    return ExitCode.DONE
  }
  const load = name !== undefined && Object.hasOwn(COMMANDS, name) ? COMMANDS[name] : undefined
  if (load === undefined)
    return wrongUsage(USAGE, name === undefined ? 'a command is missing' : `there is no command '${name}'`, io)
  const run = await load()
  return run(rest, io)
}

// Whoever reads the output has gone, as in `adaptnet ... | head`: there is nobody left to tell anything.
for (const stream of [process.stdout, process.stderr])
  stream.on('error', (error: NodeJS.ErrnoException) => {
    if (error.code !== 'EPIPE') throw error
    process.exit()
  })

try {
  process.exitCode = await main(process.argv.slice(2))
} catch (error) {
  if (error instanceof AdaptnetError) process.exitCode = tellFailure(error, false, io)
  else {
    io.err(error instanceof Error ? (error.stack ?? error.message) : String(error))
    process.exitCode = ExitCode.FAILED
  }
}
