/** `adaptnet net`: makes a net and says who belongs to it. All of it happens offline, in the folder of the authority. */
import { join } from 'node:path'
import type { Revocations } from '../../protocol/certificate.ts'
import { REVOCATIONS_MAX, Role } from '../../protocol/constants.ts'
import { AdaptnetError } from '../../protocol/errors.ts'
import { DAY_MS, formatInstant, roleNames, signRevocations, verifyRevocations } from '../identity/certificate.ts'
import type { Authority } from '../identity/identity.ts'
import { DAYS_DEFAULT, DAYS_MAX, admit, checkName, createAuthority } from '../identity/identity.ts'
import { sodiumRandom } from '../identity/sodium.ts'
import * as files from '../transport/identity-files.ts'
import type { CommandIo } from './command.ts'
import { ExitCode, parseInteger, runCommand, wantsHelp, wrongUsage } from './command.ts'
import { service } from './net-service.ts'
import { show } from './net-show.ts'

const USAGE = `usage: adaptnet net create DIR
       adaptnet net admit DIR NAME [--broker] [--serve SERVICE]... [--call SERVICE]... [--days N] [--out FILE]
       adaptnet net revoke DIR NAME
       adaptnet net service DIR NAME [--days N]
       adaptnet net show FILE

Makes a net and says who belongs to it. DIR holds the net's secret, authority.key: keep it away from the machines of
the net. \`adaptnet net COMMAND --help\` tells more.`

const json = { type: 'boolean' } as const

const CREATE = {
  operands: ['DIR'],
  options: { json },
  usage: `usage: adaptnet net create DIR [--json]

Makes an authority in DIR, which is created if need be:
  authority.key     the secret that admits; whoever has it can admit anybody
  net.json          the net's public key
  revocations.json  who is no longer admitted, signed
  admitted.jsonl    who was admitted, a line each

  --json            print one JSON object`,
}

const ADMIT = {
  operands: ['DIR', 'NAME'],
  options: {
    broker: { type: 'boolean' },
    serve: { type: 'string', multiple: true },
    call: { type: 'string', multiple: true },
    days: { type: 'string' },
    out: { type: 'string' },
    json,
  },
  usage: `usage: adaptnet net admit DIR NAME [--broker] [--serve SERVICE]... [--call SERVICE]... [--days N] [--out FILE] [--json]

Makes an identity: a secret key and the certificate of DIR's authority for it.

  --broker          it may be a broker
  --serve SERVICE   it may serve SERVICE; a final * covers every name that begins so
  --call SERVICE    it may call SERVICE, likewise
  --days N          how long the certificate is valid, ${DAYS_DEFAULT} by default
  --out FILE        where the identity is written, DIR/NAME.identity by default; it is never overwritten
  --json            print one JSON object`,
} as const

const REVOKE = {
  operands: ['DIR', 'NAME'],
  options: { json },
  usage: `usage: adaptnet net revoke DIR NAME [--json]

Revokes every certificate that NAME has by now, and writes DIR/revocations.json anew. Give that file to a broker: the
brokers tell each other and cut the links of NAME. Afterwards NAME can be admitted again.

  --json            print one JSON object`,
}

/** `adaptnet net ...`; gives the exit code. */
export async function net(args: string[], io: CommandIo): Promise<number> {
  const [command, ...rest] = args
  if (command === 'create') return create(rest, io)
  if (command === 'admit') return admitNode(rest, io)
  if (command === 'revoke') return revoke(rest, io)
  if (command === 'service') return service(rest, io)
  if (command === 'show') return show(rest, io)
  if (wantsHelp(args)) {
    io.out(USAGE)
    return ExitCode.DONE
  }
  return wrongUsage(USAGE, command === undefined ? 'a command is missing' : `net has no command '${command}'`, io)
}

interface Folder {
  authority: string
  net: string
  revocations: string
  admitted: string
}

function folderOf(path: string): Folder {
  return {
    authority: join(path, 'authority.key'),
    net: join(path, 'net.json'),
    revocations: join(path, 'revocations.json'),
    admitted: join(path, 'admitted.jsonl'),
  }
}

function create(args: string[], io: CommandIo): Promise<number> {
  return runCommand(CREATE, args, io, async ({ values, operands }) => {
    const [path = ''] = operands
    const folder = folderOf(path)
    await files.createFolder(path)
    for (const file of Object.values(folder)) await files.expectAbsent(file)
    const authority = createAuthority(sodiumRandom)
    const { publicKey } = authority
    await files.writeAuthority(folder.authority, authority)
    await files.writeNet(folder.net, publicKey)
    await files.writeRevocations(
      folder.revocations,
      signRevocations({ net: publicKey, version: 1, entries: [] }, authority),
    )
    const key = Buffer.from(publicKey).toString('base64url')
    if (values.json) io.out(JSON.stringify({ net: key, folder: path, authority: folder.authority }))
    else {
      io.out(`net ${key} in ${path}`)
      io.out(`keep ${folder.authority} secret and off the machines of the net`)
    }
  })
}

