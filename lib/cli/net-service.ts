/** `adaptnet net service`: makes the next epoch of a service's key, so that payloads can be sealed to it (SPEC 5.6). */
import { join } from 'node:path'
import { AdaptnetError } from '../../protocol/errors.ts'
import { formatInstant } from '../identity/certificate.ts'
import { DAYS_DEFAULT, DAYS_MAX, checkService } from '../identity/identity.ts'
import { nextServiceEpoch, openServiceKey } from '../identity/service-key.ts'
import type { ServiceSecrets } from '../identity/service-key.ts'
import { equal, sodiumRandom } from '../identity/sodium.ts'
import * as files from '../transport/identity-files.ts'
import type { CommandIo } from './command.ts'
import { parseInteger, runCommand } from './command.ts'

const SERVICE = {
  operands: ['DIR', 'NAME'],
  options: { days: { type: 'string' }, json: { type: 'boolean' } },
  usage: `usage: adaptnet net service DIR NAME [--days N] [--json]

Makes a key for the service NAME, to which clients seal what they send, so that no broker can read it:
  DIR/services/NAME.key   the secret for the workers of NAME, and the public key signed by DIR's authority

If there is one, the next epoch takes its place; the one before stays in the file, and is opened too. Give the file to
the workers, one after the other: \`adaptnet serve NAME --seal FILE\`. A key that others may have seen is of no use any
more once this was done twice.

  --days N          how long the key is valid, ${DAYS_DEFAULT} by default; then clients seal no more, or call no more
  --json            print one JSON object`,
} as const

export function service(args: string[], io: CommandIo): Promise<number> {
  return runCommand(SERVICE, args, io, async ({ values, operands }) => {
    const [path = '', name = ''] = operands
    const days = parseInteger(values.days, '--days', { min: 1, max: DAYS_MAX }) ?? DAYS_DEFAULT
    checkService(name)
    const authority = await files.readAuthority(join(path, 'authority.key'))
    const folder = join(path, 'services')
    await files.createFolder(folder)
    const file = join(folder, `${name}.key`)
    const earlier = await readEarlier(file)
    // Two names may be one file to the system.
    if (earlier !== null && (earlier.service !== name || !equal(earlier.net, authority.publicKey)))
      throw new AdaptnetError('ALREADY_EXISTS', `${file} holds the keys of another service or net: ${earlier.service}`)
    const secrets = nextServiceEpoch(authority, name, earlier, { nowMs: Date.now(), days }, sodiumRandom)
    await files.writeServiceSecrets(file, secrets, earlier)
    const { epoch, notBefore, notAfter } = openServiceKey(secrets.record, secrets.net)
    const opens = secrets.epochs.map((kept) => kept.epoch)
    if (values.json) io.out(JSON.stringify({ service: name, epoch, opens, notBefore, notAfter, file }))
    else {
      io.out(`made epoch ${epoch} of the key of ${name}, until ${formatInstant(notAfter)}: ${file}`)
      io.out(`give it to the workers of ${name}, and to nobody else`)
    }
  })
}

async function readEarlier(file: string): Promise<ServiceSecrets | null> {
  try {
    return await files.readServiceSecrets(file)
  } catch (error) {
    if (error instanceof AdaptnetError && error.code === 'IDENTITY_MISSING') return null
    throw error
  }
}
