/** `adaptnet call`: calls a service once and writes its reply, or many times and says how that went. */
import { createReadStream } from 'node:fs'
import { BROKER_PORT, PAYLOAD_BYTES_MAX, RETRY_COUNT_MAX, TIME_TO_LIVE_MS_MAX } from '../../protocol/constants.ts'
import { AdaptnetError } from '../../protocol/errors.ts'
import type { Node } from '../node/node.ts'
import type { Delivery, RequestOptions, Seal } from '../node/options.ts'
import { planRequest } from '../node/options.ts'
import type { Reply } from '../node/pending-request.ts'
import { connect } from '../transport/connect.ts'
import { BEACON_OPTIONS, beaconHelp, beaconOf } from './beacon-options.ts'
import { callRepeatedly } from './call-repeat.ts'
import type { CommandIo } from './command.ts'
import { UsageError, parseInteger, runCommand, tellFailure } from './command.ts'
import { readOwnIdentity, revocationsBeside } from './own-identity.ts'
import { SignalExit, Stop } from './stop.ts'

const REPEAT_MAX = 1_000_000_000
const CONCURRENCY_MAX = 16_384

const SHAPE = {
  operands: ['SERVICE'],
  options: {
    identity: { type: 'string' },
    broker: { type: 'string', multiple: true },
    ...BEACON_OPTIONS,
    file: { type: 'string' },
    text: { type: 'string' },
    timeout: { type: 'string' },
    retries: { type: 'string' },
    deadline: { type: 'string' },
    delivery: { type: 'string' },
    seal: { type: 'string' },
    repeat: { type: 'string' },
    concurrency: { type: 'string' },
    plain: { type: 'boolean' },
    json: { type: 'boolean' },
  },
  usage: `usage: adaptnet call SERVICE --identity FILE [--broker HOST:PORT]... [--beacon] [--file FILE | --text TEXT]
                     [--timeout MS] [--retries N] [--deadline MS] [--delivery MODE] [--seal MODE]
                     [--repeat N] [--concurrency N] [--plain] [--json]

Calls SERVICE and writes the reply's payload to standard output, as it is. The payload is read from standard input
unless --file or --text gives it. With --repeat it calls many times and ends with a table.

  --identity FILE     an identity admitted with --call SERVICE
  --broker HOST:PORT  a broker to start with; the others are learned from it; 127.0.0.1:${BROKER_PORT} by default; also
                      srv:NAME for SRV records, file:PATH for a file with one a line
  --beacon            find brokers on the local network; instead of --broker, or beside it
${beaconHelp(22)}
  --file FILE         the payload is what FILE holds
  --text TEXT         the payload is TEXT
  --timeout MS        how long one attempt waits for its answer
  --retries N         how many attempts may follow the first
  --deadline MS       how long all attempts together may take
  --delivery MODE     at-least-once (default), at-most-once or exactly-once
  --seal MODE         auto (default): seal the payload if a key of SERVICE is known; required: send nothing otherwise;
                      or never
  --repeat N          call N times
  --concurrency N     with --repeat: so many at a time, 1 by default
  --plain             no encryption, where the brokers run so too
  --json              print one JSON object

example: adaptnet call upper --identity net/client.identity --text hello`,
} as const

