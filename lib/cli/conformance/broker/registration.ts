/** SPEC 6.1: workers offer services. */
import { FrameType, SERVICES_PER_LINK_MAX } from '../../../../protocol/constants.ts'
import type { Register } from '../../../../protocol/control.ts'
import { sodiumRandom } from '../../../identity/sodium.ts'
import { good, section } from '../case.ts'
import type { Case, CaseOptions, WrittenCase } from '../case.ts'
import { Failure } from '../failure.ts'
import { registration } from '../frames.ts'
import { FOREIGN_SERVICE, SERVICE_PREFIX } from '../stand.ts'
import type { Stand } from '../stand.ts'
import { closes, ignored } from './records.ts'

const refused = (
  what: string,
  service: string | null,
  parts: Partial<Register> = {},
  options: CaseOptions = {},
): WrittenCase<Stand> =>
  good(
    what,
    'REGISTERED with NOT_PERMITTED; the link stays open',
    async (stand) => {
      const worker = await stand.join('worker')
      await stand.register(worker, service ?? stand.service(), 1, parts, 'NOT_PERMITTED')
      await worker.alive()
    },
    options,
  )

const answered = (what: string, concurrency: number): WrittenCase<Stand> =>
  good(what, 'REGISTERED with BYE (0), and a request', async (stand) => {
    const { worker, client, service } = await stand.pair(concurrency)
    const id = client.request(service)
    worker.reply(await worker.given(), 'served')
    await client.replied(id, 'served')
  })

