/** The files of a run, one after another, cut into payloads. */
import { constants, existsSync } from 'node:fs'
import type { FileHandle } from 'node:fs/promises'
import { open, readdir } from 'node:fs/promises'
import { dirname, join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'
import { StartError } from './start-error.ts'

export const PAYLOAD_BYTES = 4_096
/** Each client holds all of it in memory. */
export const FILES_BYTES_MAX: number = 64 * 1_048_576
const SOURCE: RegExp = /\.(ts|js|md|json|avsc)$/

/** The files named, or the project's own sources; every one is there, readable and not empty. */
export async function chooseFiles(named: readonly string[]): Promise<string[]> {
  const files = named.length > 0 ? named.map((file) => resolve(file)) : await ownSources()
  let bytes = 0
  for (const file of files) bytes += await measure(file)
  if (bytes > FILES_BYTES_MAX)
    throw new StartError(`the files have ${bytes} bytes together, the limit is ${FILES_BYTES_MAX}`)
  if (bytes === 0) throw new StartError('there is nothing to send')
  return files
}

export async function readPayloads(files: readonly string[]): Promise<Buffer[]> {
  const contents: Buffer[] = []
  for (const file of files) {
    const handle = await openToRead(file)
    try {
      contents.push(await handle.readFile())
    } finally {
      await handle.close()
    }
  }
  const bytes = Buffer.concat(contents)
  const payloads: Buffer[] = []
  for (let at = 0; at < bytes.length; at += PAYLOAD_BYTES) payloads.push(bytes.subarray(at, at + PAYLOAD_BYTES))
  return payloads
}

async function measure(file: string): Promise<number> {
  const handle = await openToRead(file)
  try {
    const stat = await handle.stat()
    if (stat.isDirectory()) throw new StartError(`${file} is a directory, not a file`)
    if (!stat.isFile()) throw new StartError(`${file} is not a regular file`)
    if (stat.size === 0) throw new StartError(`${file} is empty`)
    return stat.size
  } finally {
    await handle.close()
  }
}

async function openToRead(file: string): Promise<FileHandle> {
  try {
    // Without O_NONBLOCK a named pipe would hold the process here until somebody writes to it.
    return await open(file, constants.O_RDONLY | (constants.O_NONBLOCK ?? 0))
  } catch (cause) {
    const code = cause instanceof Error && 'code' in cause ? String(cause.code) : String(cause)
    if (code === 'ENOENT' || code === 'ENOTDIR') throw new StartError(`there is no file ${file}`, { cause })
    throw new StartError(`${file} cannot be read: ${code}`, { cause })
  }
}

/** SPEC.md, README.md, the protocol and the library; an installed package has the compiled library only. */
async function ownSources(): Promise<string[]> {
  const root = packageRoot()
  const files = ['SPEC.md', 'README.md'].map((name) => join(root, name)).filter((file) => existsSync(file))
  const library = join(root, 'lib')
  for (const folder of [existsSync(library) ? library : join(root, 'build', 'lib'), join(root, 'protocol')]) {
    if (!existsSync(folder)) continue
    const entries = await readdir(folder, { recursive: true, withFileTypes: true })
    const found = entries.filter((entry) => entry.isFile() && SOURCE.test(entry.name))
    for (const entry of found) {
      const file = join(entry.parentPath, entry.name)
      if ((await measure(file).catch(() => 0)) > 0) files.push(file)
    }
  }
  return files.toSorted()
}

function packageRoot(): string {
  let folder = dirname(fileURLToPath(import.meta.url))
  while (!existsSync(join(folder, 'package.json'))) {
    const above = dirname(folder)
    if (above === folder) throw new StartError('the sources of adaptnet are not where they were installed: name a FILE')
    folder = above
  }
  return folder
}
