import { spawn } from 'node:child_process'
import type { ChildProcess } from 'node:child_process'
import { cpSync, existsSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { Mutant } from './simulation/planted-bugs.ts'

const OUTPUT_MAX = 1_048_576
const PARTS = ['build', 'package.json', 'protocol', 'SPEC.md', 'README.md']

/** Where the package lies that is copied. */
export const ROOT: string = fileURLToPath(new URL('.', import.meta.resolve('adaptnet/package.json')))

export interface Ran {
  /** Null: it was ended, because its time was over. */
  code: number | null
  output: string
}

/** A copy of the built package, for one bug after another. */
export class Laboratory {
  readonly folder: string = mkdtempSync(join(tmpdir(), 'adaptnet-mutants-'))

  constructor() {
    for (const name of PARTS)
      if (existsSync(join(ROOT, name))) cpSync(join(ROOT, name), join(this.folder, name), { recursive: true })
    symlinkSync(join(ROOT, 'node_modules'), join(this.folder, 'node_modules'))
  }

  /** Plants a bug, as long as `hunt` takes. */
  async infected<Finding>(mutant: Mutant, hunt: () => Promise<Finding>): Promise<Finding> {
    const path = join(this.folder, 'build', folderOf(mutant), mutant.file)
    const whole = readFileSync(path, 'utf8')
    writeFileSync(path, planted(mutant, whole))
    try {
      return await hunt()
    } finally {
      writeFileSync(path, whole)
    }
  }

  /** Starts a program of the copy. */
  start(args: readonly string[], env: Readonly<Record<string, string>> = {}): ChildProcess {
    const options = { cwd: this.folder, env: { ...process.env, ...env } }
    return spawn(process.execPath, args, { ...options, stdio: ['ignore', 'pipe', 'pipe'] })
  }

  run(args: readonly string[], ms: number, env: Readonly<Record<string, string>> = {}): Promise<Ran> {
    return endOf(this.start(args, env), ms)
  }

  close(): void {
    rmSync(this.folder, { recursive: true })
  }
}

/** What a program has printed when it ends, or is ended after so long. */
export function endOf(child: ChildProcess, ms: number): Promise<Ran> {
  let output = ''
  const keep = (bytes: Buffer): void => {
    if (output.length < OUTPUT_MAX) output += bytes.toString()
  }
  child.stdout?.on('data', keep)
  child.stderr?.on('data', keep)
  // A bug may make a loop endless: that is found, too.
  const timer = setTimeout(() => child.kill('SIGKILL'), ms)
  return new Promise((resolve, reject) => {
    child.on('error', reject)
    child.on('close', (code) => {
      clearTimeout(timer)
      resolve({ code, output })
    })
  })
}

function folderOf({ file }: Mutant): string {
  return file.startsWith('protocol/') ? '' : 'lib'
}

/** @throws Error when the code has changed so that the bug cannot be planted any more */
export function expectPlantable(mutant: Mutant): void {
  planted(mutant, readFileSync(join(ROOT, 'build', folderOf(mutant), mutant.file), 'utf8'))
}

function planted(mutant: Mutant, text: string): string {
  const { name, file, search, replace } = mutant
  const at = text.indexOf(search)
  if (at < 0) throw new Error(`mutant "${name}": ${file} no longer has: ${search}`)
  if (text.includes(search, at + 1) && mutant.everywhere !== true)
    throw new Error(`mutant "${name}": ${file} has this more than once: ${search}`)
  return mutant.everywhere === true ? text.replaceAll(search, replace) : text.replace(search, () => replace)
}