const registering: readonly WrittenCase<Stand>[] = [
  answered('REGISTER', 4),
  answered('REGISTER with a concurrency of 0, which counts as 1', 0),
  answered('REGISTER with a negative concurrency, which counts as 1', -7),
  answered('REGISTER with a concurrency above the limit, which is lowered', 2 ** 31 - 1),
  good(
    'REGISTER again, with a higher concurrency',
    'REGISTERED again, and so many requests at a time',
    async (stand) => {
      const { worker, client, service } = await stand.pair(1)
      await stand.register(worker, service, 3)
      for (let count = 0; count < 4; count++) client.request(service)
      for (let count = 0; count < 3; count++) await worker.given()
      await worker.without(FrameType.REQUEST, 'no fourth request')
    },
  ),
  refused(
    'REGISTER of a service that the certificate does not name',
    FOREIGN_SERVICE,
    {},
    { needs: ['foreignServices'] },
  ),
  refused(
    'REGISTER of a name that only begins like the pattern',
    SERVICE_PREFIX.slice(0, -1),
    {},
    {
      needs: ['foreignServices'],
    },
  ),
  refused('REGISTER of an empty name', ''),
  refused('REGISTER of a reserved name', '$broker.status'),
  refused('REGISTER of a name with #', `${SERVICE_PREFIX}a#b`),
  refused('REGISTER of a name with a space', `${SERVICE_PREFIX}a b`),
  refused('REGISTER of a name with *', `${SERVICE_PREFIX}*`),
  refused('REGISTER of a name of 129 bytes', SERVICE_PREFIX.padEnd(129, 'x')),
  good('REGISTER of a name of 128 bytes', 'REGISTERED with BYE (0), and a request', async (stand) => {
    const [worker, client] = [await stand.join('worker'), await stand.join('client')]
    const service = stand.service().padEnd(128, 'x')
    await stand.register(worker, service, 1)
    client.request(service)
    await worker.given()
  }),
  refused('REGISTER with random bytes for a service key', null, { serviceKey: sodiumRandom(90) }),
  good(
    'REGISTER by a node whose certificate names nothing to serve',
    'REGISTERED with NOT_PERMITTED',
    async (stand) => {
      const client = await stand.join('client')
      await stand.register(client, stand.service(), 1, {}, 'NOT_PERMITTED')
    },
    { needs: ['mute'] },
  ),
  ...['UPPER', 'with space', 'a#b', 'x'.repeat(33), 'ä'].map((journal) =>
    closes(
      `REGISTER with the journal ${JSON.stringify(journal)}, which is none`,
      'FRAME_MALFORMED',
      (peer, stand) => peer.send(FrameType.REGISTER, { payload: registration(stand.service(), 1, { journal }) }),
      { as: 'worker' },
    ),
  ),
  closes('a REGISTER that is cut off', 'FRAME_MALFORMED', (peer) =>
    peer.send(FrameType.REGISTER, { payload: registration(`${SERVICE_PREFIX}x`, 1).subarray(0, 4) }),
  ),
  closes('REGISTER of a service of negative length', 'FRAME_MALFORMED', (peer) =>
    peer.send(FrameType.REGISTER, { payload: Buffer.from('01020000', 'hex') }),
  ),
  closes(
    'REGISTER by a broker',
    'FRAME_UNEXPECTED',
    (peer) => peer.send(FrameType.REGISTER, { payload: registration(`${SERVICE_PREFIX}x`, 1) }),
    { as: 'broker' },
  ),
  closes(
    'UNREGISTER by a broker',
    'FRAME_UNEXPECTED',
    (peer) => peer.send(FrameType.UNREGISTER, { payload: registration(`${SERVICE_PREFIX}x`, 0) }),
    { as: 'broker' },
  ),
  closes(
    `REGISTER of one service more than ${SERVICES_PER_LINK_MAX} on a link`,
    'LIMIT_EXCEEDED',
    async (peer, stand) => {
      for (let count = 0; count < SERVICES_PER_LINK_MAX; count++) await stand.register(peer, stand.service(), 1)
      peer.send(FrameType.REGISTER, { payload: registration(stand.service(), 1) })
    },
    { as: 'worker' },
  ),
  good('UNREGISTER', 'no answer to it; REJECT with NO_WORKER to requests', async (stand) => {
    const { worker, client, service } = await stand.pair()
    worker.send(FrameType.UNREGISTER, { payload: registration(service, 0) })
    await worker.without(FrameType.REGISTERED, 'no answer to UNREGISTER')
    await client.rejected(client.request(service), 'NO_WORKER')
  }),
  ignored('UNREGISTER of what is not registered', 'nothing', (peer) =>
    peer.send(FrameType.UNREGISTER, { payload: registration(`${SERVICE_PREFIX}never`, 0) }),
  ),
  good('UNREGISTER while a request is at the worker', 'its REPLY is still relayed', async (stand) => {
    const { worker, client, service } = await stand.pair()
    const id = client.request(service)
    const request = await worker.given()
    worker.send(FrameType.UNREGISTER, { payload: registration(service, 0) })
    await worker.alive()
    worker.reply(request, 'finished')
    await client.replied(id, 'finished')
  }),
  good(
    'UNREGISTER of the last worker while requests wait',
    'REJECT with NO_WORKER to those that wait',
    async (stand) => {
      const { worker, client, service } = await stand.pair()
      client.request(service)
      await worker.given()
      const waiting = [client.request(service), client.request(service)]
      await client.alive()
      worker.send(FrameType.UNREGISTER, { payload: registration(service, 0) })
      for (const id of waiting) await client.rejected(id, 'NO_WORKER')
    },
  ),
  good('REGISTER with a journal', 'requests for the service, and for the service, # and the journal', async (stand) => {
    const { worker, client, service } = await stand.pair(2, { journal: 'judge1' })
    client.request(service, 'plainly')
    client.request(`${service}#judge1`, 'once', { delivery: 2 })
    const payloads = [(await worker.given()).payload.toString(), (await worker.given()).payload.toString()]
    if (payloads.join() !== 'plainly,once') throw new Failure('both requests', payloads.join())
  }),
  good(
    'requests for a service with and without its journal',
    'both draw on the same places of the worker',
    async (stand) => {
      const { worker, client, service } = await stand.pair(1, { journal: 'judge1' })
      client.request(service)
      client.request(`${service}#judge1`, '', { delivery: 2 })
      const first = await worker.given()
      await client.alive()
      await worker.without(FrameType.REQUEST, 'one request at a time')
      worker.reply(first, '')
      await worker.given('the other request')
    },
  ),
  good('a request for a journal that no worker keeps', 'REJECT with NO_WORKER', async (stand) => {
    const { client, service } = await stand.pair(1, { journal: 'judge1' })
    await client.rejected(client.request(`${service}#judge2`, '', { delivery: 2 }), 'NO_WORKER')
  }),
]

export const registrationCases: readonly Case<Stand>[] = section<Stand>('broker', '6.1', 'broker', registering)
