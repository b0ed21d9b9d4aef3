/**
 * The files of identities and nets. A secret file is created with mode 0600 and never overwritten, and one that others
 * may read is refused before it is read: a key that others may have seen has to be made anew, not used once more.
 */
import { constants } from 'node:fs'
import type { FileHandle } from 'node:fs/promises'
import { access, appendFile, mkdir, open, readFile, rename, rm } from 'node:fs/promises'
import { dirname } from 'node:path'
import { AdaptnetError } from '../../protocol/errors.ts'
import type { Authority, Identity } from '../identity/identity.ts'
import {
  formatAuthority,
  formatIdentity,
  formatNet,
  formatRevocations,
  formatServiceSecrets,
  parseAuthority,
  parseIdentity,
  parseNet,
  parseRevocations,
  parseServiceSecrets,
} from '../identity/identity.ts'
import type { ServiceSecrets } from '../identity/service-key.ts'
import { sodiumRandom } from '../identity/sodium.ts'

const KIB = 1024
export const IDENTITY_FILE_BYTES_MAX: number = 64 * KIB
/** A full list of revocations has 64 KiB, and a third more in base64url. */
export const REVOCATIONS_FILE_BYTES_MAX: number = 128 * KIB
const SECRET_MODE = 0o600
const PUBLIC_MODE = 0o644
const OTHERS = 0o077
/** Windows has no such bits: every file would seem exposed there. */
const HAS_MODES: boolean = process.platform !== 'win32'

interface Read {
  text: string
  /** Whether the group or others have any permission. */
  exposed: boolean
}

export async function readIdentity(path: string): Promise<Identity> {
  return parsed(path, await readSecret(path), parseIdentity)
}

export async function readAuthority(path: string): Promise<Authority> {
  return parsed(path, await readSecret(path), parseAuthority)
}

/** The net's public key. */
export async function readNet(path: string): Promise<Uint8Array> {
  return parsed(path, (await readBounded(path, IDENTITY_FILE_BYTES_MAX)).text, parseNet)
}

/** The signed bytes: nothing in them may be believed before `verifyRevocations`. */
export async function readRevocations(path: string): Promise<Uint8Array> {
  return parsed(path, (await readBounded(path, REVOCATIONS_FILE_BYTES_MAX)).text, parseRevocations)
}

/** A service's keys, for `serve`. */
export async function readServiceSecrets(path: string): Promise<ServiceSecrets> {
  return parsed(path, await readSecret(path), parseServiceSecrets)
}

/** Any of these files, exposed or not: to tell a person about it, never to use it. */
export function readForDisplay(path: string): Promise<Read> {
  return readBounded(path, REVOCATIONS_FILE_BYTES_MAX)
}

export async function writeIdentity(path: string, identity: Identity): Promise<void> {
  await create(path, formatIdentity(identity), SECRET_MODE)
}

export async function writeAuthority(path: string, authority: Authority): Promise<void> {
  await create(path, formatAuthority(authority), SECRET_MODE)
}

export async function writeNet(path: string, net: Uint8Array): Promise<void> {
  await create(path, formatNet(net), PUBLIC_MODE)
}

/** Replaces the list in one step: a reader sees the old one or the new one, whatever fails between. */
export async function writeRevocations(path: string, signed: Uint8Array): Promise<void> {
  const temporary = `${path}.${sodiumRandom(4).toString('hex')}.new`
  await create(temporary, formatRevocations(signed), PUBLIC_MODE)
  await putInPlace(temporary, path)
}

/**
 * Writes a service's next epoch, in one step and only over the secrets that it follows (null: over none): of two who
 * make an epoch at the same time, one fails with ALREADY_EXISTS, and no secret that somebody may have is lost.
 */
export async function writeServiceSecrets(
  path: string,
  secrets: ServiceSecrets,
  earlier: ServiceSecrets | null,
): Promise<void> {
  // One name for all who write: whoever has made this file is alone until it is in its place.
  const temporary = `${path}.new`
  await create(temporary, formatServiceSecrets(secrets), SECRET_MODE)
  try {
    if (earlier === null) await expectAbsent(path)
    else if (formatServiceSecrets(await readServiceSecrets(path)) !== formatServiceSecrets(earlier))
      throw new AdaptnetError('ALREADY_EXISTS', `${path} has been changed meanwhile, and is not overwritten`)
  } catch (error) {
    await rm(temporary, { force: true })
    throw error
  }
  await putInPlace(temporary, path)
}

async function putInPlace(temporary: string, path: string): Promise<void> {
  try {
    await rename(temporary, path)
  } catch (cause) {
    await rm(temporary, { force: true })
    throw failed('written', path, cause)
  }
  await syncFolder(dirname(path))
}

/** A line of the authority's own record of whom it admitted; public. Times are unix milliseconds. */
export interface AdmissionRecord {
  name: string
  notBefore: number
  notAfter: number
  roles: readonly string[]
  serves: readonly string[]
  calls: readonly string[]
}

/** Adds a line, and the file if it is not there; it is on the disk when this returns. */
export async function appendAdmission(path: string, record: AdmissionRecord): Promise<void> {
  try {
    await appendFile(path, `${JSON.stringify(record)}\n`, { mode: PUBLIC_MODE, flush: true })
  } catch (cause) {
    throw failed('written', path, cause)
  }
}

