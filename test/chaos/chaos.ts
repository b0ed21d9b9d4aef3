/** `npm run chaos`: real processes, real sockets, real kills; afterwards every request is accounted for. */
import { randomInt } from 'node:crypto'
import { ExitCode, parseInteger, runCommand } from '../../lib/cli/command.ts'
import type { CommandIo } from '../../lib/cli/command.ts'
import { Progress } from '../../lib/cli/progress.ts'
import { SignalExit } from '../../lib/cli/stop.ts'
import { describeFault, formatVerdict } from './report.ts'
import { runChaos } from './run.ts'
import type { ChaosListener, ChaosOptions } from './run.ts'

const SECONDS_MAX = 7 * 24 * 3_600

const SHAPE = {
  operands: [],
  options: {
    minutes: { type: 'string' },
    seconds: { type: 'string' },
    seed: { type: 'string' },
    window: { type: 'string' },
    think: { type: 'string' },
    json: { type: 'boolean' },
    keep: { type: 'boolean' },
  },
  usage: `usage: npm run chaos -- [--minutes N | --seconds N] [--seed S] [--window N] [--think MS] [--json] [--keep]

Runs 3 brokers, 4 workers with durable journals and 4 clients on this machine, a process each. Nodes reach brokers through
proxies. By the plan of the seed, processes are killed, stopped and told to leave, connections reset, cut, stalled and
slowed. At any time at least one broker and one worker are untouched. At the end all is healed, and each request must
have been answered, or have ended as its promise allows; no effect may be there twice that must be there once.

  --minutes N    how long faults happen (1)         --seed S    the plan of faults (by default another each time)
  --window N     requests out in each client (12)   --think MS  longest pause of each between two (10)
  --json         one JSON object per line           --keep      leave the folder with histories and effects

Ctrl-C ends the faults: what was asked is still answered and judged. A second one ends everything at once.
Exit codes: 0 all is as promised, 1 it is not, 2 wrong usage.`,
} as const

const io: CommandIo = { out: (line) => console.log(line), err: (line) => console.error(line) }

process.exitCode = await runCommand(SHAPE, process.argv.slice(2), io, async ({ values }) => {
  const number = (name: keyof typeof values, ifMissing: number, min: number, max: number): number =>
    parseInteger(values[name] as string | undefined, `--${name}`, { min, max }) ?? ifMissing
  const options = {
    seconds: number('seconds', 60 * number('minutes', 1, 1, SECONDS_MAX / 60), 1, SECONDS_MAX),
    seed: number('seed', randomInt(1_000_000), 0, 2 ** 32 - 1),
    window: number('window', 12, 1, 1_000),
    thinkMs: number('think', 10, 0, 60_000),
    keep: values.keep === true,
  }
  const interrupted = new AbortController()
  const interrupt = (): void => {
    // Whatever ends this process ends its children: see ChaosNet.
    if (interrupted.signal.aborted) process.exit(SignalExit.SIGINT)
    interrupted.abort()
  }
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) process.on(signal, interrupt)
  const { listener, end } = values.json === true ? jsonListener() : personListener(options)
  const verdict = await runChaos(options, listener, interrupted.signal)
  end()
  const { accounts, ...rest } = verdict
  if (values.json === true)
    io.out(JSON.stringify({ type: 'result', ...rest, accounts: { ...accounts, orphans: undefined } }))
  else for (const line of formatVerdict(verdict)) io.out(line)
  return verdict.ok ? ExitCode.DONE : ExitCode.FAILED
})

interface Listening {
  listener: ChaosListener
  /** Nothing follows. */
  end: () => void
}

function personListener({ seed, seconds }: ChaosOptions): Listening {
  io.out(`chaos: seed ${seed}, ${seconds} s`)
  const progress = new Progress(process.stderr, { label: 'calls ended' })
  let faults = 0
  return {
    listener: {
      phase: (text) => console.error(text),
      started: () => undefined,
      begins: () => (faults += 1),
      ends: () => undefined,
      progress: (ended, left) => progress.update(ended, `${faults} faults, ${left.toFixed(0)} s left`),
    },
    end: () => progress.end(),
  }
}

function jsonListener(): Listening {
  const write = (event: object): void => io.out(JSON.stringify(event))
  return {
    listener: {
      phase: (text) => write({ type: 'phase', text }),
      started: (process, pid) => write({ type: 'started', process, pid }),
      begins: (happened) => write({ type: 'fault', ...describeFault(happened) }),
      ends: (happened) => write({ type: 'healed', ...describeFault(happened) }),
      progress: (ended, secondsLeft) => write({ type: 'progress', ended, secondsLeft: Math.round(secondsLeft) }),
    },
    end: () => undefined,
  }
}