/** `adaptnet call ...`; gives the exit code. */
export function call(args: string[], io: CommandIo): Promise<number> {
  return runCommand(SHAPE, args, io, async ({ values, operands }) => {
    const [service = ''] = operands
    const { identity, file, text, json } = values
    if (identity === undefined) throw new UsageError('--identity is missing')
    if (file !== undefined && text !== undefined) throw new UsageError('--file and --text exclude each other')
    const times = { min: 1, max: TIME_TO_LIVE_MS_MAX }
    const request = withoutUndefined({
      timeoutMs: parseInteger(values.timeout, '--timeout', times),
      retries: parseInteger(values.retries, '--retries', { min: 0, max: RETRY_COUNT_MAX }),
      deadlineMs: parseInteger(values.deadline, '--deadline', times),
      // Judged by the next line, which knows the modes.
      delivery: values.delivery as Delivery | undefined,
      seal: values.seal as Seal | undefined,
    })
    planRequest(request)
    const repeat = parseInteger(values.repeat, '--repeat', { min: 1, max: REPEAT_MAX }) ?? 1
    const concurrency = parseInteger(values.concurrency, '--concurrency', { min: 1, max: CONCURRENCY_MAX }) ?? 1
    if (concurrency > 1 && values.repeat === undefined) throw new UsageError('--concurrency needs --repeat')
    const beacon = beaconOf(values)
    const stop = new Stop((signal) => SignalExit[signal])
    try {
      const payload = text === undefined ? await readPayload(file, stop) : Buffer.from(text)
      const warn = (text: string): void => io.err(`adaptnet: warning: ${text}`)
      const own = await readOwnIdentity(identity, warn)
      const node = await connect({
        identity: own,
        brokers: values.broker ?? (beacon === false ? [`127.0.0.1:${BROKER_PORT}`] : []),
        beacon,
        mode: values.plain === true ? 'plain' : 'noise',
        ...(await revocationsBeside(identity, own, warn)),
        signal: stop.signal,
      })
      try {
        if (repeat === 1) return await callOnce({ node, service, payload, request, stop, json: json === true }, io)
        const options = { node, service, payload, request, repeat, concurrency, stop }
        return await callRepeatedly(options, json === true, io)
      } finally {
        await node.close()
      }
    } catch (error) {
      if (stop.first === null || !(error instanceof AdaptnetError)) throw error
      tellFailure(error, json === true, io)
      return SignalExit[stop.first]
    } finally {
      stop.release()
    }
  })
}

interface SingleCall {
  node: Node
  service: string
  payload: Buffer
  request: RequestOptions
  stop: Stop
  json: boolean
}

async function callOnce(options: SingleCall, io: CommandIo): Promise<void> {
  const { node, service, payload, request, stop } = options
  if (stop.first !== null) throw new AdaptnetError('CANCELLED')
  const reply = await node.request(service, payload, { ...request, signal: stop.signal })
  if (options.json) io.out(JSON.stringify(asJson(reply)))
  else await writeRaw(reply.payload)
}

function asJson(reply: Reply): Record<string, unknown> {
  const { payload, worker, broker, attempts, possibleDuplicate, elapsedMs } = reply
  const facts = { worker, broker, attempts, possibleDuplicate, elapsedMs: Math.round(elapsedMs * 1_000) / 1_000 }
  return { payload: payload.toString('base64'), text: asText(payload), ...facts }
}

/** Undefined for bytes that are not UTF-8: JSON then leaves the field out. */
function asText(payload: Buffer): string | undefined {
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(payload)
  } catch (error) {
    if (error instanceof TypeError) return undefined
    throw error
  }
}

/** Not by `io.out`: a payload is bytes, and need not end a line. */
function writeRaw(payload: Buffer): Promise<void> {
  return new Promise((resolve, reject) => {
    process.stdout.write(payload, (error) => (error instanceof Error ? reject(error) : resolve()))
  })
}

/** All that the file or standard input holds, up to what a request can carry. */
async function readPayload(file: string | undefined, stop: Stop): Promise<Buffer> {
  const { signal } = stop
  const input = file === undefined ? process.stdin : createReadStream(file)
  const interrupt = (): void => void input.destroy()
  signal.addEventListener('abort', interrupt)
  const chunks: Buffer[] = []
  let bytes = 0
  try {
    for await (const chunk of input as AsyncIterable<Buffer>) {
      bytes += chunk.length
      if (bytes > PAYLOAD_BYTES_MAX)
        throw new AdaptnetError('TOO_LARGE', `the payload has more than ${PAYLOAD_BYTES_MAX} bytes`, { attempts: 0 })
      chunks.push(chunk)
    }
  } catch (cause) {
    if (stop.first !== null) throw new AdaptnetError('CANCELLED', undefined, { cause, attempts: 0 })
    if (cause instanceof AdaptnetError) throw cause
    const why = cause instanceof Error && 'code' in cause ? String(cause.code) : String(cause)
    throw new AdaptnetError('INVALID_ARGUMENT', `${file ?? 'standard input'} cannot be read: ${why}`, { cause })
  } finally {
    signal.removeEventListener('abort', interrupt)
  }
  return Buffer.concat(chunks)
}

function withoutUndefined<Value extends object>(
  value: Value,
): { [Key in keyof Value]?: Exclude<Value[Key], undefined> } {
  return Object.fromEntries(Object.entries(value).filter(([, field]) => field !== undefined)) as {
    [Key in keyof Value]?: Exclude<Value[Key], undefined>
  }
}