/** Not bounded in size: it grows with the net, and only the authority's own command writes it. */
export async function readAdmissions(path: string): Promise<AdmissionRecord[]> {
  let text: string
  try {
    text = await readFile(path, 'utf8')
  } catch (cause) {
    throw failed('read', path, cause)
  }
  const lines = text.split('\n').entries()
  return [...lines].flatMap(([index, line]) => (line === '' ? [] : [parseAdmission(line, `${path}:${index + 1}`)]))
}

function parseAdmission(line: string, place: string): AdmissionRecord {
  let value: unknown
  try {
    value = JSON.parse(line)
  } catch (cause) {
    throw new AdaptnetError('IDENTITY_MALFORMED', `${place}: the line is not JSON`, { cause })
  }
  const { name, notBefore, notAfter } = (value ?? {}) as Partial<AdmissionRecord>
  // A line passed over could be the admission that a revocation has to reach.
  if (typeof name !== 'string' || typeof notBefore !== 'number' || typeof notAfter !== 'number')
    throw new AdaptnetError('IDENTITY_MALFORMED', `${place}: the line is not an admission`)
  return value as AdmissionRecord
}

/** For the authority's files: nobody else has to look into it, so a new one has mode 0700. */
export async function createFolder(path: string): Promise<void> {
  try {
    await mkdir(path, { recursive: true, mode: 0o700 })
  } catch (cause) {
    throw failed('created', path, cause)
  }
}

/** Throws ALREADY_EXISTS; asked before a step that a later refusal to overwrite could not undo. */
export async function expectAbsent(path: string): Promise<void> {
  try {
    await access(path)
  } catch (cause) {
    if (cause instanceof Error && 'code' in cause && cause.code === 'ENOENT') return
    throw failed('created', path, cause)
  }
  throw new AdaptnetError('ALREADY_EXISTS', `${path} exists and is not overwritten`)
}

async function readSecret(path: string): Promise<string> {
  // The mode is judged on the open file: between a look at a path and its opening, the path could be exchanged.
  return (await readBounded(path, IDENTITY_FILE_BYTES_MAX, refuseExposed)).text
}

function refuseExposed(path: string, exposed: boolean): void {
  if (exposed)
    throw new AdaptnetError(
      'IDENTITY_EXPOSED',
      `${path} holds a secret and others have permissions on it; if nobody read it, run: chmod 600 ${path}`,
    )
}

async function readBounded(
  path: string,
  bytesMax: number,
  judge?: (path: string, exposed: boolean) => void,
): Promise<Read> {
  let file: FileHandle
  try {
    // Without O_NONBLOCK a named pipe would hold the process here until somebody writes to it.
    file = await open(path, constants.O_RDONLY | (constants.O_NONBLOCK ?? 0))
  } catch (cause) {
    throw failed('read', path, cause)
  }
  try {
    const stat = await file.stat()
    const { mode, size } = stat
    if (!stat.isFile()) throw new AdaptnetError('IDENTITY_MALFORMED', `${path} is not a regular file`)
    const exposed = HAS_MODES && (mode & OTHERS) !== 0
    judge?.(path, exposed)
    if (size > bytesMax)
      throw new AdaptnetError('IDENTITY_MALFORMED', `${path} has ${size} bytes, the limit is ${bytesMax}`)
    const buffer = Buffer.alloc(size)
    let filled = 0
    while (filled < size) {
      const { bytesRead } = await file.read(buffer, filled, size - filled, filled)
      if (bytesRead === 0) break
      filled += bytesRead
    }
    return { text: buffer.toString('utf8', 0, filled), exposed }
  } finally {
    await file.close()
  }
}

async function create(path: string, text: string, mode: number): Promise<void> {
  let file: FileHandle
  try {
    file = await open(path, 'wx', mode)
  } catch (cause) {
    throw failed('created', path, cause)
  }
  try {
    await file.writeFile(text)
    await file.sync()
  } catch (cause) {
    // A half-written key would stand in the way of the next try.
    await rm(path, { force: true })
    throw failed('written', path, cause)
  } finally {
    await file.close()
  }
}

// A rename is kept over a power failure only once its folder is: a revocation that came back undone would be no
// revocation, and its version would be given twice.
async function syncFolder(path: string): Promise<void> {
  if (!HAS_MODES) return
  const folder = await open(path, constants.O_RDONLY)
  try {
    await folder.sync()
  } finally {
    await folder.close()
  }
}

function parsed<T>(path: string, text: string, parse: (text: string) => T): T {
  try {
    return parse(text)
  } catch (cause) {
    if (cause instanceof AdaptnetError) throw new AdaptnetError(cause.code, `${path}: ${cause.message}`, { cause })
    throw cause
  }
}

function failed(verb: 'read' | 'created' | 'written', path: string, cause: unknown): AdaptnetError {
  const code = cause instanceof Error && 'code' in cause ? String(cause.code) : 'unknown cause'
  if (verb === 'read' && (code === 'ENOENT' || code === 'ENOTDIR'))
    return new AdaptnetError('IDENTITY_MISSING', `there is no file ${path}`, { cause })
  if (verb === 'created' && code === 'EEXIST')
    return new AdaptnetError('ALREADY_EXISTS', `${path} exists and is not overwritten`, { cause })
  return new AdaptnetError('INTERNAL', `${path} cannot be ${verb}: ${code}`, { cause })
}