function admitNode(args: string[], io: CommandIo): Promise<number> {
  return runCommand(ADMIT, args, io, async ({ values, operands }) => {
    const [path = '', name = ''] = operands
    const days = parseInteger(values.days, '--days', { min: 1, max: DAYS_MAX })
    checkName(name)
    const folder = folderOf(path)
    const out = values.out ?? join(path, `${name}.identity`)
    const { authority, revocations } = await readFolder(folder)
    // A certificate that begins where a revocation of the name ends would be revoked too, so it begins just after.
    const revokedUntil = revocations.entries.find((entry) => entry.name === name)?.before
    const nowMs = Math.max(Date.now(), revokedUntil === undefined ? 0 : revokedUntil + 1)
    // A broker may ask like a node, so that its own identity serves to look at its status.
    const roles = values.broker ? Role.node | Role.broker : Role.node
    const { serve: serves = [], call: calls = [] } = values
    const identity = admit(authority, { name, roles, serves, calls, nowMs, days }, sodiumRandom)
    const { certificate } = identity
    const { notBefore, notAfter } = certificate
    const record = {
      name,
      notBefore,
      notAfter,
      roles: roleNames(roles),
      serves: certificate.serves,
      calls: certificate.calls,
    }
    await files.expectAbsent(out)
    // Recorded before it is written: a crash between the two leaves a name that can be revoked for nothing, where the
    // other order would leave an identity that could not be revoked.
    await files.appendAdmission(folder.admitted, record)
    await files.writeIdentity(out, identity)
    if (values.json) io.out(JSON.stringify({ ...record, file: out }))
    else io.out(`admitted ${name} until ${formatInstant(notAfter)}: ${out}`)
  })
}

function revoke(args: string[], io: CommandIo): Promise<number> {
  return runCommand(REVOKE, args, io, async ({ values, operands }) => {
    const [path = '', name = ''] = operands
    checkName(name)
    const folder = folderOf(path)
    const { authority, revocations } = await readFolder(folder)
    const admitted = await files.readAdmissions(folder.admitted)
    const own = admitted.filter((record) => record.name === name)
    if (own.length === 0)
      throw new AdaptnetError('IDENTITY_MISSING', `${name} was never admitted: ${folder.admitted} does not name it`)
    const nowMs = Date.now()
    const earlier = revocations.entries.filter((entry) => entry.name === name).map((entry) => entry.before)
    // Not simply now: this machine's clock may have been ahead when the name was admitted.
    const before = Math.max(nowMs, ...earlier, ...own.map((record) => record.notBefore))
    const entries = revocations.entries.filter((entry) => entry.name !== name)
    const list = { net: revocations.net, version: revocations.version + 1, entries: [...entries, { name, before }] }
    const kept = withoutExpired(list, admitted, nowMs)
    await files.writeRevocations(folder.revocations, signRevocations(kept, authority))
    if (values.json) io.out(JSON.stringify({ name, before, version: kept.version, file: folder.revocations }))
    else {
      io.out(`revoked ${name} (version ${kept.version} of ${folder.revocations})`)
      io.out('it takes effect once a broker has that file')
    }
  })
}

async function readFolder(folder: Folder): Promise<{ authority: Authority; revocations: Revocations }> {
  const authority = await files.readAuthority(folder.authority)
  const signed = await files.readRevocations(folder.revocations)
  return { authority, revocations: verifyRevocations(signed, authority.publicKey) }
}

/**
 * A revoked name whose certificates have all expired need not be listed. Only a list that is nearly full is shortened:
 * this trusts the clock of this machine, and a clock far ahead would readmit whom it should not.
 */
function withoutExpired(list: Revocations, admitted: readonly files.AdmissionRecord[], nowMs: number): Revocations {
  if (list.entries.length <= REVOCATIONS_MAX * 0.75) return list
  const lastDay = new Map<string, number>()
  for (const { name, notAfter } of admitted) lastDay.set(name, Math.max(notAfter, lastDay.get(name) ?? 0))
  return { ...list, entries: list.entries.filter(({ name }) => (lastDay.get(name) ?? Infinity) > nowMs - DAY_MS) }
}
