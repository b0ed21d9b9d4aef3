/** `adaptnet net show`: tells a person what one of the net's files is. It warns, and refuses nothing that it can read. */
import type { Certificate } from '../../protocol/certificate.ts'
import { decodeRevocations, decodeSigned } from '../../protocol/certificate.ts'
import { AdaptnetError } from '../../protocol/errors.ts'
import { DAY_MS, formatDuration, formatInstant, roleNames, verifyRevocations } from '../identity/certificate.ts'
import {
  kindOfText,
  parseAuthority,
  parseIdentity,
  parseNet,
  parseRevocations,
  parseServiceSecrets,
} from '../identity/identity.ts'
import type { TextKind } from '../identity/identity.ts'
import { openServiceKey } from '../identity/service-key.ts'
import type { ServiceSecrets } from '../identity/service-key.ts'
import { readForDisplay } from '../transport/identity-files.ts'
import type { CommandIo } from './command.ts'
import { runCommand } from './command.ts'
import { DAYS_LEFT_WARNING, isRevokedBeside } from './own-identity.ts'

const SECRET: ReadonlySet<TextKind> = new Set(['identity', 'authority', 'service'])

const SHOW = {
  operands: ['FILE'],
  options: { json: { type: 'boolean' } },
  usage: `usage: adaptnet net show FILE [--json]

Tells what an identity, a service's keys, an authority's key, a net's file or a list of revocations says. No secret is
printed.

  --json            print one JSON object`,
} as const

/** What is shown: names as JSON has them, values as they are. */
interface Shown {
  facts: Record<string, string | number | string[] | number[]>
  warnings: string[]
}

export function show(args: string[], io: CommandIo): Promise<number> {
  return runCommand(SHOW, args, io, async ({ values, operands }) => {
    const [path = ''] = operands
    const { text, exposed } = await readForDisplay(path)
    const kind = kindOfText(text)
    const { facts, warnings } = describe[kind](text, Date.now())
    if (kind === 'identity' && (await isRevokedBeside(path, parseIdentity(text).certificate)))
      warnings.push('the certificate is revoked, by the list that lies beside it')
    if (exposed && SECRET.has(kind))
      warnings.push(`others have permissions on this secret file; if nobody read it, run: chmod 600 ${path}`)
    if (values.json) io.out(JSON.stringify({ kind, ...facts, warnings }))
    else {
      for (const [name, value] of Object.entries({ kind, ...facts }))
        io.out(`${name.padEnd(10)} ${inWords(name, value)}`)
      for (const warning of warnings) io.err(`warning: ${warning}`)
    }
  })
}

const describe: Record<TextKind, (text: string, nowMs: number) => Shown> = {
  identity: (text, nowMs) => {
    const { certificate } = parseIdentity(text)
    return describeCertificate(certificate, nowMs)
  },
  authority: (text) => ({ facts: { net: base64url(parseAuthority(text).publicKey) }, warnings: [] }),
  net: (text) => ({ facts: { net: base64url(parseNet(text)) }, warnings: [] }),
  revocations: (text) => {
    const signed = parseRevocations(text)
    const { net, version, entries } = decodeRevocations(decodeSigned(signed).body)
    const revoked = entries.map(({ name, before }) => `${name} until ${formatInstant(before)}`)
    return { facts: { net: base64url(net), version, revoked }, warnings: signatureWarnings(signed, net) }
  },
  service: (text, nowMs) => describeService(parseServiceSecrets(text), nowMs),
}

function describeCertificate(certificate: Certificate, nowMs: number): Shown {
  const { name, net, roles, serves, calls } = certificate
  const { facts, warnings } = describeValidity('certificate', certificate, nowMs)
  return { facts: { name, net: base64url(net), roles: roleNames(roles), serves, calls, ...facts }, warnings }
}

function describeService({ service, net, record, epochs }: ServiceSecrets, nowMs: number): Shown {
  const key = openServiceKey(record, net)
  const { facts, warnings } = describeValidity('key', key, nowMs)
  const opens = epochs.map(({ epoch }) => epoch)
  return {
    facts: { service, net: base64url(net), epoch: key.epoch, opens, key: base64url(key.key), ...facts },
    warnings,
  }
}

function describeValidity(what: string, span: { notBefore: number; notAfter: number }, nowMs: number): Shown {
  const { notBefore, notAfter } = span
  const daysLeft = Math.floor((notAfter - nowMs) / DAY_MS)
  const warnings: string[] = []
  if (nowMs < notBefore) warnings.push(`the ${what} begins in ${formatDuration(notBefore - nowMs)}`)
  if (nowMs > notAfter) warnings.push(`the ${what} expired ${formatDuration(nowMs - notAfter)} ago`)
  else if (daysLeft < DAYS_LEFT_WARNING) warnings.push(`the ${what} expires in ${formatDuration(notAfter - nowMs)}`)
  return { facts: { notBefore, notAfter, daysLeft }, warnings }
}

// Which net the file claims is for the reader to compare; that it is that net's own can be told here.
function signatureWarnings(signed: Uint8Array, net: Uint8Array): string[] {
  try {
    verifyRevocations(signed, net)
    return []
  } catch (error) {
    if (!(error instanceof AdaptnetError)) throw error
    return [`it will not be accepted: ${error.message}`]
  }
}

function inWords(name: string, value: Shown['facts'][string]): string {
  if (Array.isArray(value)) return value.join(', ') || '-'
  return name === 'notBefore' || name === 'notAfter' ? formatInstant(Number(value)) : String(value)
}

function base64url(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString('base64url')
}
