/** Envelopes as brokers and workers read them, by offset, against the same envelopes read through Avro. */
import { decodeEnvelope, encodeEnvelope, EnvelopeEnd } from '../../../protocol/envelope.ts'
import { Route, patchTimeToLive } from '../../../protocol/route.ts'
import { attempt, expect } from '../target.ts'
import type { Target } from '../target.ts'
import * as good from './good.ts'

/** What stands around an envelope in a record: whoever reads beyond its end finds good bytes there. */
const MARGIN = encodeEnvelope(good.envelopes[0] as (typeof good.envelopes)[0])
const BYTES_MAX = 4_096

const route = new Route()
const end = new EnvelopeEnd()
const bytes = Buffer.alloc(MARGIN.length * 2 + BYTES_MAX)
MARGIN.copy(bytes)

function judge(input: Buffer): string {
  const start = MARGIN.length
  const stop = start + input.length
  input.copy(bytes, start)
  MARGIN.copy(bytes, stop)
  const routed = route.read(bytes, start, stop)
  const whole = attempt(() => decodeEnvelope(bytes.subarray(start, stop)))
  if (!routed) return whole.code === null ? 'read by Avro only' : 'not read'
  const { receiverStart, receiverEnd, senderStart, senderEnd, timeToLiveStart, timeToLiveEnd } = route
  const order = [start + 32, receiverStart, receiverEnd, senderStart, senderEnd, timeToLiveStart, timeToLiveEnd, stop]
  expect(
    order.every((position, index) => index === 0 || position >= (order[index - 1] as number)),
    'positions of a route are not in order inside it',
  )
  const readable = attempt(() => end.read(bytes, route, stop))
  if (readable.code !== null) {
    if (whole.code === null) judgeWritten(encodeEnvelope(whole.value))
    return readable.code
  }
  expect(whole.code === null, 'a worker reads what Avro does not')
  compareWhole(whole.value)
  return judgePatched(start, stop)
}

/** Only longer numbers than SPEC 3.3 has room for: Avro takes them, and written again they are short. */
function judgeWritten(written: Buffer): void {
  expect(route.read(written, 0, written.length), 'Avro writes what a broker does not read')
  end.read(written, route, written.length)
}

function compareWhole(envelope: ReturnType<typeof decodeEnvelope>): void {
  const text = (from: number, to: number): string => bytes.toString('utf8', from, to)
  expect(text(route.receiverStart, route.receiverEnd) === envelope.receiver, 'another receiver than Avro reads')
  expect(text(route.senderStart, route.senderEnd) === envelope.sender, 'another sender than Avro reads')
  expect(route.retryCount === envelope.retryCount, 'another retry count than Avro reads')
  expect(route.possibleDuplicate === envelope.possibleDuplicate, 'another mark of duplicates than Avro reads')
  expect(route.timeToLiveMs === envelope.timeToLive, 'another time to live than Avro reads')
  expect(end.watermark === envelope.watermark, 'another watermark than Avro reads')
  expect(end.delivery === envelope.delivery, 'another delivery than Avro reads')
  expect(JSON.stringify(end.headers) === JSON.stringify(envelope.headers), 'other headers than Avro reads')
}

/** A broker lowers the time to live in place and forwards the rest: nothing else may change by it. */
function judgePatched(start: number, stop: number): string {
  const { timeToLiveStart, timeToLiveEnd, timeToLiveMs } = route
  patchTimeToLive(bytes, timeToLiveStart, timeToLiveEnd, Math.floor(timeToLiveMs / 3))
  expect(route.read(bytes, start, stop), 'a patched envelope is not read')
  expect(route.timeToLiveMs === Math.floor(timeToLiveMs / 3), 'a patched time to live is another one')
  expect(route.timeToLiveEnd === timeToLiveEnd, 'a patched time to live has another length')
  return `read, ${timeToLiveEnd - timeToLiveStart} bytes of time`
}

function probe(): void {
  for (const envelope of good.envelopes) {
    const word = judge(encodeEnvelope(envelope))
    expect(word.startsWith('read, '), `a good envelope is ${word}`)
  }
}

export const routeTarget: Target = {
  name: 'route',
  reads: 'routes and the ends of envelopes, by offset',
  bytesMax: BYTES_MAX,
  stateful: false,
  dictionary: [Buffer.from('work'), Buffer.from([0x80, 0x00]), Buffer.from([0x82, 0x80, 0x80, 0x80, 0x00])],
  seeds: () => good.envelopes.map(encodeEnvelope),
  open: () => ({ judge, probe }),
}
